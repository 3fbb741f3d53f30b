-- How a workflow or a map ends, and how long all of it is kept.
local M = {}

-- A key goes after that time, or when the call ends.
local function keep(batch, key, ttl_ms)
  if ttl_ms > 0 then
    redis.call('PEXPIRE', key, clock.text(ttl_ms))
  else
    batches.push(batch, 'removed', key)
  end
end

local function keep_group(batch, id, ttl_ms)
  for _, name in ipairs({ 'open', 'items', 'failed', 'results', 'nodes' }) do
    keep(batch, keys[name](batch.base, id), ttl_ms)
  end
end

-- How long all of a member is kept whose workflow has ended.
function M.keep_member(batch, id, ttl_ms)
  local base, record = batch.base, task.read(batch.base, id, { 'kind', 'needs', 'steps' })
  if not record then return end
  -- An earlier version may have put a task there that is no part of it.
  if record.needs then keep(batch, keys.task(base, id), ttl_ms) end
  -- Of one that was skipped.
  if record.steps and ttl_ms <= 0 then
    memos.drop(batch, id)
  elseif record.steps then
    keep(batch, keys.steps(base, id), ttl_ms)
    keep(batch, keys.signals(base, id), ttl_ms)
    children.keep(batch, id)
  end
  if record.kind then keep_group(batch, id, ttl_ms) end
end

-- How long the records of a workflow that has ended are kept: from now on as its own. Replies how many it has.
function M.sweep(batch, root)
  local base, ttl_ms = batch.base, number.of(root.result_ttl_ms, 0)
  if root.parent and ttl_ms >= 0 then ttl_ms = math.max(ttl_ms, children.remembered_ms(base, root) or 0) end
  if ttl_ms < 0 then return 0 end
  local names = redis.pcall('LRANGE', keys.nodes(base, root.id), 0, -1)
  for _, name in ipairs(errors.of(names) and {} or names) do
    M.keep_member(batch, group.id_of(root.id, name), ttl_ms)
  end
  keep_group(batch, root.id, ttl_ms)
  keep(batch, keys.task(base, root.id), ttl_ms)
  return errors.of(names) and 0 or #names
end

-- The error of a group: how many did not complete, and one of them.
local function reason(batch, of, missing, total)
  local text = clock.text(missing) .. ' of ' .. clock.text(total) .. ' tasks did not complete'
  local names, name = keys.failed(batch.base, of.id), redis.call('HGET', keys.task(batch.base, of.id), 'first_missing')
  -- It may have run again since.
  if not name or redis.call('SISMEMBER', names, name) == 0 then name = redis.call('SRANDMEMBER', names) end
  if not name then return text end
  local id = group.id_of(of.id, name)
  local record = task.read(batch.base, id, { 'state', 'error' }) or {}
  return text .. ', first ' .. id .. ': ' .. history.short(record.error or record.state or 'its record is gone')
end

-- What a group ended as, and what else its record gets.
local function outcome(batch, of, counts)
  local missing = counts.failed + counts.skipped + counts.aborted
  -- Calls that somebody deleted before they became tasks.
  if of.kind == 'map' then missing = missing + math.max(of.size - of.made, 0) end
  local why = of.abort_requested
  if why == 'timeout' then
    return 'aborted', { 'error', 'timed out after ' .. clock.text(number.of(of.timeout_ms, 0)) .. ' ms' }
  elseif why == 'unfinished' then
    return 'aborted', { 'error', 'its client never sent the rest of it' }
  elseif why and why ~= 'failed' then
    return 'aborted', { 'error', 'aborted' }
  end
  if of.kind == 'map' then
    local tolerate = number.of(of.tolerate, 0)
    -- Of a map that is filled while its workflow runs, it may be a part.
    if tolerate < 1 then tolerate = math.floor(tolerate * of.size) end
    if missing <= tolerate then return 'complete', {} end
    return 'failed', { 'error', reason(batch, of, missing, of.size) }
  end
  local total = counts.complete + missing
  local key = keys.task(batch.base, of.id)
  if counts.unborne > 0 and counts.unborne > number.of(redis.call('HGET', key, 'tolerate'), 0) then
    return 'failed', { 'error', reason(batch, of, missing, total) }
  end
  local name = redis.call('HGET', key, 'output')
  if not name then return 'complete', { 'result', 'null' } end
  local found = task.read(batch.base, group.id_of(of.id, name), { 'state', 'result', 'result_codec' })
  if not found or found.state ~= 'complete' then
    return 'failed', { 'error', 'its result, ' .. name .. ', did not complete' }
  end
  local fields = { 'result', found.result or 'null' }
  if found.result_codec then fields[3], fields[4] = 'result_codec', found.result_codec end
  return 'complete', fields
end

-- blocked -> complete, failed, aborted for a group of which nothing is open.
local function end_group(batch, of, state, fields)
  local base, key = batch.base, keys.task(batch.base, of.id)
  of.state = state
  redis.call('HSET', key, 'state', state, 'finished_at', batch.now_text, unpack(fields))
  batches.ended(batch, of.id)
  if of.undoing then undo.finish(batch, of) end
  local parent_id, name = group.split(of.id)
  local parent = parent_id and group.read(batch, parent_id)
  if parent then
    group.note(batch, parent, name, state, true)
  elseif not parent_id then
    redis.call('ZREM', keys.workflows(base), of.id)
    if of.building or of.timeout_ms or of.open_map then redis.call('ZREM', keys.deadlines(base), of.id) end
    pause_rules.end_of_workflow(base, of.id)
    if of.parent then parents.tell(batch, of) end
    batches.push(batch, 'swept', of)
  end
end

-- Why nothing of it is undone: somebody asked for its end alone, or nothing of it ever ran.
local AS_IT_IS = { ['1'] = true, unfinished = true }
local COUNTS = { 'complete', 'failed', 'skipped', 'aborted', 'unborne' }

-- A group ends when nothing of it is open, and no item waits to become a task. Where fewer have ended than there are, somebody
-- deleted what was open: it stays, and fsck finds it.
function M.end_if_through(batch, of)
  if of.state ~= 'blocked' or redis.call('EXISTS', keys.open(batch.base, of.id)) == 1 then return end
  if of.is_open == '1' and not of.abort_requested then return end
  if of.kind == 'map' and redis.call('EXISTS', keys.items(batch.base, of.id)) == 1 then return end
  local found = redis.call('HMGET', keys.task(batch.base, of.id), 'tasks', unpack(COUNTS))
  local counts = {}
  for i, name in ipairs(COUNTS) do counts[name] = number.of(found[i + 1], 0) end
  local expected = of.kind == 'map' and of.made or number.of(found[1], 0)
  local through = counts.complete + counts.failed + counts.skipped + counts.aborted
  if through < expected and not of.abort_requested then return end
  local state, fields = outcome(batch, of, counts)
  local is_undone = of.undoing and state ~= 'complete' and not AS_IT_IS[of.abort_requested or '']
  if not (is_undone and undo.go_on(batch, of)) then end_group(batch, of, state, fields) end
end

return M
