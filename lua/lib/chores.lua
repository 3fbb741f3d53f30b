-- What calls leave of workflows to heartbeats, and what these come upon themselves.
local M = {}

-- What one call looks at of what others left; members of an unfinished workflow that it looks at besides.
local MOST, LOOK_AT = 500, 10

-- What is open to do for one id, by its record: that it ended is not known to its group, it could begin, its group could end, or it
-- is being aborted.
function M.look(batch, id)
  local record = task.read(batch.base, id, edges.FIELDS)
  local own = record and record.kind and group.read(batch, id)
  local parent_id, name = group.split(id)
  local of = parent_id and group.read(batch, parent_id)
  if of and of.building and not of.abort_requested then return end
  if own and own.state == 'blocked' and number.of(record.needs, 0) <= 0 then
    if group.damage(batch, own) then return end
    if own.parent and parents.forsake_orphans(batch, own) then return end
    if group.is_stopping(own) then
      stopping.cancel(batch, own)
    elseif own.kind == 'map' then
      map.make(batch, own)
    end
    return edges.touch(batch, own)
  end
  if own and not parent_id then
    if own.parent and task.is_finished(own.state) then parents.tell(batch, own) end
    recount.go_on(batch, own)
    return batches.push(batch, 'swept', own)
  end
  if not of or redis.pcall('SISMEMBER', keys.open(batch.base, of.id), name) ~= 1 then return end
  if not record or not record.state or task.is_finished(record.state) then
    group.note_open(batch, of, name, record)
  elseif record.state == 'blocked' and number.of(record.needs, 0) <= 0 and number.of(record.broken, 0) <= 0
    and not group.is_stopping(of) then
    edges.begin(batch, of, name, record)
  end
end

-- What took too long, or what its client left unfinished.
local function stop_overdue(batch)
  local deadlines = keys.deadlines(batch.base)
  local overdue = redis.pcall('ZRANGEBYSCORE', deadlines, '-inf', batch.now_text, 'LIMIT', 0, LOOK_AT)
  for _, id in ipairs(errors.of(overdue) and {} or overdue) do
    local of = group.read(batch, id)
    local err = of and stopping.abort(batch, id, (of.building or of.open_map) and 'unfinished' or 'timeout')
    if err then
      batches.refuse(batch, id, '', err)
      redis.call('ZADD', deadlines, clock.text(batch.now + batches.STUCK_MS), id)
    else
      redis.call('ZREM', deadlines, id)
    end
    flow.advance(batch)
  end
end

-- Look at what earlier calls left, up to a bound; and at some members of some workflow, which a call of an earlier version may
-- have ended, or somebody deleted. Replies whether more is left.
function M.go_on(batch)
  local base = batch.base
  local chores = keys.chores(base)
  if errors.of(redis.pcall('LLEN', chores)) then return false end
  if errors.of(redis.pcall('ZCARD', keys.workflows(base))) then return false end
  flow.advance(batch)
  -- Not what these looks leave in turn.
  local left = redis.call('LLEN', chores)
  while left > 0 and (batch.moves or 0) < MOST do
    batch.moves, left = (batch.moves or 0) + 1, left - 1
    M.look(batch, redis.call('LPOP', chores))
    flow.advance(batch)
  end
  if left > 0 then return true end
  stop_overdue(batch)
  local some = redis.call('ZRANDMEMBER', keys.workflows(base))
  if some then
    local names = redis.pcall('SRANDMEMBER', keys.open(base, some), LOOK_AT)
    for _, name in ipairs(errors.of(names) and {} or names) do
      local id = group.id_of(some, name)
      M.look(batch, id)
      local inner = redis.pcall('SRANDMEMBER', keys.open(base, id), LOOK_AT)
      for _, index in ipairs(errors.of(inner) and {} or inner) do M.look(batch, group.id_of(id, index)) end
    end
    M.look(batch, some)
    flow.advance(batch)
  end
  return false
end

return M
