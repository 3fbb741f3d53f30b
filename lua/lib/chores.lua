-- What calls leave of workflows to heartbeats, and what these come upon themselves.
local M = {}

-- What one call looks at of what others left; members of an unfinished workflow that it looks at besides.
local MOST, LOOK_AT = 500, 10
-- After how long a worker is told again what there is to carry.
local TOLD_MS = 1000

-- away -> away: another queue has had a member for so long that it may have lost it, or its answer: it is told again.
function M.ask_again(batch, id, record)
  record.sent_at = redis.call('HGET', keys.task(batch.base, id), 'sent_at')
  if not outbox.damage(batch) and outbox.is_silent(batch.base, id, record, batch.now) then
    outbox.say_again(batch, id, record)
  end
end

-- Whether these are children that go on although their task has ended, or is gone; not those that somebody runs again.
local function is_orphan(base, own)
  local _, id = children.of(own)
  local record = id and not (own.abort_requested or own.reopened) and task.read(base, id, { 'state' })
  return record and (not record.state or task.is_finished(record.state))
end

-- What is open to do for one id, by its record: that it ended is not known to its group, it could begin, its group could end, it
-- is being aborted, or it may be lost in another queue.
function M.look(batch, id)
  local record = task.read(batch.base, id, edges.FIELDS)
  local own = record and record.kind and group.read(batch, id)
  local parent_id, name = group.split(id)
  local of = parent_id and group.read(batch, parent_id)
  if of and of.building and not of.abort_requested then return end
  if own and own.state == 'blocked' and number.of(record.needs, 0) <= 0 then
    if group.damage(batch, own) then return end
    if is_orphan(batch.base, own) then
      stopping.abort(batch, id, children.FORSAKEN)
    elseif group.is_stopping(own) then
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
  if not of or redis.pcall('SISMEMBER', keys.open(batch.base, of.id), name) ~= 1 then
    -- A dead letter that runs alone in another queue is looked at until it has ended.
    if record and record.state == 'away' then
      M.ask_again(batch, id, record)
      group.later(batch, id)
    end
    return
  end
  if not record or not record.state or task.is_finished(record.state) then
    group.note_open(batch, of, name, record)
  elseif record.state == 'blocked' and number.of(record.needs, 0) <= 0 and number.of(record.broken, 0) <= 0
    and not group.is_stopping(of) then
    edges.begin(batch, of, name, record)
  elseif record.state == 'away' then
    M.ask_again(batch, id, record)
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

-- What there is to carry to other queues nobody may carry any more: one worker in a while is told again.
local function tell_again(batch)
  local base = batch.base
  if redis.call('EXISTS', keys.outbox(base)) == 0 then return end
  local told_at = redis.pcall('HGET', keys.meta(base), 'told_at')
  if errors.of(told_at) or batch.now - number.of(told_at, 0) < TOLD_MS then return end
  redis.call('HSET', keys.meta(base), 'told_at', batch.now_text)
  batch.is_outbound = true
end

-- Look at what earlier calls left, up to a bound; and at some members of some workflow, which a call of an earlier version may
-- have ended, or somebody deleted. Replies whether more is left.
function M.go_on(batch)
  local base = batch.base
  local chores = keys.chores(base)
  tell_again(batch)
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
