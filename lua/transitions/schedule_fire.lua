-- schedule_fire: none, complete, failed, aborted, expired, discarded -> queued, limited, scheduled. A worker says that an occurrence is due: it is enqueued once, and the schedule moves on to the next.
-- args: name, due_at int, following_at int, next_due_at int, headers
-- reply: answer, next_due_at, id

-- Later than this an occurrence was missed.
local GRACE_MS = 60000
-- Missed occurrences that are caught up with in a row, however many workers see to it.
local MAX_CAUGHT_UP = 100

-- Whether an occurrence is to run, and how many in a row were missed and made up for with it.
local function judge(definition, due_at, now)
  -- A change of timing may have led back: nothing runs twice.
  if definition.last_due_at and due_at <= definition.last_due_at then return false end
  if now - due_at <= GRACE_MS or definition.missed == 'once' then return true end
  local caught_up = (tonumber(definition.caught_up) or 0) + 1
  return definition.missed == 'all' and caught_up <= MAX_CAUGHT_UP, caught_up
end

return function(base, args)
  local name, due_at = args.name, args.due_at
  if args.following_at <= due_at or args.next_due_at <= due_at then
    errors.raise(errors.bad_argument('following_at and next_due_at must come after due_at'))
  end
  local definition, at = schedule.read(base, name), schedule.due_at(base, name)
  local now, now_text = clock.read()
  if not definition or not at then return { 'gone', 0, '' } end
  if at ~= due_at then return { 'moved', at, '' } end
  if due_at > now then return { 'early', at, '' } end
  local id = schedule.occurrence(name, due_at)
  local key = keys.task(base, id)
  lane.check(base, definition.lane)
  errors.read('ZCARD', keys.dead(base))
  errors.read('ZCARD', keys.scheduled(base))
  errors.read('HGET', keys.meta(base), 'timer_at')
  errors.read('SCARD', keys.waiters(base, id))
  local record, err = task.read(base, id, { 'state' })
  if err then return { err = err } end
  local last = definition.coalesce and definition.last_id
    and task.read(base, definition.last_id, { 'state', 'waits_for' })

  local asked = uses.read(definition.limits)
  local refusal = asked and (uses.refusal(base, asked, {}) or line.damage(base, definition.lane, asked.line))
  if refusal then return refusal end

  local runs, caught_up = judge(definition, due_at, now)
  local before, passed = last and last.state, nil
  if definition.paused then
    passed = 'paused'
  elseif not runs then
    passed = 'skipped'
  elseif before and before ~= 'running' and not last.waits_for and not task.is_finished(before) then
    passed = 'coalesced' -- once the one before runs, there is no backlog
  end
  -- One that is passed over takes with it all that are due.
  local next_due_at = not passed and definition.missed == 'all' and args.following_at or args.next_due_at

  redis.call('ZADD', keys.schedule_due(base), next_due_at, name)
  if passed == 'skipped' and definition.caught_up then
    definition.caught_up = nil
    schedule.write(base, name, definition)
  end
  if passed then return { passed, next_due_at, '' } end
  definition.last_id, definition.last_due_at, definition.caught_up = id, due_at, caught_up
  schedule.write(base, name, definition)
  schedule.await(base, now, name, id)
  -- Somebody enqueued a task of that id: it stands for this occurrence.
  if record.state and not task.is_finished(record.state) then return { 'exists', next_due_at, id } end
  local batch = batches.open(base, now, now_text)
  if record.state then move.remove(batch, id) end
  local start_at, fields = schedule.start_at(definition, due_at, id), {}
  local function add(field, value) fields[#fields + 1], fields[#fields + 2] = field, value end
  local headers = args.headers ~= '' and args.headers or definition.headers
  if headers then add('headers', headers) end
  if definition.result_ttl_ms then add('result_ttl_ms', clock.text(definition.result_ttl_ms)) end
  if start_at > now then add('due_at', clock.text(start_at)) end
  local plan = { due_at = start_at > now and start_at or nil, line = asked and asked.line }
  plan.fields = uses.fields(fields, asked)
  move.create(batch, key, id, definition.task, definition.lane, definition.args or '', definition.kwargs or '', plan)
  batches.count(batch, 'enqueued')
  redis.call('SADD', keys.lanes(base), definition.lane)
  calls.close(batch)
  return { 'fired', next_due_at, id }
end
