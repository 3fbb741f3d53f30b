-- from_1_2: moves what ArdiQ 1.2 left under its keys into this queue. Each task leaves its place there and enters one here in
-- the same call, so whatever is interrupted, and whoever else takes it meanwhile, it is in exactly one of the two.
--
-- A script of its own, never part of the library: 1.2 knew no hash tags, so its keys lie in another slot, and it ran on no
-- cluster. KEYS[1] is the base of the queue. ARGV: 1.2's prefix of the queue (`ardiq:emails:`), the kind of place (`queued`,
-- `scheduled`, `dead` or `result`), how long the record of an aborted task is kept (ms), and for each task WIDTH fields:
-- `at` (its stream entry or score), `id`, `lane`, `found` (the bytes that were read there), `name`, `args`, `kwargs`, and
-- `fields`, a JSON object of more fields of its record. An empty name: the task is only removed.
-- Replies one string a task: the state it is in now; `exists` (this queue has a newer task of that id: removed there, nothing
-- added here), `removed`, `expired` (1.2 kept no data for it: removed); or, with nothing changed, `claimed` (by a worker of 1.2
-- that is alive), `changed` (since it was read), `gone`.
local GROUP = 'workers'
local WIDTH = 8
local NAMES = { 'at', 'id', 'lane', 'found', 'name', 'args', 'kwargs', 'fields' }

-- Who holds a stream's entry, or nil.
local function holder(stream, entry)
  local pending = redis.pcall('XPENDING', stream, GROUP, entry, entry, 1)
  return not errors.of(pending) and pending[1] and pending[1][2] or nil
end

-- For each kind of place why a task cannot be had there, or nil and how to take it out.
local LOOK = {}

function LOOK.queued(old, t)
  local stream = old .. 'queues:' .. t.lane
  local worker = holder(stream, t.at)
  if worker and redis.call('EXISTS', old .. 'health:' .. worker) == 1 then return 'claimed' end
  if #redis.call('XRANGE', stream, t.at, t.at) == 0 then return 'gone' end
  return nil, function()
    if worker then redis.call('XACK', stream, GROUP, t.at) end
    redis.call('XDEL', stream, t.at)
  end
end

function LOOK.scheduled(old, t)
  local delayed = old .. 'queues:delayed:' .. t.lane
  local due_at = redis.call('ZSCORE', delayed, t.id)
  if not due_at then return 'gone' end
  if due_at ~= t.at then return 'changed' end
  t.due_at = tonumber(due_at)
  return nil, function() redis.call('ZREM', delayed, t.id) end
end

-- A task that waits: its call, how long it may still wait, its tries, and whether somebody aborted it.
local function read_waiting(old, t)
  local data, retries = old .. 'task:data:' .. t.id, old .. 'task:retry:' .. t.id
  local payload = redis.call('GET', data)
  if payload and payload ~= t.found then return 'changed' end
  t.is_expired = not payload
  t.expires_in_ms, t.tries = redis.call('PTTL', data), redis.call('GET', retries)
  t.is_aborted = redis.call('EXISTS', old .. 'task:abort:' .. t.id) == 1
end

local function remove_waiting(old, id)
  redis.call('DEL', old .. 'task:data:' .. id, old .. 'task:retry:' .. id, old .. 'task:abort:' .. id)
  redis.call('SREM', old .. 'index:running', id)
end

local function remove_result(old, id)
  redis.call('DEL', old .. 'task:results:' .. id)
  redis.call('ZREM', old .. 'index:results', id)
end

function LOOK.dead(old, t)
  local key = old .. 'task:dead:' .. t.id
  if redis.call('HGET', key, 'payload') ~= t.found then return 'gone' end
  t.failed_at = t.at
  return nil, function()
    redis.call('DEL', key)
    redis.call('ZREM', old .. 'index:dead', t.id)
    remove_result(old, t.id)
  end
end

function LOOK.result(old, t)
  local key = old .. 'task:results:' .. t.id
  if redis.call('GET', key) ~= t.found then return 'gone' end
  t.kept_ms = redis.call('PTTL', key)
  return nil, function() remove_result(old, t.id) end
end

local function fields_of(t)
  local ok, options = pcall(cjson.decode, t.fields)
  if not ok or type(options) ~= 'table' then errors.raise(errors.bad_argument('fields must be a JSON object')) end
  local fields = {}
  for name, value in pairs(options) do fields[#fields + 1], fields[#fields + 2] = name, value end
  return fields
end

-- What to do with one task, all of it read and refused before anything is written.
local function plan(batch, old, kind, t)
  local answer, take = LOOK[kind](old, t)
  local is_waiting = kind == 'queued' or kind == 'scheduled'
  answer = answer or is_waiting and read_waiting(old, t) or nil
  if answer then return { answer = answer } end
  local p = { take = take, is_waiting = is_waiting }
  local record, err = task.read(batch.base, t.id, { 'state' })
  if err then errors.raise({ err = err }) end
  if t.is_expired then
    p.removed = 'expired'
  elseif t.name == '' and kind ~= 'result' then
    p.removed = 'removed'
  elseif record.state and not (is_waiting and task.is_finished(record.state)) then
    p.removed = 'exists'
  else
    p.replaces, p.fields = record.state ~= nil, fields_of(t)
  end
  return p
end

-- Write a finished record, which keeps the times it has.
local function put_record(base, t, fields)
  if t.name ~= '' then
    fields[#fields + 1], fields[#fields + 2], fields[#fields + 3], fields[#fields + 4] = 'name', t.name, 'lane', t.lane
  end
  redis.call('HSET', keys.task(base, t.id), unpack(fields))
end

local function enter(batch, kind, t, p)
  local key, fields = keys.task(batch.base, t.id), p.fields
  local function add(name, value) fields[#fields + 1], fields[#fields + 2] = name, value end
  if p.replaces then move.remove(batch, t.id) end
  if kind == 'result' then
    if t.args ~= '' then add('result', t.args) end
    put_record(batch.base, t, fields)
    if t.kept_ms > 0 then redis.call('PEXPIRE', key, t.kept_ms) end
    return redis.call('HGET', key, 'state')
  end
  add('args', t.args)
  if t.kwargs ~= '' then add('kwargs', t.kwargs) end
  if kind == 'dead' then
    add('state', 'failed')
    put_record(batch.base, t, fields)
    redis.call('ZADD', keys.dead(batch.base), t.failed_at, t.id)
    return 'failed'
  end
  add('tries', t.tries or '0')
  if t.is_aborted then
    put_record(batch.base, t, fields)
    move.finish(batch, t.id, 'aborted', { 'error', 'aborted' }, batch.result_ttl_ms)
    return 'aborted'
  end
  if t.expires_in_ms > 0 then add('expires_at', clock.text(batch.now + t.expires_in_ms)) end
  local due_at = t.due_at and t.due_at > batch.now and t.due_at or nil
  if due_at then add('due_at', clock.text(due_at)) end
  batches.count(batch, 'enqueued')
  return move.create(batch, key, t.id, t.name, t.lane, t.args, t.kwargs, { due_at = due_at, fields = fields })
end

return function(base, argv)
  local old, kind = argv[1], argv[2]
  if not LOOK[kind] then errors.raise(errors.bad_argument('unknown kind ' .. tostring(kind))) end
  local batch = batches.open(base, clock.read())
  batch.result_ttl_ms = tonumber(argv[3])
  local tasks, plans, seen, lanes = {}, {}, {}, {}
  for i = 4, #argv, WIDTH do
    local t = {}
    for j, name in ipairs(NAMES) do t[name] = argv[i + j - 1] end
    tasks[#tasks + 1] = t
    plans[#tasks] = seen[t.id] and { answer = 'changed' } or plan(batch, old, kind, t)
    seen[t.id] = true
    if plans[#tasks].fields and t.lane ~= '' then lanes[t.lane] = true end
  end
  errors.read('ZCARD', keys.scheduled(base))
  errors.read('ZCARD', keys.dead(base))
  errors.read('HGET', keys.meta(base), 'timer_at')
  for name in pairs(lanes) do lane.check(base, name) end

  for name in pairs(lanes) do redis.call('SADD', keys.lanes(base), name) end
  local answers = {}
  for i, t in ipairs(tasks) do
    local p = plans[i]
    if p.fields then p.removed = enter(batch, kind, t, p) end
    if p.take then
      p.take()
      if p.is_waiting then remove_waiting(old, t.id) end
    end
    answers[i] = p.removed or p.answer
  end
  calls.close(batch)
  return answers
end
