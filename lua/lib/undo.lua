-- Compensations: what undoes members of a workflow that completed, if it comes to nothing. Each is a member itself, blocked
-- until it is its turn, and not waited for before. `undo:<group>` lists those that are due, the first one the last to be needed.
local M = {}

-- The compensation that runs, or is the next to run, or nil.
local function first(base, of) return redis.call('LRANGE', keys.undo(base, of.id), 0, 0)[1] end

-- Names of what is due, the first one first, as records have it: compensations of what completed, and did not only run again to
-- no effect, which have not ended but as dead letters.
local function due(base, of)
  local found, names = {}, redis.pcall('LRANGE', keys.nodes(base, of.id), 0, -1)
  for at, name in ipairs(errors.of(names) and {} or names) do
    local record = task.read(base, group.id_of(of.id, name), { 'state', 'after' })
    local undone = record and record.state and string.match(record.after or '', '^([^ ?]+)%?undo$')
    if undone and (record.state == 'failed' or not task.is_finished(record.state)) then
      local other = task.read(base, group.id_of(of.id, undone), { 'state', 'finished_at' })
      local has_completed = other and other.state == 'complete'
      if has_completed and redis.call('SISMEMBER', keys.failed(base, of.id), undone) == 0 then
        found[#found + 1] = { name = name, at = at, since = number.of(other.finished_at, 0) }
      end
    end
  end
  table.sort(found, function(a, b) return a.since > b.since or a.since == b.since and a.at > b.at end)
  for i, one in ipairs(found) do found[i] = one.name end
  return found
end

-- The same, where nothing is listed: somebody may have deleted that.
local function first_due(base, of)
  local name = first(base, of)
  if name then return name end
  bulk.write('RPUSH', keys.undo(base, of.id), due(base, of))
  return first(base, of)
end

-- Members have completed: their compensations are due, should it come to that, before those of what completed earlier.
function M.note(batch, of, ended)
  if of.undoing ~= '0' then return end
  local base = batch.base
  for _, one in ipairs(ended) do
    local followers = one.state == 'complete'
      and (one.record and one.record['then'] or redis.call('HGET', keys.task(base, one.id), 'then'))
    local name = followers and string.match(followers, '([^ ?]+)%?undo')
    if name then
      redis.call('LPUSH', keys.undo(base, of.id), name)
      -- It was not needed when the workflow failed, before something of it ran again.
      local key = keys.task(base, group.id_of(of.id, name))
      if redis.pcall('HGET', key, 'state') == 'skipped' then
        redis.call('HSET', key, 'state', 'blocked')
        redis.call('HDEL', key, 'error', 'finished_at')
      end
    end
  end
end

-- blocked -> queued, limited, scheduled for the compensation that is next, if none has begun that did not end. One that failed
-- has to run again, or to be discarded. Replies whether any is left.
function M.go_on(batch, of)
  local base, list = batch.base, keys.undo(batch.base, of.id)
  local name = first_due(base, of)
  while name do
    local record = task.read(base, group.id_of(of.id, name), edges.FIELDS) or {}
    if record.state and (record.state == 'failed' or not task.is_finished(record.state)) then
      if not group.is_undoing(of) then
        of.undoing = '1'
        redis.call('HSET', keys.task(base, of.id), 'undoing', '1')
        redis.call('HDEL', keys.task(base, of.id), 'cancelled_to')
        -- Its time is that of the way there.
        if of.timeout_ms or of.open_map then redis.call('ZREM', keys.deadlines(base), of.id) end
      end
      if record.state == 'blocked' then
        redis.call('SADD', keys.open(base, of.id), name)
        edges.begin(batch, of, name, record)
      end
      return true
    end
    redis.call('LPOP', list)
    name = first_due(base, of)
  end
  return false
end

-- A workflow has ended: what was not needed will not run.
function M.finish(batch, of)
  if not of.undoing then return end
  redis.call('DEL', keys.undo(batch.base, of.id))
  local names = redis.pcall('LRANGE', keys.nodes(batch.base, of.id), 0, -1)
  for _, name in ipairs(errors.of(names) and {} or names) do
    local id = group.id_of(of.id, name)
    local record = task.read(batch.base, id, { 'state', 'after' })
    if record and record.state == 'blocked' and group.is_compensation(record) then
      move.skip(batch, id, 'skipped: not needed')
    end
  end
end

-- Whether a dead letter is the compensation that the others wait for.
function M.is_awaited(batch, of, name)
  return group.is_undoing(of) and of.state == 'blocked' and first_due(batch.base, of) == name
end

return M
