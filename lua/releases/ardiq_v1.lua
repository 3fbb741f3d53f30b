#!lua name=ardiq_v1
-- Ardiq's library, version 1. Generated from lua/ in Ardiq's sources: edit those.
local function globals() return redis, cjson, cmsgpack, error, ipairs, math, next, pairs, pcall, select, string, table, tonumber, tostring, type, unpack end
local redis, cjson, cmsgpack, error, ipairs, math, next, pairs, pcall, select, string, table, tonumber, tostring, type, unpack = redis
local function fetch_globals() redis, cjson, cmsgpack, error, ipairs, math, next, pairs, pcall, select, string, table, tonumber, tostring, type, unpack = globals() end
local clock = (function()
local M = {}
function M.read()
  local time = redis.call('TIME')
  local micros = time[2]
  if #micros < 6 then micros = string.sub('00000' .. micros, -6) end
  local text = time[1] .. string.sub(micros, 1, 3)
  return tonumber(text), text
end
function M.now() return (M.read()) end
function M.text(number)
  return string.format('%d', number)
end
return M
end)()
local errors = (function()
local M = {}
local function refusal(code, message)
  return { err = 'ARDIQ_' .. code .. ' ' .. message }
end
function M.bad_argument(what)
  return refusal('BAD_ARGUMENT', what)
end
function M.lease_lost(worker, why)
  why = why or 'is not a member of this queue: its lease expired, or it never joined'
  return refusal('LEASE_LOST', 'worker ' .. worker .. ' ' .. why .. '. Drop what was not started and join under a new'
    .. ' identity.')
end
function M.old_step(seq, last)
  return refusal('OLD_STEP', 'step ' .. seq .. ' came after step ' .. last .. ' was answered; nothing was changed')
end
function M.lost_steps(worker, seq, last)
  return M.lease_lost(worker, 'sent step ' .. seq .. ' after step ' .. last .. ': the server lost the steps between, as'
    .. ' may happen in a failover')
end
function M.wrong_type(key)
  return refusal('WRONG_TYPE', 'key ' .. key .. ' does not hold what Ardiq keeps there: something else wrote it. Look'
    .. ' at it with redis-cli TYPE, then rename or delete it.')
end
function M.raise(err)
  error(err, 0)
end
function M.of(reply)
  return type(reply) == 'table' and reply.err or nil
end
function M.read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then M.raise(M.wrong_type(key)) end
  return M.raise(reply)
end
return M
end)()
local keys = (function()
local M = {}
local function of_queue(name)
  local last_base, key
  return function(base)
    if base ~= last_base then
      last_base = nil
      key = base .. name
      last_base = base
    end
    return key
  end
end
local function of(prefix)
  local last_base, last_name, key
  return function(base, name)
    if base ~= last_base or name ~= last_name then
      last_base = nil
      last_name, key = name, base .. prefix .. name
      last_base = base
    end
    return key
  end
end
function M.task(base, id) return base .. 'task:' .. id end
function M.held(base, id) return base .. 'held:' .. id end
function M.waiters(base, id) return base .. 'waiters:' .. id end
function M.log(base, id) return base .. 'log:' .. id end
M.ready = of('ready:')
M.tombstones = of('tombstones:')
M.wake = of('wake:')
M.idle = of('idle:')
M.running = of('running:')
M.worker = of('worker:')
M.aborts = of('aborts:')
M.mailbox = of('mailbox:')
M.stats_minute = of('stats:')
M.task_stats = of('task_stats:')
M.scheduled = of_queue('scheduled')
M.quarantined = of_queue('quarantined')
M.workers = of_queue('workers')
M.loads = of_queue('loads')
M.unknown_tasks = of_queue('unknown_tasks')
M.dead = of_queue('dead')
M.pauses = of_queue('pauses')
M.schedules = of_queue('schedules')
M.schedule_due = of_queue('schedule_due')
M.lanes = of_queue('lanes')
M.meta = of_queue('meta')
M.stats = of_queue('stats')
M.replicated = of_queue('replicated')
return M
end)()
local object = (function()
local M = {}
function M.check(fields, kinds, what)
  for name, value in pairs(fields) do
    local kind = kinds[name]
    if type(value) ~= kind then
      local problem = kind and name .. ' must be a ' .. kind or 'unknown field ' .. name
      errors.raise(errors.bad_argument('in ' .. what .. ', ' .. problem))
    end
  end
  return fields
end
function M.decode(text, kinds, what)
  local ok, fields = pcall(cjson.decode, text)
  if not ok or type(fields) ~= 'table' then errors.raise(errors.bad_argument(what .. ' must be a JSON object')) end
  return M.check(fields, kinds, what)
end
return M
end)()
local lane = (function()
local M = {}
local MAX_AT_ONCE = 1000
local FIELDS = { lane = 'string', weight = 'number', limit = 'number' }
local REMEMBERED, LOOK_AT, MAX_LOOKS = 100, 20, 10
function M.check(base, lane)
  errors.read('LLEN', keys.ready(base, lane))
  errors.read('SCARD', keys.lanes(base))
  errors.read('SCARD', keys.tombstones(base, lane))
  errors.read('LLEN', keys.wake(base, lane))
end
function M.look(base, lane, workers)
  local ready = errors.read('LLEN', keys.ready(base, lane))
  return {
    ready = ready,
    is_new = ready == 0 and errors.read('SISMEMBER', keys.lanes(base), lane) == 0,
    marked = 0,
    tokens = workers > 0 and errors.read('LLEN', keys.wake(base, lane)) or 0,
    workers = workers,
  }
end
local function misfit(command, key)
  return errors.of(redis.pcall(command, key)) and errors.wrong_type(key)
end
function M.damage(base, lane)
  return misfit('LLEN', keys.ready(base, lane)) or misfit('LLEN', keys.wake(base, lane))
    or misfit('SCARD', keys.tombstones(base, lane)) or misfit('SCARD', keys.lanes(base))
end
function M.count_workers(base)
  local workers = redis.pcall('ZCARD', keys.workers(base))
  return errors.of(workers) and 0 or workers
end
function M.wake(base, lane, added, waiting, workers)
  workers = workers or M.count_workers(base)
  if workers == 0 then return end
  waiting = waiting or redis.pcall('LLEN', keys.wake(base, lane))
  if errors.of(waiting) then return end
  local missing = math.min(added, workers - waiting)
  while missing > 0 do
    local tokens = {}
    for i = 1, math.min(missing, MAX_AT_ONCE) do tokens[i] = '1' end
    redis.call('RPUSH', keys.wake(base, lane), unpack(tokens))
    missing = missing - #tokens
  end
end
local function without_tombstones(base, lane, ids, marked)
  local tombstones = keys.tombstones(base, lane)
  marked = marked or redis.pcall('SCARD', tombstones)
  if errors.of(marked) or marked == 0 then return ids end
  if redis.call('EXISTS', keys.ready(base, lane)) == 0 then
    redis.call('DEL', tombstones)
    return ids
  end
  local rest = {}
  for _, id in ipairs(ids) do
    if redis.call('SREM', tombstones, id) == 0 then rest[#rest + 1] = id end
  end
  return rest
end
function M.push(base, lane, ids, command, seen)
  local rest = without_tombstones(base, lane, ids, seen and seen.marked)
  if #rest > 0 and redis.call(command, keys.ready(base, lane), unpack(rest)) == #rest and not seen then
    redis.pcall('SADD', keys.lanes(base), lane)
  end
  if not seen then
    M.wake(base, lane, #ids)
  elseif not seen.is_offered then
    M.wake(base, lane, #ids, seen.tokens, seen.workers)
  end
end
function M.remove_empty(base)
  local key = keys.lanes(base)
  for _ = 1, MAX_LOOKS do
    local count = redis.pcall('SCARD', key)
    if errors.of(count) or count <= REMEMBERED then return end
    local names, empty = redis.call('SRANDMEMBER', key, LOOK_AT), {}
    for _, name in ipairs(names) do
      local is_empty = redis.call('EXISTS', keys.ready(base, name), keys.tombstones(base, name)) == 0
      if is_empty then empty[#empty + 1] = name end
    end
    if #empty > 0 then redis.call('SREM', key, unpack(empty)) end
    if #empty < #names then return end
  end
end
function M.pop(base, lane, count)
  local ids = redis.pcall('LPOP', keys.ready(base, lane), count)
  if not ids then return {}, 0 end
  if ids.err then return {}, 0, errors.wrong_type(keys.ready(base, lane)).err end
  local tombstones = keys.tombstones(base, lane)
  local marked = redis.pcall('SCARD', tombstones)
  if errors.of(marked) or marked == 0 then return ids, #ids end
  local is_tombstone, live, skipped = redis.call('SMISMEMBER', tombstones, unpack(ids)), {}, {}
  for i, id in ipairs(ids) do
    local list = is_tombstone[i] == 1 and skipped or live
    list[#list + 1] = id
  end
  if #skipped > 0 then redis.call('SREM', tombstones, unpack(skipped)) end
  return live, #ids
end
function M.settle_tokens(base, lanes, is_empty)
  local more = 0
  for _, lane in ipairs(lanes) do
    local left = is_empty[lane] and 0 or redis.pcall('LLEN', keys.ready(base, lane))
    if not errors.of(left) then
      if left > 0 then
        if not (lanes.limits and lanes.limits[lane] == 0) then more = 1 end
        M.wake(base, lane, 1)
      else
        redis.call('DEL', keys.wake(base, lane))
      end
    end
  end
  return more
end
function M.names(value)
  if type(value) ~= 'table' or #value == 0 then
    errors.raise(errors.bad_argument('lanes must be a JSON array of lane names, highest priority first'))
  end
  if #value > MAX_AT_ONCE then
    errors.raise(errors.bad_argument('a worker serves up to ' .. MAX_AT_ONCE .. ' lanes, not ' .. #value))
  end
  local names, weighted = {}, 0
  for i, entry in ipairs(value) do
    local name, limit, weight = entry, nil, nil
    if type(entry) == 'table' then
      object.check(entry, FIELDS, 'lanes')
      name, limit, weight = entry.lane, entry.limit, entry.weight
    end
    if type(name) ~= 'string' or name == '' then
      errors.raise(errors.bad_argument('lanes must hold non-empty strings'))
    end
    if (limit or 0) < 0 or (weight or 1) < 1 then
      errors.raise(errors.bad_argument('in lanes, limit must be a number >= 0, and weight a number >= 1'))
    end
    names[i] = name
    if limit then
      names.limits = names.limits or {}
      names.limits[name] = limit
    end
    if weight then
      names.weights, weighted = names.weights or {}, weighted + 1
      names.weights[name] = weight
    end
  end
  if weighted > 0 and weighted < #names then errors.raise(errors.bad_argument('all lanes need a weight, or none')) end
  return names
end
return M
end)()
local number = (function()
local M = {}
local MAX = 2 ^ 53
function M.of(text, default)
  local value = tonumber(text or nil)
  return value and value > -MAX and value < MAX and value or default
end
return M
end)()
local mail = (function()
local M = {}
M.OUTCOME = { 'state', 'tries', 'enqueued_at', 'started_at', 'finished_at', 'result_codec', 'result', 'error' }
local TTL_MS, AHEAD_MS = 600000, 3600000
local MAX = 10000
local LARGEST_OUTCOME = 65536
function M.pack(...)
  local parts = {}
  for i = 1, select('#', ...) do
    local part = tostring((select(i, ...)))
    parts[i] = #part .. ':' .. part .. ','
  end
  return table.concat(parts)
end
function M.post(base, name, messages)
  local key = keys.mailbox(base, name)
  local count = redis.pcall('RPUSH', key, unpack(messages))
  if errors.of(count) then return end
  if count > MAX then redis.call('LTRIM', key, -MAX, -1) end
  redis.call('PEXPIRE', key, TTL_MS)
end
function M.outcome(record)
  local failed = record.state ~= 'complete'
  return {
    record.state, record.tries or '0', record.enqueued_at or '0', record.started_at or '0',
    record.finished_at or '0', not failed and record.result_codec or '',
    failed and (record.error or record.state) or record.result or '',
  }
end
function M.finished(id, outcome, is_gone)
  if #outcome[7] > LARGEST_OUTCOME and not is_gone then return M.pack('finished', id) end
  return M.pack('finished', id, unpack(outcome))
end
function M.note_wait(base, now, ttl_ms)
  local key = keys.meta(base)
  local known = redis.pcall('HGET', key, 'waited_until')
  if not errors.of(known) and number.of(known, 0) < now + ttl_ms then
    redis.call('HSET', key, 'waited_until', clock.text(math.ceil(now + ttl_ms) + AHEAD_MS))
  end
end
function M.is_awaited(base, now, noted)
  noted = noted or redis.pcall('HGET', keys.meta(base), 'waited_until')
  return errors.of(noted) or number.of(noted or 0, math.huge) > now
end
function M.await(base, id, name, ttl_ms, is_first)
  local key = keys.waiters(base, id)
  errors.read('SADD', key, name)
  if is_first or redis.call('PTTL', key) < ttl_ms then redis.call('PEXPIRE', key, ttl_ms) end
end
return M
end)()
local timer = (function()
local M = {}
function M.scheduled(batch)
  local timer = redis.pcall('HGET', keys.meta(batch.base), 'timer_at')
  local at = number.of(timer, 0)
  if at <= batch.now or batch.first_due < at then lane.wake(batch.base, batch.first_due_lane, 1) end
end
function M.drop(base, worker)
  local meta = keys.meta(base)
  redis.pcall('HDEL', keys.worker(base, worker), 'timer_at')
  local held = redis.pcall('HGET', meta, 'timer_worker')
  if held ~= worker then return end
  redis.call('HDEL', meta, 'timer_at', 'timer_worker')
  local next_due = redis.pcall('ZRANGE', keys.scheduled(base), 0, 0)
  if errors.of(next_due) or #next_due == 0 then return end
  local name = redis.pcall('HGET', keys.task(base, next_due[1]), 'lane')
  if type(name) == 'string' then lane.wake(base, name, 1) end
end
function M.wait_ms(batch, worker)
  local next_due = redis.pcall('ZRANGE', keys.scheduled(batch.base), 0, 0, 'WITHSCORES')
  if errors.of(next_due) or #next_due == 0 then return -1 end
  local meta, due_at = keys.meta(batch.base), tonumber(next_due[2])
  local timer = redis.call('HMGET', meta, 'timer_at', 'timer_worker')
  local at = number.of(timer[1], 0)
  if timer[2] ~= worker and at > batch.now and at <= due_at then return -1 end
  if timer[2] ~= worker or at ~= due_at then
    redis.call('HSET', meta, 'timer_at', due_at, 'timer_worker', worker)
    redis.call('HSET', keys.worker(batch.base, worker), 'timer_at', due_at)
  end
  return math.max(due_at - batch.now, 0)
end
return M
end)()
local member = (function()
local M = {}
local ABORT_LIMIT = 1000
function M.require(base, worker)
  local expiry = errors.read('ZSCORE', keys.workers(base), worker)
  if not expiry or tonumber(expiry) <= 0 then errors.raise(errors.lease_lost(worker)) end
end
function M.renew(base, worker, now, lease_ms)
  redis.call('ZADD', keys.workers(base), now + lease_ms, worker)
end
function M.claimed(base, worker)
  local expiry = redis.pcall('ZSCORE', keys.workers(base), worker)
  local count = redis.pcall('HLEN', keys.running(base, worker))
  if errors.of(expiry) or errors.of(count) then return false end
  return expiry and count or nil
end
function M.count_load(base, worker)
  local claimed = M.claimed(base, worker)
  if claimed then return redis.pcall('ZADD', keys.loads(base), 'CH', claimed, worker) == 1 end
  return redis.pcall('ZREM', keys.loads(base), worker) == 1
end
function M.change_load(base, worker, by)
  if not redis.pcall('ZADD', keys.loads(base), 'XX', 'INCR', by, worker) then M.count_load(base, worker) end
end
function M.offer(base, worker, lanes, now)
  for _, name in ipairs(lanes) do
    if not (lanes.limits and lanes.limits[name] == 0) then
      redis.pcall('ZADD', keys.idle(base, name), now, worker)
    end
  end
end
function M.withdraw(base, worker, lanes)
  for _, name in ipairs(lanes) do redis.pcall('ZREM', keys.idle(base, name), worker) end
end
function M.remove(base, worker)
  local row = keys.worker(base, worker)
  local known = redis.pcall('HMGET', row, 'mailbox', 'lanes')
  if known[1] then redis.call('DEL', keys.mailbox(base, known[1])) end
  pcall(function() M.withdraw(base, worker, cjson.decode(known[2])) end)
  redis.call('DEL', row, keys.aborts(base, worker))
  redis.call('ZREM', keys.workers(base), worker)
  redis.pcall('ZREM', keys.loads(base), worker)
  timer.drop(base, worker)
end
function M.token(text, ttl_ms)
  local token, own_ttl_ms = string.match(text or '', '^(%d+)/(-?%d+)$')
  if token then return token, number.of(own_ttl_ms, ttl_ms) end
  return text, ttl_ms
end
function M.aborts(base, worker)
  local asked, open, settled = errors.read('SRANDMEMBER', keys.aborts(base, worker), ABORT_LIMIT), {}, {}
  if #asked == 0 then return open, settled end
  local tokens = errors.read('HMGET', keys.running(base, worker), unpack(asked))
  for i, id in ipairs(asked) do
    local wish = tokens[i] and redis.pcall('HGET', keys.task(base, id), 'abort_requested')
    if wish then
      open[#open + 1], open[#open + 2] = id, (M.token(tokens[i]))
    else
      settled[#settled + 1] = id
    end
  end
  return open, settled
end
function M.claims(base, worker)
  local entries, claimed = errors.read('HGETALL', keys.running(base, worker)), {}
  for i = 1, #entries, 2 do
    local lease = entries[i + 1]
    claimed[#claimed + 1] = { id = entries[i], token = number.of((M.token(lease)), 0),
      is_foreign = string.find(lease, '^%d%S* ') ~= nil }
  end
  table.sort(claimed, function(x, y) return x.token < y.token end)
  return claimed
end
function M.last_beat(base)
  return errors.read('HMGET', keys.meta(base), 'last_beat', 'reap_after', 'paused')
end
return M
end)()
local history = (function()
local M = {}
local MAX = 20
local MAX_ERROR = 500
function M.short(text)
  if #text <= MAX_ERROR then return text end
  return (string.gsub(string.sub(text, 1, MAX_ERROR), '[\192-\255][\128-\191]*$', '')) .. '...'
end
function M.add(history, try, ended_at, run_ms, worker, error_text)
  local ok, attempts = pcall(cjson.decode, history or '[]')
  if not ok or type(attempts) ~= 'table' then attempts = {} end
  attempts[#attempts + 1] =
    { try = try, ended_at = ended_at, run_ms = run_ms, worker = worker, error = M.short(error_text) }
  while #attempts > MAX do table.remove(attempts, 1) end
  return cjson.encode(attempts)
end
return M
end)()
local schedule = (function()
local M = {}
local TIMING = { 'spec', 'every_ms', 'tz' }
local KEPT = { 'last_id', 'last_due_at', 'last_outcome', 'caught_up', 'paused' }
local FIELDS = { task = 'string', lane = 'string', args = 'string', kwargs = 'string', headers = 'string',
  spec = 'string', every_ms = 'number', tz = 'string', jitter_ms = 'number', result_ttl_ms = 'number',
  coalesce = 'boolean', missed = 'string', source = 'string' }
local WAIT_MS = 604800000
local function decode(text)
  local ok, definition = pcall(cjson.decode, text or '')
  return ok and type(definition) == 'table' and definition or nil
end
function M.read(base, name)
  return decode(errors.read('HGET', keys.schedules(base), name))
end
function M.describe(base, entries, reply)
  for i = 1, #entries, 2 do
    local definition = errors.read('HGET', keys.schedules(base), entries[i])
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = entries[i], tonumber(entries[i + 1]), definition or ''
  end
  return reply
end
function M.write(base, name, definition)
  redis.call('HSET', keys.schedules(base), name, cjson.encode(definition))
end
function M.due_at(base, name)
  return tonumber(errors.read('ZSCORE', keys.schedule_due(base), name) or nil)
end
function M.check(name, definition)
  if name == '' then errors.raise(errors.bad_argument('a schedule needs a name')) end
  local fields = object.check(type(definition) == 'table' and definition or {}, FIELDS, 'a definition')
  if not (fields.task and fields.lane) then
    errors.raise(errors.bad_argument('definition must be a JSON object with at least task and lane'))
  end
end
local function is_same(x, y)
  if type(x) ~= 'table' or type(y) ~= 'table' then return x == y end
  for field, value in pairs(x) do
    if not is_same(value, y[field]) then return false end
  end
  for field in pairs(y) do
    if x[field] == nil then return false end
  end
  return true
end
function M.put(base, name, definition, next_due_at)
  local before, due_at = M.read(base, name), M.due_at(base, name)
  if before then
    for _, field in ipairs(TIMING) do
      if before[field] ~= definition[field] then due_at = nil end
    end
    for _, field in ipairs(KEPT) do definition[field] = before[field] end
  end
  due_at = before and due_at or next_due_at
  if not (before and is_same(before, definition)) then M.write(base, name, definition) end
  redis.call('ZADD', keys.schedule_due(base), due_at, name)
  return due_at
end
function M.remove(base, name)
  local removed = redis.call('HDEL', keys.schedules(base), name)
  redis.call('ZREM', keys.schedule_due(base), name)
  return removed == 1
end
function M.occurrence(name, due_at) return 'cron:' .. name .. ':' .. clock.text(due_at) end
function M.start_at(definition, due_at, id)
  local jitter_ms = math.floor(tonumber(definition.jitter_ms) or 0)
  if jitter_ms <= 0 then return due_at end
  return due_at + tonumber(string.sub(redis.sha1hex(id), 1, 12), 16) % (jitter_ms + 1)
end
local function as_waiter(name)
  return 'schedule:' .. name
end
function M.await(base, now, name, id)
  mail.await(base, id, as_waiter(name), WAIT_MS)
  mail.note_wait(base, now, WAIT_MS)
end
function M.of_waiter(waiter) return string.match(waiter, '^schedule:(.*)$') end
function M.tell(base, waiter, id, record)
  local name = M.of_waiter(waiter)
  if not name then return false end
  local text = redis.pcall('HGET', keys.schedules(base), name)
  local definition = not errors.of(text) and decode(text or nil)
  if definition then
    local failed = record.state ~= 'complete'
    definition.last_outcome = { id = id, state = record.state, tries = number.of(record.tries, 0),
      finished_at = number.of(record.finished_at),
      error = failed and history.short(record.error or record.state) or nil }
    M.write(base, name, definition)
  end
  return true
end
return M
end)()
local stats = (function()
local M = {}
M.MINUTE_TTL_S = 7200
M.COUNTERS = { 'enqueued', 'completed', 'failed', 'retried', 'snoozed', 'unknown', 'aborted', 'expired', 'released',
  'held', 'lost', 'requeued', 'discarded', 'unreadable', 'ghosts' }
function M.minute(now) return (now - now % 60000) / 60000 end
function M.minutes(args)
  return clock.now(), args.minutes_ago, args.minutes_ago + args.minutes - 1
end
function M.add(base, now, name, count)
  if count == 0 then return end
  local minute = keys.stats_minute(base, M.minute(now))
  redis.pcall('HINCRBY', keys.stats(base), name, count)
  if redis.pcall('HINCRBY', minute, name, count) == count then redis.pcall('EXPIRE', minute, M.MINUTE_TTL_S) end
end
return M
end)()
local task = (function()
local M = {}
M.DEFAULT_LANE = 'default'
local NOTE = 'note:'
function M.read(base, id, fields)
  local values = redis.pcall('HMGET', keys.task(base, id), unpack(fields))
  local err = errors.of(values)
  if err then return nil, errors.wrong_type(keys.task(base, id)).err end
  local record = {}
  for i, field in ipairs(fields) do record[field] = values[i] or nil end
  return record
end
function M.is_finished(state)
  return state == 'complete' or state == 'failed' or state == 'aborted' or state == 'expired' or state == 'discarded'
end
function M.is_waiting(state) return state == 'queued' or state == 'scheduled' or state == 'held' end
function M.kept_ms(record, ttl_ms) return number.of(record.result_ttl_ms, ttl_ms) end
function M.note_field(name) return NOTE .. name end
function M.note_fields(base, id)
  local found = {}
  for _, field in ipairs(errors.read('HKEYS', keys.task(base, id))) do
    if string.sub(field, 1, #NOTE) == NOTE then found[#found + 1] = field end
  end
  return found
end
return M
end)()
local batches = (function()
local M = {}
M.STUCK_MS = 10000
local MAX_UNKNOWN, UNKNOWN_TTL_MS = 100, 600000
function M.open(base, now, now_text)
  return { base = base, now = now, now_text = now_text, back = false, finished = false, counters = false, loads = false,
    pauses = false, seen = false }
end
function M.count(batch, name, by)
  local counters = batch.counters
  if counters then
    counters[name] = (counters[name] or 0) + (by or 1)
  else
    batch.counters = { [name] = by or 1 }
  end
end
function M.change_load(batch, worker, by)
  batch.loads = batch.loads or {}
  batch.loads[worker] = (batch.loads[worker] or 0) + by
end
function M.refuse(batch, id, token, reason)
  local refusals = batch.refusals or {}
  local at = #refusals
  refusals[at + 1], refusals[at + 2], refusals[at + 3] = id, token, reason
  batch.refusals = refusals
end
function M.obstacle(batch, command, key)
  local obstacles = batch.obstacles or {}
  local known = obstacles[key]
  if known == nil then
    known = errors.of(redis.pcall(command, key)) and errors.wrong_type(key).err or false
    batch.obstacles, obstacles[key] = obstacles, known
  end
  return known or nil
end
function M.push(lists, name, item)
  local list = lists[name]
  if list then list[#list + 1] = item else lists[name] = { item } end
end
function M.add(batch, place, name, item)
  local lists = batch[place]
  if lists then M.push(lists, name, item) else batch[place] = { [name] = { item } } end
end
function M.quarantine(batch, lane_name)
  local counts = batch.quarantined or {}
  counts[lane_name], batch.quarantined = (counts[lane_name] or 0) + 1, counts
end
local function hold(base, id, held)
  local key = keys.held(base, id)
  local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  local score, members = tonumber(last[2] or 0), {}
  for i, member_id in ipairs(held) do
    members[#members + 1], members[#members + 2] = clock.text(score + i), member_id
    if #members == 1000 or i == #held then
      redis.call('ZADD', key, unpack(members))
      members = {}
    end
  end
end
function M.flush(batch)
  local back, front, quarantined, held = batch.back, batch.front, batch.quarantined, batch.held
  if back then
    for name, ids in pairs(back) do lane.push(batch.base, name, ids, 'RPUSH', batch.seen and batch.seen[name]) end
    batch.back, batch.seen = false, false
  end
  if front then
    for name, ids in pairs(front) do
      local reversed = {}
      for i = #ids, 1, -1 do reversed[#reversed + 1] = ids[i] end
      lane.push(batch.base, name, reversed, 'LPUSH')
    end
    batch.front = false
  end
  if quarantined then
    for name, count in pairs(quarantined) do lane.wake(batch.base, name, count) end
    batch.quarantined = false
  end
  if held then
    for id, ids in pairs(held) do hold(batch.base, id, ids) end
    batch.held = false
  end
end
local function tell_waiters(batch)
  local finished, places = batch.finished, {}
  local noted = batch.waited_until
  if (noted or #finished > 1) and not mail.is_awaited(batch.base, batch.now, noted) then return end
  for i, id in ipairs(finished) do places[i] = keys.waiters(batch.base, id) end
  if #places > 1 and redis.call('EXISTS', unpack(places)) == 0 then return end
  local letters, some = {}, false
  for i, id in ipairs(finished) do
    local names = redis.pcall('SMEMBERS', places[i])
    if errors.of(names) then
      some = true
    elseif #names > 0 then
      some = true
      local record = task.read(batch.base, id, mail.OUTCOME)
      local letter = mail.finished(id, mail.outcome(record), batch.removed)
      for _, name in ipairs(names) do
        if not schedule.tell(batch.base, name, id, record) then M.push(letters, name, letter) end
      end
    end
  end
  for name, messages in pairs(letters) do mail.post(batch.base, name, messages) end
  if some then redis.call('DEL', unpack(places)) end
end
local function note_unknown(batch)
  local key = keys.unknown_tasks(batch.base)
  for name in pairs(batch.unknown) do redis.pcall('ZADD', key, batch.now, name) end
  redis.pcall('ZREMRANGEBYRANK', key, 0, -MAX_UNKNOWN - 1)
  redis.pcall('PEXPIRE', key, UNKNOWN_TTL_MS)
end
function M.close(batch)
  M.flush(batch)
  if batch.unknown then note_unknown(batch) end
  if batch.finished then tell_waiters(batch) end
  if batch.first_due then timer.scheduled(batch) end
  if batch.removed then redis.call('DEL', unpack(batch.removed)) end
  if batch.loads then
    for worker, by in pairs(batch.loads) do
      if by ~= 0 then member.change_load(batch.base, worker, by) end
    end
  end
  if batch.counters then
    for name, count in pairs(batch.counters) do stats.add(batch.base, batch.now, name, count) end
  end
end
return M
end)()
local waiters = (function()
local M = {}
local SHOWN = { 'state', 'tries', 'progress' }
local MAX_TOLD = 65536
function M.message(id, record, told)
  local parts, size = { mail.pack('changed', id, record.state, record.tries or '0', record.progress or '') }, 0
  for at = 1, told and #told or 0, 2 do
    size = size + #told[at] + #told[at + 1]
    if size > MAX_TOLD then break end
    parts[#parts + 1] = mail.pack(told[at], told[at + 1])
  end
  return table.concat(parts)
end
function M.changed(base, now, id, watched_until, told)
  if not watched_until or number.of(watched_until, 0) <= now then return end
  local names = redis.pcall('SMEMBERS', keys.waiters(base, id))
  if errors.of(names) or #names == 0 then return end
  local record = task.read(base, id, SHOWN)
  if not record or not record.state then return end
  local message = M.message(id, record, told)
  for _, name in ipairs(names) do
    if not schedule.of_waiter(name) then mail.post(base, name, { message }) end
  end
end
return M
end)()
local move = (function()
local M = {}
local EARLIER_LIFE = { 'lost', 'error', 'traceback', 'history', 'started_at', 'finished_at', 'worker',
  'due_at', 'expires_at', 'abort_requested', 'progress', 'unknown_since' }
local OUTLIVES = { 'state', 'name', 'lane', 'idempotency_key', 'tries', 'enqueued_at', 'started_at', 'finished_at',
  'error', 'result_ttl_ms' }
function M.ended(batch, id, key, counter, written, ttl_ms)
  if type(written) == 'table' then return errors.wrong_type(key).err end
  batches.count(batch, counter)
  local finished = batch.finished
  if finished then finished[#finished + 1] = id else batch.finished = { id } end
  if ttl_ms > 0 then
    if ttl_ms ~= batch.ttl_ms then batch.ttl_ms, batch.ttl_text = ttl_ms, clock.text(ttl_ms) end
    redis.call('PEXPIRE', key, batch.ttl_text)
  elseif ttl_ms == 0 then
    batch.removed = batch.removed or {}
    batch.removed[#batch.removed + 1] = key
  end
end
function M.finish(batch, id, state, fields, ttl_ms)
  local key = keys.task(batch.base, id)
  local written = redis.pcall('HSET', key, 'state', state, 'finished_at', batch.now_text, unpack(fields))
  if state == 'failed' and type(written) == 'number' then
    redis.call('ZADD', keys.dead(batch.base), batch.now_text, id)
  end
  return M.ended(batch, id, key, state, written, ttl_ms)
end
local function take_out(batch, id, record)
  if record.state == 'scheduled' then
    errors.read('ZREM', keys.scheduled(batch.base), id)
  elseif record.state == 'held' then
    errors.read('ZREM', keys.held(batch.base, record.pause or ''), id)
    redis.call('HDEL', keys.task(batch.base, id), 'pause')
  elseif errors.read('ZREM', keys.quarantined(batch.base), id) == 0 then
    errors.read('SADD', keys.tombstones(batch.base, record.lane or task.DEFAULT_LANE), id)
  end
end
function M.abort_waiting(batch, id, record, ttl_ms)
  take_out(batch, id, record)
  return M.finish(batch, id, 'aborted', { 'error', 'aborted' }, task.kept_ms(record, ttl_ms))
end
function M.expire_waiting(batch, id, record, ttl_ms)
  if not (task.is_waiting(record.state) and number.of(record.expires_at, math.huge) <= batch.now) then return false end
  take_out(batch, id, record)
  M.finish(batch, id, 'expired', { 'error', 'expired' }, task.kept_ms(record, ttl_ms))
  return true
end
function M.make_ready(batch, id, record, fields, dropped, place)
  local lane_name = record.lane
  if not lane_name then
    lane_name = task.DEFAULT_LANE
    fields[#fields + 1], fields[#fields + 2] = 'lane', lane_name
  end
  local obstacle = batches.obstacle(batch, 'LLEN', keys.ready(batch.base, lane_name))
  if obstacle then return obstacle, true end
  local key = keys.task(batch.base, id)
  if dropped then redis.call('HDEL', key, unpack(dropped)) end
  redis.call('HSET', key, 'state', 'queued', unpack(fields))
  batches.add(batch, place or 'back', lane_name, id)
  waiters.changed(batch.base, batch.now, id, record.watched_until)
end
function M.schedule(batch, id, lane_name, due_at)
  redis.call('ZADD', keys.scheduled(batch.base), due_at, id)
  if not batch.first_due or due_at < batch.first_due then
    batch.first_due, batch.first_due_lane = due_at, lane_name
  end
end
function M.create(batch, key, id, name, lane_name, args, kwargs, plan)
  local due_at, more, now_text = plan.due_at, plan.fields, batch.now_text
  local state = due_at and 'scheduled' or 'queued'
  if args == '' then args = '[]' end
  if more and #more > 0 then
    if kwargs ~= '' then more[#more + 1], more[#more + 2] = 'kwargs', kwargs end
    redis.call('HSET', key, 'state', state, 'name', name, 'args', args, 'lane', lane_name, 'enqueued_at', now_text,
      'tries', '0', unpack(more))
  elseif kwargs ~= '' then
    redis.call('HSET', key, 'state', state, 'name', name, 'args', args, 'lane', lane_name, 'enqueued_at', now_text,
      'kwargs', kwargs)
  else
    redis.call('HSET', key, 'state', state, 'name', name, 'args', args, 'lane', lane_name, 'enqueued_at', now_text)
  end
  if due_at then M.schedule(batch, id, lane_name, due_at) else batches.add(batch, 'back', lane_name, id) end
  return state
end
function M.promote(batch, limit)
  local scheduled = keys.scheduled(batch.base)
  local due = redis.pcall('ZRANGEBYSCORE', scheduled, '-inf', batch.now_text, 'LIMIT', 0, limit)
  if due.err then batches.refuse(batch, '', '', errors.wrong_type(scheduled).err) end
  if due.err or #due == 0 then return false end
  local gone, stuck = {}, {}
  for _, id in ipairs(due) do
    local record, err, stays = task.read(batch.base, id, { 'state', 'lane', 'watched_until' })
    if record and record.state == 'scheduled' then
      err, stays = M.make_ready(batch, id, record, {})
    elseif record then
      batches.count(batch, 'ghosts')
    end
    if err then batches.refuse(batch, id, '', err) end
    if stays then
      stuck[#stuck + 1], stuck[#stuck + 2] = batch.now + batches.STUCK_MS, id
    else
      gone[#gone + 1] = id
    end
  end
  if #stuck > 0 then redis.call('ZADD', scheduled, unpack(stuck)) end
  if #gone > 0 then redis.call('ZREM', scheduled, unpack(gone)) end
  return #due == limit
end
function M.give_back(batch, pause_id, limit)
  local place, moved = keys.held(batch.base, pause_id), {}
  local ids = redis.pcall('ZREVRANGE', place, 0, limit - 1)
  if errors.of(ids) then return 0, true end
  for i = #ids, 1, -1 do
    local id = ids[i]
    local record, err, stays = task.read(batch.base, id, { 'state', 'lane', 'pause', 'watched_until' })
    if record and record.state == 'held' and record.pause == pause_id then
      err, stays = M.make_ready(batch, id, record, {}, { 'pause' }, 'front')
    elseif record then
      batches.count(batch, 'ghosts')
    end
    if err then batches.refuse(batch, id, '', err) end
    if not stays then moved[#moved + 1] = id end
  end
  if #moved > 0 then redis.call('ZREM', place, unpack(moved)) end
  return #moved, redis.call('EXISTS', place) == 1
end
function M.discard(batch, id, state, ttl_ms)
  local record = task.read(batch.base, id, OUTLIVES)
  if not record or record.state ~= state then
    batches.count(batch, 'ghosts')
    return false
  end
  record.state, record.error = 'discarded', state == 'failed' and record.error or 'discarded'
  record.finished_at = state == 'failed' and record.finished_at or batch.now_text
  local key, fields = keys.task(batch.base, id), {}
  for _, name in ipairs(OUTLIVES) do
    if record[name] then fields[#fields + 1], fields[#fields + 2] = name, record[name] end
  end
  redis.call('DEL', key)
  M.ended(batch, id, key, 'discarded', redis.call('HSET', key, unpack(fields)), task.kept_ms(record, ttl_ms))
  return true
end
function M.requeue(batch, id, record, call)
  local fields, dropped = { 'enqueued_at', batch.now_text, 'tries', '0' }, task.note_fields(batch.base, id)
  for _, name in ipairs(EARLIER_LIFE) do dropped[#dropped + 1] = name end
  redis.call('ZREM', keys.dead(batch.base), id)
  if call then
    redis.call('HDEL', keys.task(batch.base, id), 'kwargs', 'codec')
    for _, name in ipairs({ 'args', 'kwargs', 'codec', 'headers' }) do
      if call[name] ~= '' then fields[#fields + 1], fields[#fields + 2] = name, call[name] end
    end
  end
  batches.count(batch, 'requeued')
  M.make_ready(batch, id, record, fields, dropped)
end
function M.remove(base, id)
  redis.call('DEL', keys.task(base, id))
  redis.call('ZREM', keys.dead(base), id)
end
return M
end)()
local ask = (function()
local M = {}
local ASKED = { 'state', 'tries', 'enqueued_at', 'started_at', 'finished_at', 'result_codec', 'result', 'error', 'lane',
  'expires_at', 'pause', 'progress', 'watched_until', 'result_ttl_ms' }
function M.outcome(base, id, result_ttl_ms)
  local record, err = task.read(base, id, ASKED)
  if err then return nil, { err = err } end
  if not record.state then return nil, { 'not_found' } end
  if record.expires_at and not task.is_finished(record.state) then
    local batch = batches.open(base, clock.read())
    if move.expire_waiting(batch, id, record, result_ttl_ms) then record = task.read(base, id, ASKED) end
    batches.close(batch)
  end
  if task.is_finished(record.state) then return nil, { 'finished', unpack(mail.outcome(record)) } end
  return record
end
return M
end)()
local attempt = (function()
local M = {}
local FIELDS = { 'state', 'lane', 'tries', 'lost', 'abort_requested', 'worker', 'enqueued_at', 'history',
  'watched_until', 'name', 'unknown_since', 'result_ttl_ms' }
local CLAIMED = { 'worker', 'started_at' }
local SETTLED = { 'worker', 'started_at', 'lost', 'unknown_since' }
local RESTS_MS = { { waited = 600000, rest = 300000 }, { waited = 60000, rest = 60000 },
  { waited = 10000, rest = 10000 }, { waited = 0, rest = 1000 } }
M.OUTCOMES = { complete = true, failed = true, retry = true, snooze = true, unknown = true, aborted = true,
  release = true }
local function abort(batch, id, record, ttl_ms)
  return move.finish(batch, id, 'aborted', { 'error', 'aborted' }, task.kept_ms(record, ttl_ms))
end
local function attempted(batch, record, run_ms, error_text)
  return history.add(record.history, number.of(record.tries, 1), batch.now, run_ms, record.worker, error_text)
end
local function fail(batch, id, error_text, traceback, more_fields)
  local obstacle = batches.obstacle(batch, 'ZCARD', keys.dead(batch.base))
  if obstacle then return obstacle, true end
  local fields = more_fields or {}
  fields[#fields + 1], fields[#fields + 2] = 'error', error_text
  if traceback and traceback ~= '' then fields[#fields + 1], fields[#fields + 2] = 'traceback', traceback end
  return move.finish(batch, id, 'failed', fields, -1)
end
function M.hand_back(batch, id, ttl_ms, lost, max_lost)
  local record, err = task.read(batch.base, id, FIELDS)
  if err then return err end
  if record.state ~= 'running' then
    batches.count(batch, 'ghosts')
    return 'not_found'
  end
  local key = keys.task(batch.base, id)
  local times = number.of(record.lost, 0) + (lost and 1 or 0)
  local fields = { 'tries', math.max(number.of(record.tries, 1) - 1, 0) }
  if times > 0 then fields[3], fields[4] = 'lost', times end
  if lost then
    fields[5], fields[6] = 'history', attempted(batch, record, nil, 'its worker died')
  end
  local stays
  if record.abort_requested then
    redis.call('HDEL', key, 'worker', 'started_at')
    return abort(batch, id, record, ttl_ms), nil, 'aborted'
  elseif lost and times > max_lost then
    fields[2] = number.of(record.tries, 0)
    err, stays = fail(batch, id, 'poison: ' .. times .. ' workers died while holding this task', nil, fields)
    if not err then redis.call('HDEL', key, 'worker', 'started_at') end
  elseif times >= 2 then
    err = batches.obstacle(batch, 'ZCARD', keys.quarantined(batch.base))
    stays = err and true
    if not err then
      redis.call('HDEL', key, 'worker', 'started_at')
      redis.call('HSET', key, 'state', 'queued', unpack(fields))
      redis.call('ZADD', keys.quarantined(batch.base), batch.now, id)
      local name = record.lane or task.DEFAULT_LANE
      batches.quarantine(batch, name)
      waiters.changed(batch.base, batch.now, id, record.watched_until)
    end
  else
    err, stays = move.make_ready(batch, id, record, fields, CLAIMED, 'front')
  end
  if not err then batches.count(batch, lost and 'lost' or 'released') end
  return err, stays
end
local function complete(batch, id, run_ms, result, codec, ttl_ms)
  local key, now_text, fields = keys.task(batch.base, id), batch.now_text, 4
  local started_at = run_ms == 0 and now_text or clock.text(batch.now - run_ms)
  local written
  if codec and codec ~= '' then
    fields = 5
    written = redis.pcall('HSET', key, 'state', 'complete', 'started_at', started_at, 'finished_at', now_text,
      'result', result, 'result_codec', codec)
  else
    written = redis.pcall('HSET', key, 'state', 'complete', 'started_at', started_at, 'finished_at', now_text,
      'result', result)
  end
  if written == fields then
    redis.call('DEL', key)
    batches.count(batch, 'ghosts')
    return 'not_found'
  end
  return move.ended(batch, id, key, 'completed', written, ttl_ms)
end
local function put_off(batch, id, record, fields, delay_ms, counter)
  local err = batches.obstacle(batch, 'ZCARD', keys.scheduled(batch.base))
  if err then return err, true end
  local key, due_at = keys.task(batch.base, id), batch.now + delay_ms
  redis.call('HDEL', key, unpack(SETTLED))
  redis.call('HSET', key, 'state', 'scheduled', 'due_at', due_at, unpack(fields))
  move.schedule(batch, id, record.lane or task.DEFAULT_LANE, due_at)
  waiters.changed(batch.base, batch.now, id, record.watched_until)
  batches.count(batch, counter)
end
local function try_again(batch, ended, record, ttl_ms)
  if record.abort_requested then return abort(batch, ended.id, record, ttl_ms), nil, 'aborted' end
  local snoozed, delay_ms = ended.outcome == 'snooze', math.max(math.floor(ended.delay_ms or 0), 0)
  local fields, err, stays
  if snoozed then
    fields = { 'tries', math.max(number.of(record.tries, 1) - 1, 0) }
  else
    fields = { 'error', ended.value, 'history', attempted(batch, record, ended.run_ms, ended.value) }
    if ended.traceback and ended.traceback ~= '' then fields[5], fields[6] = 'traceback', ended.traceback end
  end
  local age_ms = batch.now + delay_ms - number.of(record.enqueued_at, batch.now)
  if (ended.max_age_ms or 0) > 0 and age_ms > ended.max_age_ms then
    local text = ended.value .. ' (older than its max_age of ' .. clock.text(ended.max_age_ms) .. ' ms)'
    err, stays = fail(batch, ended.id, text, nil, fields)
    return err, stays, 'failed'
  end
  local counter = snoozed and 'snoozed' or 'retried'
  if delay_ms == 0 then
    err, stays = move.make_ready(batch, ended.id, record, fields, SETTLED)
    if not err then batches.count(batch, counter) end
    return err, stays
  end
  return put_off(batch, ended.id, record, fields, delay_ms, counter)
end
local function leave_to_others(batch, ended, record, ttl_ms)
  if record.abort_requested then return abort(batch, ended.id, record, ttl_ms), nil, 'aborted' end
  local since = number.of(record.unknown_since, batch.now)
  local fields = { 'tries', math.max(number.of(record.tries, 1) - 1, 0), 'unknown_since', clock.text(since) }
  if record.name then
    batch.unknown = batch.unknown or {}
    batch.unknown[record.name] = true
  end
  if (ended.max_age_ms or 0) > 0 and batch.now - since >= ended.max_age_ms then
    local text = ended.value .. ' (no worker knew it for ' .. clock.text(ended.max_age_ms) .. ' ms)'
    local err, stays = fail(batch, ended.id, text, nil, fields)
    return err, stays, 'failed'
  end
  fields[5], fields[6] = 'error', ended.value
  for _, step in ipairs(RESTS_MS) do
    if batch.now - since >= step.waited then return put_off(batch, ended.id, record, fields, step.rest, 'unknown') end
  end
end
local function settle(batch, ended, ttl_ms)
  if ended.outcome == 'release' then return M.hand_back(batch, ended.id, ttl_ms, false) end
  local record, err = task.read(batch.base, ended.id, FIELDS)
  if err then return err end
  if record.state ~= 'running' then
    batches.count(batch, 'ghosts')
    return 'not_found'
  end
  if ended.outcome == 'retry' or ended.outcome == 'snooze' then
    return try_again(batch, ended, record, ttl_ms)
  elseif ended.outcome == 'unknown' then
    return leave_to_others(batch, ended, record, ttl_ms)
  elseif ended.outcome == 'failed' then
    return fail(batch, ended.id, ended.value, ended.traceback,
      { 'started_at', batch.now - ended.run_ms, 'history', attempted(batch, record, ended.run_ms, ended.value) })
  end
  return abort(batch, ended.id, record, ttl_ms)
end
local WIDTH = 6
function M.tokens(base, worker, outcomes)
  local running, ids = keys.running(base, worker), {}
  for at = 1, #outcomes, WIDTH do ids[#ids + 1] = outcomes[at] end
  if #ids == 0 then return errors.read('HLEN', running) end
  return errors.read('HMGET', running, unpack(ids))
end
function M.settle(batch, worker, outcomes, tokens, ttl_ms)
  local settled, seen = {}, {}
  for i = 1, #outcomes / WIDTH do
    local at, current, kept_ms = (i - 1) * WIDTH + 1, tokens[i], ttl_ms
    local id, token, outcome = outcomes[at], outcomes[at + 1], outcomes[at + 2]
    local run_ms, value, details = outcomes[at + 3], outcomes[at + 4], outcomes[at + 5]
    if current ~= token then current, kept_ms = member.token(current, ttl_ms) end
    if current == token and not seen[id] then
      seen[id] = true
      local err, stays, instead
      if outcome == 'complete' then
        err = complete(batch, id, run_ms, value, details.codec, kept_ms)
      else
        err, stays, instead = settle(batch, { id = id, outcome = outcome, run_ms = run_ms, value = value,
          traceback = details.traceback, delay_ms = details.delay_ms, max_age_ms = details.max_age_ms }, kept_ms)
      end
      if err or instead then batches.refuse(batch, id, token, err or instead) end
      if not stays then settled[#settled + 1] = id end
    else
      batches.refuse(batch, id, token, 'stale')
    end
  end
  if #settled > 0 then
    batches.change_load(batch, worker, -redis.call('HDEL', keys.running(batch.base, worker), unpack(settled)))
  end
  return #settled
end
function M.settle_one(base, args, outcome, value, details)
  member.require(base, args.worker)
  local outcomes = { args.id, args.token, outcome, args.run_ms or 0, value, details or {} }
  local tokens, batch = M.tokens(base, args.worker, outcomes), batches.open(base, clock.read())
  local settled = M.settle(batch, args.worker, outcomes, tokens, args.result_ttl_ms)
  local refusal = batch.refusals and batch.refusals[3]
  batches.close(batch)
  if refusal and refusal ~= 'stale' and settled == 0 then return { err = refusal } end
  return refusal or 'ok'
end
function M.ask_abort(base, id, worker)
  local mailbox = worker and errors.read('HGET', keys.worker(base, worker), 'mailbox')
  local lease = mailbox and errors.read('HGET', keys.running(base, worker), id)
  local token = lease and string.match(lease, '^[^/ ]*')
  if token then errors.read('SADD', keys.aborts(base, worker), id) end
  redis.call('HSET', keys.task(base, id), 'abort_requested', 1)
  if token then mail.post(base, mailbox, { mail.pack('abort', id, token) }) end
end
function M.take_from(batch, worker, limit, ttl_ms, lost, max_lost)
  local running, claims, moved, stuck = keys.running(batch.base, worker), member.claims(batch.base, worker), {}, {}
  for i = math.max(#claims - limit + 1, 1), #claims do
    if not claims[i].is_foreign then
      local _, stays = M.hand_back(batch, claims[i].id, ttl_ms, lost, max_lost)
      if stays then
        stuck[#stuck + 1], stuck[#stuck + 2] = claims[i].id, clock.text(-batch.now)
      else
        moved[#moved + 1] = claims[i].id
      end
    end
  end
  if lost and #stuck > 0 then redis.call('HSET', running, unpack(stuck)) end
  if #moved > 0 then batches.change_load(batch, worker, -redis.call('HDEL', running, unpack(moved))) end
  local next_one = claims[#claims - limit]
  return #moved, #moved < #claims, next_one and next_one.token > 0
end
return M
end)()
local payload = (function()
local M = {}
M.MAX_VALUE = 255
local MAX_ESCAPED = 6 * M.MAX_VALUE + 2
local MAX_STEPS = 1000
local LARGEST_MSGPACK = 65536
local LARGEST_EXACT = 9007199254740991
function M.reader()
  local function seek(walk, pattern, at)
    walk.steps = walk.steps - 1
    return walk.steps > 0 and string.find(walk.text, pattern, at) or error('unreadable')
  end
  local function letter(walk, at) return string.sub(walk.text, at, at) end
  local function string_end(walk, at)
    local slashes
    repeat
      at, slashes = seek(walk, '"', at + 1), 0
      while letter(walk, at - 1 - slashes) == '\\' and slashes < walk.steps do slashes = slashes + 1 end
      walk.steps = walk.steps - slashes
    until slashes % 2 == 0
    return at
  end
  local function value_end(walk, at)
    local first = letter(walk, at)
    if first == '"' then return string_end(walk, at) end
    if first ~= '[' and first ~= '{' then return seek(walk, '[%s,%]}]', at) - 1 end
    local depth = 0
    repeat
      at = seek(walk, '["%[%]{}]', at)
      local found = letter(walk, at)
      if found == '"' then
        at = string_end(walk, at)
      else
        depth = depth + ((found == '[' or found == '{') and 1 or -1)
      end
      at = at + 1
    until depth == 0
    return at - 1
  end
  local function canonical(json)
    if string.sub(json, 1, 1) ~= '"' then return json end
    if #json > MAX_ESCAPED then return nil end
    if string.find(json, '\\', 1, true) then return '"' .. cjson.decode('[' .. json .. ']')[1] end
    return string.sub(json, 1, -2)
  end
  local function follows(walk, at, mark)
    at = seek(walk, '%S', at)
    return letter(walk, at) == mark and seek(walk, '%S', at + 1) or nil
  end
  local function in_array(walk, position)
    local at = follows(walk, 1, '[')
    for _ = 1, position do
      if not at or letter(walk, at) == ']' then return nil end
      at = follows(walk, value_end(walk, at) + 1, ',')
    end
    if not at or letter(walk, at) == ']' then return nil end
    return canonical(string.sub(walk.text, at, value_end(walk, at)))
  end
  local function in_object(walk, name)
    local at = follows(walk, 1, '{')
    while at and letter(walk, at) == '"' do
      local key_end = string_end(walk, at)
      local is_it = canonical(string.sub(walk.text, at, key_end)) == '"' .. name
      at = follows(walk, key_end + 1, ':')
      local last = value_end(walk, at)
      if is_it then return canonical(string.sub(walk.text, at, last)) end
      at = follows(walk, last + 1, ',')
    end
  end
  local function in_msgpack(text, key)
    if #text > LARGEST_MSGPACK then error('unreadable') end
    local value = cmsgpack.unpack(text)[key]
    if type(value) == 'string' then return '"' .. value end
    if type(value) ~= 'number' then return tostring(value) end
    if value > LARGEST_EXACT or value < -LARGEST_EXACT then error('unreadable') end
    return value % 1 == 0 and clock.text(value) or tostring(value)
  end
  local function look_up(args, kwargs, codec, position, name)
    local is_json = not codec or codec == '' or string.find(codec, '^json')
    if not is_json and not string.find(codec, '^msgpack') then error('unreadable') end
    local found
    if position then
      if is_json then
        found = in_array({ text = args, steps = MAX_STEPS }, position)
      else
        found = in_msgpack(args, position + 1)
      end
    end
    if found or not name or not kwargs or kwargs == '' then return found end
    if is_json then return in_object({ text = kwargs, steps = MAX_STEPS }, name) end
    return in_msgpack(kwargs, name)
  end
  local function find(args, kwargs, codec, position, name)
    return pcall(look_up, args or '[]', kwargs, codec, position, name)
  end
  return find, canonical
end
return M
end)()
local pause_rules = (function()
local M = {}
M.ANY = '*'
M.QUEUE, M.TASKS = 'queue', 'tasks'
M.NEWER = 'newer'
function M.load(base, flag)
  if not flag then return nil end
  if flag == M.QUEUE then return { whole = true } end
  local rules, known, canonical = { names = {}, shapes = {} }, {}, nil
  local function add(id, text)
    local rule = cjson.decode(text)
    if rule.resuming then return end
    local name, argument = rule.task or M.ANY, rule.argument
    if not argument then
      rules.names[name] = id
      return
    end
    if not canonical then rules.find, canonical = payload.reader() end
    local shape = known[name .. '(' .. argument]
    if not shape then
      local position = tonumber(argument)
      shape = { position = position, name = not position and argument or nil, positions = {}, ids = {} }
      known[name .. '(' .. argument] = shape
      batches.push(rules.shapes, name, shape)
    end
    shape.ids[canonical(rule.value)] = id
    for task_name, position in pairs(rule.positions or {}) do shape.positions[task_name] = position end
  end
  local entries = errors.read('HGETALL', keys.pauses(base))
  for i = 1, #entries, 2 do
    pcall(add, entries[i], entries[i + 1])
  end
  return rules
end
function M.match(rules, name, args, kwargs, codec)
  if rules.names[name] then return rules.names[name] end
  local unreadable = false
  for _, of in ipairs({ name, M.ANY }) do
    for _, shape in ipairs(rules.shapes[of] or {}) do
      local position = shape.position or shape.positions[name]
      local ok, value = rules.find(args, kwargs, codec, position, shape.name)
      if not ok then unreadable = true end
      if ok and value and shape.ids[value] then return shape.ids[value] end
    end
  end
  return nil, unreadable
end
return M
end)()
local share = (function()
local M = {}
local STRIDE = 720720
local function stride(lanes, name)
  return math.max(math.floor(STRIDE / lanes.weights[name] + 0.5), 1)
end
function M.read(text, lanes)
  local ok, passes = pcall(cjson.decode, text or '{}')
  if not ok or type(passes) ~= 'table' then passes = {} end
  local known = {}
  for _, name in ipairs(lanes) do known[name] = number.of(passes[name], 0) end
  return known
end
local function next_lane(open, lanes, passes)
  local at, second = 1, nil
  for i = 2, #open do
    local pass, least = passes[open[i]], passes[open[at]]
    if pass < least then
      at, second = i, least
    elseif not second or pass < second then
      second = pass
    end
  end
  if not second then return at, math.huge end
  return at, math.floor((second - passes[open[at]]) / stride(lanes, open[at])) + 1
end
function M.claim(lanes, passes, want, take)
  local open, taken = { unpack(lanes) }, 0
  while taken < want and #open > 0 do
    local at, count = next_lane(open, lanes, passes)
    local name = open[at]
    local got, is_dry = take(name, math.min(count, want - taken))
    taken, passes[name] = taken + got, passes[name] + got * stride(lanes, name)
    if is_dry then table.remove(open, at) end
  end
  local base = math.huge
  for _, name in ipairs(open) do base = math.min(base, passes[name]) end
  for name, pass in pairs(passes) do passes[name] = base < math.huge and math.max(pass - base, 0) or 0 end
  return taken
end
return M
end)()
local claim = (function()
local M = {}
local CLAIM = { 'state', 'name', 'args', 'kwargs', 'codec', 'headers', 'lane', 'tries', 'enqueued_at' }
local UNCOMMON, NONE = { 'codec', 'headers', 'expires_at', 'watched_until', 'result_ttl_ms', 'needs_version' }, {}
local function hold(batch, id, key, lane_name, pause_id, watched_until)
  local obstacle = batches.obstacle(batch, 'ZCARD', keys.held(batch.base, pause_id))
  if not obstacle then
    redis.call('HSET', key, 'state', 'held', 'pause', pause_id)
    batches.add(batch, 'held', pause_id, id)
    waiters.changed(batch.base, batch.now, id, watched_until)
    return batches.count(batch, 'held')
  end
  if not batch.is_stuck then batches.refuse(batch, id, '', obstacle) end
  batch.is_stuck = true
  redis.pcall('RPUSH', keys.ready(batch.base, lane_name), id)
end
local function start(batch, id, lane_name, worker, ttl_ms, claims)
  local key = keys.task(batch.base, id)
  local r = redis.pcall('HMGET', key, 'state', 'name', 'args', 'kwargs', 'enqueued_at', 'tries')
  if r.err then
    batches.refuse(batch, id, '', errors.wrong_type(key).err)
    return false
  end
  if r[1] ~= 'queued' then
    batches.count(batch, 'ghosts')
    return false
  end
  local more, tries = NONE, '1'
  if r[6] then
    more, tries = redis.call('HMGET', key, unpack(UNCOMMON)), clock.text(number.of(r[6], 0) + 1)
  end
  local codec, expires_at, watched_until, own_ttl_ms = more[1], more[3], more[4], more[5]
  if expires_at and number.of(expires_at, batch.now + 1) <= batch.now then
    move.finish(batch, id, 'expired', { 'error', 'expired' }, number.of(own_ttl_ms, ttl_ms))
    return false
  end
  if more[6] then
    hold(batch, id, key, lane_name, pause_rules.NEWER, watched_until)
    return false
  end
  if batch.pauses then
    local pause_id, unreadable = pause_rules.match(batch.pauses, r[2], r[3], r[4], codec)
    if unreadable then batches.count(batch, 'unreadable') end
    if pause_id then
      hold(batch, id, key, lane_name, pause_id, watched_until)
      return false
    end
  end
  redis.call('HSET', key, 'state', 'running', 'worker', worker, 'started_at', batch.now_text, 'tries', tries)
  if watched_until then waiters.changed(batch.base, batch.now, id, watched_until) end
  if own_ttl_ms then
    batch.own_ttls = batch.own_ttls or {}
    batch.own_ttls[id] = own_ttl_ms
  end
  local n = claims.n
  claims[n + 1] = id
  claims[n + 2] = ''
  claims[n + 3] = r[2] or ''
  claims[n + 4] = r[3] or ''
  claims[n + 5] = r[4] or ''
  claims[n + 6] = codec or ''
  claims[n + 7] = more[2] or ''
  claims[n + 8] = lane_name
  claims[n + 9] = tries
  claims[n + 10] = r[5] or '0'
  claims.n = n + 10
  return true
end
local function is_paused(batch, id)
  local record = batch.pauses and task.read(batch.base, id, { 'name', 'args', 'kwargs', 'codec' })
  return record and pause_rules.match(batch.pauses, record.name, record.args, record.kwargs, record.codec)
end
local function start_quarantined(batch, worker, lanes, last_id, ttl_ms, claims)
  local quarantined = keys.quarantined(batch.base)
  local waiting = redis.pcall('ZRANGE', quarantined, 0, 7)
  if errors.of(waiting) or #waiting == 0 then return 0 end
  if last_id and redis.call('HEXISTS', keys.running(batch.base, worker), last_id) == 1 then return 0 end
  local served = {}
  for _, name in ipairs(lanes) do served[name] = not (lanes.limits and lanes.limits[name] == 0) end
  for _, id in ipairs(waiting) do
    local name = redis.pcall('HGET', keys.task(batch.base, id), 'lane')
    name = type(name) == 'string' and name or nil
    if not name or served[name] and not is_paused(batch, id) then
      redis.call('ZREM', quarantined, id)
      if start(batch, id, name or task.DEFAULT_LANE, worker, ttl_ms, claims) then
        redis.call('HSET', keys.worker(batch.base, worker), 'quarantined', id)
        if name and lanes.limits and lanes.limits[name] then lanes.limits[name] = lanes.limits[name] - 1 end
        return 1
      end
    else
      redis.call('ZADD', quarantined, batch.now, id)
    end
  end
  return 0
end
function M.check(base)
  local meta = errors.read('HMGET', keys.meta(base), 'token', 'paused', 'waited_until')
  if meta[1] and not number.of(meta[1]) then errors.raise(errors.wrong_type(keys.meta(base))) end
  return pause_rules.load(base, meta[2]), meta[3] or '0'
end
function M.take(batch, worker, lanes, want, row, ttl_ms, claims)
  local base, taken, first_token, from = batch.base, 0, '', claims.n
  if batch.pauses and batch.pauses.whole then return 0, '', 0 end
  local budget, limits, is_empty = 4 * want + 100, lanes.limits or {}, {}
  local function take(name, count)
    local got, limit = 0, math.min(count, limits[name] or count)
    while got < limit and budget > 0 do
      local asked = math.min(limit - got, budget)
      local ids, looked, err = lane.pop(base, name, asked)
      if err then batches.refuse(batch, '', '', err) end
      budget = budget - looked
      for i = 1, #ids do
        if start(batch, ids[i], name, worker, ttl_ms, claims) then got = got + 1 end
      end
      if looked < asked then
        is_empty[name] = not err and not batch.is_stuck
        break
      end
    end
    if limits[name] then limits[name] = limits[name] - got end
    return got, got < count
  end
  if want > 0 then
    taken = start_quarantined(batch, worker, lanes, row.quarantined, ttl_ms, claims)
    if lanes.weights then
      local passes = share.read(row.passes, lanes)
      taken = taken + share.claim(lanes, passes, want - taken, take)
      redis.call('HSET', keys.worker(base, worker), 'passes', cjson.encode(passes))
    else
      for _, name in ipairs(lanes) do
        if taken >= want then break end
        taken = taken + take(name, want - taken)
      end
    end
  end
  if taken > 0 then
    first_token = redis.call('HINCRBY', keys.meta(base), 'token', taken) - taken + 1
    local leases, own_ttls = {}, batch.own_ttls
    for i = 1, taken do
      local at, token = from + 10 * (i - 1), clock.text(first_token + i - 1)
      local id = claims[at + 1]
      claims[at + 2] = token
      leases[2 * i - 1] = id
      leases[2 * i] = own_ttls and own_ttls[id] and token .. '/' .. own_ttls[id] or token
    end
    batches.change_load(batch, worker, redis.call('HSET', keys.running(base, worker), unpack(leases)))
  end
  if taken == 0 and batch.is_stuck then return 0, '', 0 end
  return taken, first_token, lane.settle_tokens(base, lanes, is_empty)
end
function M.since(base, worker, first_token, reply)
  for _, one in ipairs(member.claims(base, worker)) do
    local r = one.token >= first_token and task.read(base, one.id, CLAIM)
    if r and r.state == 'running' then
      local at = #reply
      reply[at + 1], reply[at + 2] = one.id, clock.text(one.token)
      for i = 2, #CLAIM do reply[at + i + 1] = r[CLAIM[i]] or '' end
    end
  end
end
return M
end)()
local pauses = (function()
local M = {}
local WHOLE = '*()'
local MAX = 500
local function bad(what) errors.raise(errors.bad_argument(what)) end
function M.named(args)
  local name, argument, value = args.task ~= '' and args.task or pause_rules.ANY, args.argument, args.value
  local rule = { task = name ~= pause_rules.ANY and name or nil }
  if argument == '' then return name .. '()', rule end
  if not string.find(argument, '^[%w_\128-\255]+$') then
    bad('argument must be the name of a parameter, or a position from 0')
  end
  local ok, list = pcall(cjson.decode, '[' .. value .. ']')
  local is_text = ok and #list == 1 and type(list[1]) == 'string' and string.find(value, '^".*"$')
  if not is_text and not string.find(value, '^%-?%d+$') and value ~= 'true' and value ~= 'false' then
    bad('value must be the JSON of a string, an integer or a boolean')
  end
  if #value > payload.MAX_VALUE then bad('value must not be longer than ' .. payload.MAX_VALUE .. ' bytes') end
  rule.argument, rule.value = argument, value
  return name .. '(' .. argument .. '=' .. value .. ')', rule
end
function M.read(base, id)
  local text = errors.read('HGET', keys.pauses(base), id)
  local ok, rule = pcall(cjson.decode, text or '')
  return ok and type(rule) == 'table' and rule or nil
end
local function tell_claims(base)
  local flag
  if redis.call('HEXISTS', keys.pauses(base), WHOLE) == 1 then
    flag = pause_rules.QUEUE
  elseif redis.call('EXISTS', keys.pauses(base)) == 1 then
    flag = pause_rules.TASKS
  end
  if flag then
    redis.call('HSET', keys.meta(base), 'paused', flag)
  else
    redis.call('HDEL', keys.meta(base), 'paused')
  end
end
function M.check(base, id, is_new)
  errors.read('HGET', keys.meta(base), 'paused')
  errors.read('ZCARD', keys.held(base, id))
  if is_new and errors.read('HLEN', keys.pauses(base)) >= MAX then
    bad('there are ' .. MAX .. ' pauses already: resume some, or pause by task name')
  end
end
function M.write(base, id, rule, changed)
  if changed then redis.call('HSET', keys.pauses(base), id, cjson.encode(rule)) end
  tell_claims(base)
end
function M.remove(base, id)
  redis.call('HDEL', keys.pauses(base), id)
  tell_claims(base)
end
function M.learn(rule, positions)
  local known, learned = rule.positions or {}, false
  for name, position in pairs(positions or {}) do
    learned = learned or not known[name]
    known[name] = known[name] or position
  end
  rule.positions = next(known) and known or nil
  return learned
end
function M.wake_all(base)
  local quarantined = redis.pcall('ZCARD', keys.quarantined(base))
  quarantined = errors.of(quarantined) and 0 or quarantined
  local lanes = redis.pcall('SMEMBERS', keys.lanes(base))
  for _, name in ipairs(errors.of(lanes) and {} or lanes) do
    local ready = redis.pcall('LLEN', keys.ready(base, name))
    lane.wake(base, name, quarantined + (errors.of(ready) and 0 or ready))
  end
end
function M.go_on(batch, limit)
  local entries = redis.pcall('HGETALL', keys.pauses(batch.base))
  if errors.of(entries) then return false end
  for i = 1, #entries, 2 do
    local ok, rule = pcall(cjson.decode, entries[i + 1])
    if ok and type(rule) == 'table' and rule.resuming then
      local moved, left = move.give_back(batch, entries[i], limit)
      if not left then M.remove(batch.base, entries[i]) end
      if moved > 0 or not left then return true end
    end
  end
  return false
end
return M
end)()
local hand_off = (function()
local M = {}
local MOST = 16
local SILENT, SILENT_MS = 1 / 3, 3000
local function read_offer(batch, worker)
  local base = batch.base
  local row = redis.pcall('HMGET', keys.worker(base, worker), 'idle', 'mailbox', 'quarantined', 'passes', 'timer_at')
  if errors.of(row) or not row[1] or row[1] == '' or not row[2] then return nil end
  local expiry = redis.pcall('ZSCORE', keys.workers(base), worker)
  if type(expiry) ~= 'string' or errors.of(redis.pcall('HLEN', keys.running(base, worker))) then return nil end
  local ok, terms = pcall(cjson.decode, row[1])
  if not ok or type(terms) ~= 'table' then return nil end
  for _, name in ipairs({ 'want', 'lease_ms', 'result_ttl_ms' }) do
    if type(terms[name]) ~= 'number' then return nil end
  end
  if tonumber(expiry) - batch.now < terms.lease_ms - math.min(terms.lease_ms * SILENT, SILENT_MS) then return nil end
  local has_lanes, names = pcall(lane.names, terms.lanes)
  if not has_lanes then return nil end
  return { worker = worker, mailbox = row[2], lanes = names, want = terms.want, result_ttl_ms = terms.result_ttl_ms,
    earlier = { quarantined = row[3], passes = row[4] or nil }, has_timer = row[5] }
end
function M.offers(batch, lanes, count)
  if count > MOST then return nil end
  for _, name in ipairs(lanes) do
    if batch.seen[name].ready > 0 then return nil end
  end
  local found, offers, stale = {}, {}, {}
  for _, name in ipairs(lanes) do
    local workers = redis.pcall('ZRANGE', keys.idle(batch.base, name), 0, count - 1)
    for _, worker in ipairs(errors.of(workers) and {} or workers) do
      if found[worker] == nil then found[worker] = read_offer(batch, worker) or false end
      if not found[worker] then
        batches.push(stale, name, worker)
      elseif not found[worker].is_listed then
        found[worker].is_listed, offers[#offers + 1] = true, found[worker]
      end
    end
  end
  if next(found) == nil then return nil end
  local ok, pauses = pcall(claim.check, batch.base)
  if not ok or pauses and pauses.whole then return nil end
  return { workers = offers, stale = stale, pauses = pauses }
end
function M.give(batch, offers, lanes, count)
  local base = batch.base
  batch.pauses = offers.pauses
  for name, workers in pairs(offers.stale) do redis.call('ZREM', keys.idle(base, name), unpack(workers)) end
  for _, name in ipairs(lanes) do batch.seen[name].is_offered = true end
  batches.flush(batch)
  local full = {}
  for i, offer in ipairs(offers.workers) do
    local share = i < #offers.workers and math.ceil(count / (#offers.workers - i + 1)) or MOST
    local claims, row = { n = 0 }, keys.worker(base, offer.worker)
    local taken, first_token = claim.take(batch, offer.worker, offer.lanes, math.min(offer.want, share), offer.earlier,
      offer.result_ttl_ms, claims)
    if taken > 0 then
      count = math.max(count - taken, 0)
      member.withdraw(base, offer.worker, offer.lanes)
      redis.call('HSET', row, 'idle', '', 'handed', first_token)
      mail.post(base, offer.mailbox, { mail.pack('claimed', unpack(claims, 1, claims.n)) })
      if taken == offer.want and offer.has_timer then full[#full + 1] = offer.worker end
    end
    if count == 0 then break end
  end
  for _, worker in ipairs(full) do timer.drop(base, worker) end
  for _, name in ipairs(lanes) do
    local left = redis.call('LLEN', keys.ready(base, name))
    if left > 0 then
      local tokens = redis.call('LLEN', keys.wake(base, name))
      lane.wake(base, name, left - tokens, tokens)
    end
  end
end
return M
end)()
local place = (function()
local M = {}
M.FIELDS = { 'state', 'lane', 'worker', 'lost', 'pause' }
M.TYPES = {
  task = 'hash', ready = 'list', tombstones = 'set', wake = 'list',
  idle = 'zset', scheduled = 'zset', running = 'hash', held = 'zset',
  quarantined = 'zset', workers = 'zset', loads = 'zset', worker = 'hash', aborts = 'set', mailbox = 'list',
  waiters = 'set', log = 'list', dead = 'zset', unknown_tasks = 'zset', pauses = 'hash', schedules = 'hash',
  schedule_due = 'zset', lanes = 'set', meta = 'hash', stats = 'hash', task_stats = 'hash', replicated = 'string',
}
M.OF_WORKERS = { running = true, worker = true, aborts = true }
M.WITH_TTL = {
  mailbox = 'mailbox', waiters = 'waiters', log = 'log', stats = 'stats_minute', task_stats = 'task_stats',
}
local WINDOW = 5000
function M.is_quarantined(record)
  return number.of(record.lost, 0) >= 2
end
function M.lacks(command, key, id)
  local found = redis.pcall(command, key, id)
  return not found or found == 0 or type(found) == 'table'
end
function M.misplaced(base, id, record)
  local state = record.state
  if state == 'scheduled' then
    return M.lacks('ZSCORE', keys.scheduled(base), id) and 'not_in_scheduled'
  elseif state == 'running' then
    return M.lacks('HGET', keys.running(base, record.worker or ''), id) and 'not_in_running'
  elseif state == 'held' then
    return M.lacks('ZSCORE', keys.held(base, record.pause or ''), id) and 'not_in_held'
  elseif state == 'failed' then
    return M.lacks('ZSCORE', keys.dead(base), id) and 'not_in_dead'
  elseif state == 'queued' then
    return M.is_quarantined(record) and M.lacks('ZSCORE', keys.quarantined(base), id) and 'not_in_quarantined'
  end
  return not task.is_finished(state) and 'unknown_state'
end
function M.is_near_an_end(base, lane_name, id)
  local key = keys.ready(base, lane_name)
  return (errors.read('LPOS', key, id, 'MAXLEN', WINDOW) or errors.read('LPOS', key, id, 'RANK', -1, 'MAXLEN', WINDOW))
    and true or false
end
local function fits_quarantined(record) return record.state == 'queued' and M.is_quarantined(record) end
local function fits_ready(record, of)
  return record.state == 'queued' and record.lane == of and not M.is_quarantined(record)
end
M.FITS = {
  ready = fits_ready,
  scheduled = function(record) return record.state == 'scheduled' end,
  dead = function(record) return record.state == 'failed' end,
  quarantined = fits_quarantined,
  held = function(record, of) return record.state == 'held' and record.pause == of end,
  running = function(record, of) return record.state == 'running' and record.worker == of end,
  tombstones = function(record, of) return not fits_ready(record, of) end,
}
return M
end)()
local reap = (function()
local M = {}
local REAP_LIMIT = 100
local LOOK_AT = 10
local function run_out(batch, beat, lease_ms)
  local last, reap_after = number.of(beat[1], batch.now), number.of(beat[2], 0)
  local expiry, missed = batch.now, batch.now - last - math.floor(lease_ms / 2)
  if missed > 0 then
    if reap_after > last then reap_after = reap_after + missed end
    if reap_after <= batch.now then reap_after, expiry = batch.now + lease_ms, last else expiry = 0 end
    redis.call('HSET', keys.meta(batch.base), 'last_beat', batch.now, 'reap_after', reap_after)
  else
    if reap_after > batch.now then expiry = 0 end
    redis.call('HSET', keys.meta(batch.base), 'last_beat', batch.now)
  end
  return expiry
end
local function lost(batch, workers, expiry)
  local found = redis.call('ZREVRANGEBYSCORE', workers, 0, batches.STUCK_MS - batch.now, 'LIMIT', 0, LOOK_AT)
  local expired = redis.call('ZRANGEBYSCORE', workers, '(0', expiry, 'LIMIT', 0, LOOK_AT)
  for _, worker in ipairs(expired) do found[#found + 1] = worker end
  return found
end
function M.dead_workers(batch, beat, lease_ms, ttl_ms, max_lost)
  local workers = keys.workers(batch.base)
  local found = lost(batch, workers, run_out(batch, beat, lease_ms))
  for i, worker in ipairs(found) do
    local moved, left, untried = 0, true, false
    redis.call('ZADD', workers, 0, worker)
    if not batches.obstacle(batch, 'HLEN', keys.running(batch.base, worker)) then
      moved, left, untried = attempt.take_from(batch, worker, REAP_LIMIT, ttl_ms, true, max_lost)
    end
    if not left then member.remove(batch.base, worker) end
    if moved > 0 or untried or not left then return left or i < #found end
    redis.call('ZADD', workers, clock.text(-batch.now), worker)
  end
  return #found >= LOOK_AT
end
return M
end)()
local function refuse(name, what)
  return redis.error_reply('ARDIQ_BAD_ARGUMENT ' .. name .. ': ' .. what)
end
-- Whether a key is the base of a queue. Mostly the one of the last call is asked for again.
local known_base
local function is_base(key)
  if key == known_base then return true end
  if not string.find(key, '^.+:{.+}:$') then return false end
  known_base = key
  return true
end
local function bad_call(name, KEYS, ARGV, expected)
  if #KEYS ~= 1 or not is_base(KEYS[1]) then
    return refuse(name, 'expected one key, the base of a queue, as ardiq:{default}:')
  end
  return refuse(name, 'takes ' .. expected .. ' arguments, got ' .. #ARGV)
end
local function integer(text)
  local number = string.find(text, '^%-?%d+$') and tonumber(text)
  -- Beyond 2^53 a Lua number is no longer the integer that was sent.
  return number and number < 9007199254740992 and number > -9007199254740992 and number
end
local function json(text)
  local ok, value = pcall(cjson.decode, text)
  return ok and type(value) == 'table' and value
end
-- Fails unless all are texts: nothing else can be compared with one.
local function compare(list)
  for i = 1, #list do
    if list[i] < '' then return end
  end
end
-- The fields of records that came as one argument, a msgpack array of texts.
local function unpacked(text)
  local ok, list = pcall(cmsgpack.unpack, text)
  return ok and type(list) == 'table' and pcall(compare, list) and list
end
-- The fields of records that came as arguments of their own, behind the function's own.
local function behind(ARGV, own)
  local list = {}
  for i = own + 1, #ARGV do list[i - own] = ARGV[i] end
  return list
end
-- What a call that failed answers. Refusals and errors of commands begin with their code; anything else is a mistake
-- in the Lua. A `pcall` inside the server turns an error raised as a table into its text, save before 7.0, when in
-- turn the text of a command's error begins with a place.
local function failed(err)
  local text = type(err) == 'table' and err.err or tostring(err)
  text = string.match(text, '^@user_script: ?%d+: %-?(%u[%u_]+ .*)$') or text
  if not string.find(text, '^%u[%u_]+ ') then text = 'ERR ' .. text end
  return { err = text }
end
redis.register_function{function_name='ardiq_v1_abort', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  local id = args.id
  local record, err = task.read(base, id, { 'state', 'lane', 'worker', 'pause', 'result_ttl_ms' })
  if err then return { err = err } end
  if not record.state then return 'not_found' end
  if record.state == 'aborted' then return 'aborted' end
  if task.is_finished(record.state) then return 'finished' end
  if not task.is_waiting(record.state) then
    attempt.ask_abort(base, id, record.worker)
    return 'requested'
  end
  local batch = batches.open(base, clock.read())
  move.abort_waiting(batch, id, record, args.result_ttl_ms)
  batches.close(batch)
  return 'aborted'
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('abort', KEYS, ARGV, '2') end
  local arg2 = integer(ARGV[2])
  if not arg2 then return refuse('abort', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { id = ARGV[1], result_ttl_ms = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_await', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  if args.mailbox ~= '' and args.waiter_ttl_ms == 0 then
    errors.raise(errors.bad_argument('with a mailbox, waiter_ttl_ms must be positive'))
  end
  local record, answer = ask.outcome(base, args.id, args.result_ttl_ms)
  if not record then return answer end
  if args.mailbox ~= '' then
    mail.await(base, args.id, args.mailbox, args.waiter_ttl_ms)
    mail.note_wait(base, clock.now(), args.waiter_ttl_ms)
  end
  return { 'unfinished', record.state }
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 4 then return bad_call('await', KEYS, ARGV, '4') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 0 then return refuse('await', 'waiter_ttl_ms is not an integer from 0') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('await', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { id = ARGV[1], mailbox = ARGV[2], waiter_ttl_ms = arg3, result_ttl_ms = arg4 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_claim', flags={'allow-oom'}, callback=(function()
local run = (function()
local MAX = 500
return function(base, args)
  local worker, lanes = args.worker, lane.names(args.lanes)
  member.require(base, worker)
  local row = keys.worker(base, worker)
  local last = errors.read('HMGET', row, 'quarantined', 'passes')
  errors.read('HLEN', keys.running(base, worker))
  local pauses = claim.check(base)
  local batch = batches.open(base, clock.read())
  batch.pauses = pauses
  local reply = { 0, n = 1 }
  local want = math.min(args.want, MAX)
  local earlier = { quarantined = last[1], passes = last[2] or nil }
  local _
  _, _, reply[1] = claim.take(batch, worker, lanes, want, earlier, args.result_ttl_ms, reply)
  batches.close(batch)
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 4 then return bad_call('claim', KEYS, ARGV, '4') end
  local arg2 = json(ARGV[2])
  if not arg2 then return refuse('claim', 'lanes is not a JSON array or object') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 0 then return refuse('claim', 'want is not an integer from 0') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('claim', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], lanes = arg2, want = arg3, result_ttl_ms = arg4 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_claims', flags={'no-writes'}, callback=(function()
local run = (function()
local FIELDS = { 'name', 'lane', 'tries', 'started_at', 'progress' }
return function(base, args)
  local first, limit = args.offset, args.limit
  local claims, reply = member.claims(base, args.worker), { clock.now() }
  for i = first + 1, math.min(first + limit, #claims) do
    local record = task.read(base, claims[i].id, FIELDS) or {}
    reply[#reply + 1] = claims[i].id
    for _, field in ipairs(FIELDS) do reply[#reply + 1] = record[field] or '' end
  end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 3 then return bad_call('claims', KEYS, ARGV, '3') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 0 then return refuse('claims', 'offset is not an integer from 0') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 1 or arg3 > 1000 then return refuse('claims', 'limit is not an integer from 1 to 1000') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], offset = arg2, limit = arg3 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_complete', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  return attempt.settle_one(base, args, 'complete', args.result, { codec = args.codec })
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 7 then return bad_call('complete', KEYS, ARGV, '7') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('complete', 'run_ms is not an integer') end
  local arg7 = integer(ARGV[7])
  if not arg7 then return refuse('complete', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], id = ARGV[2], token = ARGV[3], run_ms = arg4, result = ARGV[5], codec = ARGV[6], result_ttl_ms = arg7 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_counts', flags={'no-writes'}, callback=(function()
local run = (function()
local function count_running(base, workers)
  local key, total = keys.loads(base), 0
  if errors.read('ZCARD', key) == workers then
    local busy = errors.read('ZRANGEBYSCORE', key, '(0', '+inf', 'WITHSCORES')
    for i = 2, #busy, 2 do total = total + tonumber(busy[i]) end
    return total
  end
  local entries, loads = errors.read('ZRANGE', key, 0, -1, 'WITHSCORES'), {}
  for i = 1, #entries, 2 do loads[entries[i]] = tonumber(entries[i + 1]) end
  for _, worker in ipairs(errors.read('ZRANGE', keys.workers(base), 0, -1)) do
    total = total + (loads[worker] or errors.read('HLEN', keys.running(base, worker)))
  end
  return total
end
return function(base)
  local workers = errors.read('ZCARD', keys.workers(base))
  local running = count_running(base, workers)
  local quarantined = errors.read('ZCARD', keys.quarantined(base))
  local queued, ready = quarantined, {}
  local lanes = errors.read('SMEMBERS', keys.lanes(base))
  table.sort(lanes)
  for _, name in ipairs(lanes) do
    local live = errors.read('LLEN', keys.ready(base, name)) - errors.read('SCARD', keys.tombstones(base, name))
    queued = queued + live
    ready[#ready + 1], ready[#ready + 2] = 'ready:' .. name, live
  end
  local held, of_pauses, ids = 0, {}, errors.read('HKEYS', keys.pauses(base))
  ids[#ids + 1] = pause_rules.NEWER
  for _, id in ipairs(ids) do
    local count = errors.read('ZCARD', keys.held(base, id))
    held = held + count
    if count > 0 then of_pauses[#of_pauses + 1], of_pauses[#of_pauses + 2] = 'held:' .. id, count end
  end
  local reply = {
    'scheduled', errors.read('ZCARD', keys.scheduled(base)), 'queued', queued, 'running', running,
    'held', held, 'quarantined', quarantined, 'dead', errors.read('ZCARD', keys.dead(base)), 'workers', workers,
  }
  for i = 1, #ready do reply[#reply + 1] = ready[i] end
  for i = 1, #of_pauses do reply[#reply + 1] = of_pauses[i] end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 0 then return bad_call('counts', KEYS, ARGV, '0') end
  local ok, reply = pcall(run, KEYS[1], {  })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_dead_letters', flags={'no-writes'}, callback=(function()
local run = (function()
local MAX_AT_ONCE = 5000
local function bound(time, none)
  if time == 0 then return none end
  return clock.text(time < 0 and clock.now() + time or time)
end
local function page_of(base, since, before, limit)
  local key = keys.dead(base)
  local page = errors.read('ZREVRANGEBYSCORE', key, before, since, 'WITHSCORES', 'LIMIT', 0, limit)
  local last, count = page[#page], #page
  if count < 2 * limit then return page, '0' end
  if page[2] == last then
    return errors.read('ZREVRANGEBYSCORE', key, last, last, 'WITHSCORES', 'LIMIT', 0, MAX_AT_ONCE), last
  end
  while page[count] == last do
    page[count - 1], page[count] = nil, nil
    count = count - 2
  end
  return page, page[count]
end
return function(base, args)
  local before = bound(args.before_at, '+inf')
  if before ~= '+inf' then before = '(' .. before end
  local page, next_before = page_of(base, bound(args.since_at, '-inf'), before, args.limit)
  local wanted, reply = string.lower(args.error), { next_before }
  for i = 1, #page, 2 do
    local record, err = task.read(base, page[i], { 'state', 'name', 'lane', args.error ~= '' and 'error' or nil })
    local fits = err and args.task == '' and args.error == ''
    if record and record.state == 'failed' then
      fits = (args.task == '' or record.name == args.task)
        and (args.error == '' or string.find(string.lower(record.error or ''), wanted, 1, true))
    end
    if fits then
      local at = #reply
      reply[at + 1], reply[at + 2] = page[i], page[i + 1]
      reply[at + 3], reply[at + 4] = record and record.name or '', record and record.lane or ''
    end
  end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 5 then return bad_call('dead_letters', KEYS, ARGV, '5') end
  local arg3 = integer(ARGV[3])
  if not arg3 then return refuse('dead_letters', 'since_at is not an integer') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('dead_letters', 'before_at is not an integer') end
  local arg5 = integer(ARGV[5])
  if not arg5 or arg5 < 1 or arg5 > 1000 then return refuse('dead_letters', 'limit is not an integer from 1 to 1000') end
  local ok, reply = pcall(run, KEYS[1], { task = ARGV[1], error = ARGV[2], since_at = arg3, before_at = arg4, limit = arg5 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_discard', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  local batch, answers = batches.open(base, clock.read()), {}
  errors.read('ZCARD', keys.dead(base))
  for i, id in ipairs(args.tasks) do
    local record, err = task.read(base, id, { 'state' })
    if err then
      answers[i] = err
    elseif record.state == 'failed' then
      redis.call('ZREM', keys.dead(base), id)
      move.discard(batch, id, 'failed', args.result_ttl_ms)
      answers[i] = 'discarded'
    else
      answers[i] = 'not_dead'
    end
  end
  batches.close(batch)
  return answers
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  local records = behind(ARGV, 1)
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV < 1 or #records > 1000 then return bad_call('discard', KEYS, ARGV, '1 and 1 for each of up to 1000 tasks') end
  local arg1 = integer(ARGV[1])
  if not arg1 then return refuse('discard', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { result_ttl_ms = arg1, tasks = records })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_discard_old', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  local limit = args.limit
  local dead, batch = keys.dead(base), batches.open(base, clock.read())
  local too_many, too_old = 0, 0
  if args.dead_limit >= 0 then too_many = errors.read('ZCARD', dead) - args.dead_limit end
  if args.dead_ttl_ms > 0 then
    too_old = errors.read('ZCOUNT', dead, '-inf', clock.text(batch.now - args.dead_ttl_ms))
  end
  local count = math.max(too_many, too_old, 0)
  if count == 0 then return { 0, 0 } end
  local ids = errors.read('ZRANGE', dead, 0, math.min(count, limit) - 1)
  redis.call('ZREM', dead, unpack(ids))
  local removed = 0
  for _, id in ipairs(ids) do
    if move.discard(batch, id, 'failed', args.result_ttl_ms) then removed = removed + 1 end
  end
  batches.close(batch)
  return { removed, count > limit and 1 or 0 }
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 4 then return bad_call('discard_old', KEYS, ARGV, '4') end
  local arg1 = integer(ARGV[1])
  if not arg1 then return refuse('discard_old', 'dead_ttl_ms is not an integer') end
  local arg2 = integer(ARGV[2])
  if not arg2 then return refuse('discard_old', 'dead_limit is not an integer') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 1 or arg3 > 1000 then return refuse('discard_old', 'limit is not an integer from 1 to 1000') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('discard_old', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { dead_ttl_ms = arg1, dead_limit = arg2, limit = arg3, result_ttl_ms = arg4 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_enqueue', flags={}, callback=(function()
local run = (function()
local WAITER_TTL_MS = 3600000
local PLAIN = {}
local OPTIONS = {
  delay_ms = 'number', due_at = 'number', expire_ms = 'number', codec = 'string', headers = 'string',
  idempotency_key = 'string', waiter = 'string', waiter_ttl_ms = 'number', result_ttl_ms = 'number',
}
local function read_options(text, now)
  local options = object.decode(text, OPTIONS, 'options')
  if options.delay_ms and options.due_at then errors.raise(errors.bad_argument('give delay_ms or due_at, not both')) end
  local waiter_ttl_ms = options.waiter_ttl_ms or WAITER_TTL_MS
  if waiter_ttl_ms <= 0 then errors.raise(errors.bad_argument('waiter_ttl_ms must be positive')) end
  local fields = {}
  local function add(name, value)
    if value and value ~= '' then fields[#fields + 1], fields[#fields + 2] = name, value end
  end
  local delay_ms, due_at, expire_ms = options.delay_ms or 0, options.due_at, options.expire_ms or 0
  if delay_ms > 0 then due_at = now + delay_ms end
  due_at = due_at and due_at > now and math.floor(due_at) or nil
  add('due_at', due_at and clock.text(due_at))
  add('expires_at', expire_ms > 0 and clock.text(now + expire_ms))
  add('codec', options.codec)
  add('headers', options.headers)
  add('idempotency_key', options.idempotency_key)
  add('result_ttl_ms', options.result_ttl_ms and clock.text(options.result_ttl_ms))
  local waiter = options.waiter ~= '' and options.waiter or nil
  return { due_at = due_at, fields = fields, idempotency_key = options.idempotency_key, waiter = waiter,
    waiter_ttl_ms = waiter_ttl_ms }
end
local function look_up(base, id, idempotency_key)
  local record, err = task.read(base, id, { 'state', 'idempotency_key' })
  if err then return err end
  if not record.state then return nil, false end
  if record.idempotency_key == idempotency_key then return 'accepted' end
  if not task.is_finished(record.state) then return 'exists' end
  errors.read('ZCARD', keys.dead(base))
  return nil, true
end
local function tell_or_await(base, id, plan, answer)
  local record = answer == 'accepted' and task.read(base, id, mail.OUTCOME)
  if record and task.is_finished(record.state) then
    mail.post(base, plan.waiter, { mail.finished(id, mail.outcome(record)) })
  else
    mail.await(base, id, plan.waiter, plan.waiter_ttl_ms, plan.is_first)
  end
end
return function(base, args)
  local tasks, now, now_text = args.tasks, clock.read()
  if #tasks == 0 then return {} end
  local count, workers, first_lane = #tasks / 6, lane.count_workers(base), tasks[3]
  local lanes, seen = { first_lane }, { [first_lane] = lane.look(base, first_lane, workers) }
  local found = { keys.tombstones(base, first_lane), false }
  local answers, plans, ids, some_later, some_waiter = { false }, nil, count > 1 and {}, false, false
  local added = count
  for i = 1, count do
    local at = 6 * i - 5
    local id, lane_name, options = tasks[at], tasks[at + 2], tasks[at + 5]
    if id == '' or tasks[at + 1] == '' or lane_name == '' then
      errors.raise(errors.bad_argument('a task needs an id, a name and a lane'))
    end
    found[i + 1] = keys.task(base, id)
    if not seen[lane_name] then
      lanes[#lanes + 1], seen[lane_name] = lane_name, lane.look(base, lane_name, workers)
    end
    if ids then
      if ids[id] then answers[i], added = 'exists', added - 1 end
      ids[id] = true
    end
    if options ~= '' then
      local plan = read_options(options, now)
      plans = plans or {}
      plans[i], some_later, some_waiter = plan, some_later or plan.due_at, some_waiter or plan.waiter
    end
  end
  for i = 2, #lanes do found[count + i] = keys.tombstones(base, lanes[i]) end
  local existing = redis.call('EXISTS', unpack(found))
  if existing > 0 then
    for _, name in ipairs(lanes) do
      local marked = errors.read('SCARD', keys.tombstones(base, name))
      seen[name].marked = marked
      if marked > 0 then existing = existing - 1 end
    end
  end
  for i = 1, existing > 0 and count or 0 do
    if not answers[i] then
      local plan = plans and plans[i]
      local answer, replaces = look_up(base, tasks[6 * i - 5], plan and plan.idempotency_key)
      if answer then answers[i], added = answer, added - 1 end
      if replaces then
        plans = plans or {}
        plans[i] = plan or {}
        plans[i].replaces = true
      end
    end
  end
  local longest_wait_ms = 0
  if some_waiter then
    for i, plan in pairs(plans) do
      if plan.waiter then
        longest_wait_ms = math.max(longest_wait_ms, plan.waiter_ttl_ms)
        plan.is_first = errors.read('SCARD', keys.waiters(base, tasks[6 * i - 5])) == 0 and answers[i] ~= 'exists'
      end
    end
  end
  if some_later then
    errors.read('ZCARD', keys.scheduled(base))
    errors.read('HGET', keys.meta(base), 'timer_at')
  end
  local batch = batches.open(base, now, now_text)
  batch.seen = seen
  local offers = added > 0 and workers > 0 and not some_later and hand_off.offers(batch, lanes, added)
  for _, name in ipairs(lanes) do
    if seen[name].is_new then redis.call('SADD', keys.lanes(base), name) end
  end
  for i = 1, count do
    local at, plan = 6 * i - 5, plans and plans[i] or PLAIN
    if not answers[i] then
      if plan.replaces then move.remove(base, tasks[at]) end
      answers[i] =
        move.create(batch, found[i + 1], tasks[at], tasks[at + 1], tasks[at + 2], tasks[at + 3], tasks[at + 4], plan)
    end
    if plan.waiter then tell_or_await(base, tasks[at], plan, answers[i]) end
  end
  stats.add(base, now, 'enqueued', added)
  if longest_wait_ms > 0 then mail.note_wait(base, now, longest_wait_ms) end
  if offers then hand_off.give(batch, offers, lanes, added) end
  batches.close(batch)
  return answers
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  local is_packed = #ARGV == 1
  local records
  if is_packed then records = unpacked(ARGV[1]) else records = ARGV end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV < 0 or not records or #records > 6000 or #records % 6 ~= 0 then return bad_call('enqueue', KEYS, ARGV, '0 and 6 for each of up to 1000 tasks') end
  local ok, reply = pcall(run, KEYS[1], { tasks = records })
  if is_packed and ok and type(reply) == 'table' and not reply.err then return cmsgpack.pack(reply) end
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_fail', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  return attempt.settle_one(base, args, 'failed', args.error, { traceback = args.traceback })
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 7 then return bad_call('fail', KEYS, ARGV, '7') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('fail', 'run_ms is not an integer') end
  local arg7 = integer(ARGV[7])
  if not arg7 then return refuse('fail', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], id = ARGV[2], token = ARGV[3], run_ms = arg4, error = ARGV[5], traceback = ARGV[6], result_ttl_ms = arg7 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_fsck_page', flags={'no-writes'}, callback=(function()
local run = (function()
local function check_key(base, key, add)
  local name = string.sub(key, #base + 1)
  local kind, rest = string.match(name, '^([a-z_]+):?(.*)$')
  if not place.TYPES[kind] then return add('unknown_key', name, '') end
  local actual = redis.call('TYPE', key).ok
  if actual == 'none' then return end
  if actual ~= place.TYPES[kind] then return add('wrong_type', name, actual) end
  if place.OF_WORKERS[kind] and place.lacks('ZSCORE', keys.workers(base), rest) then
    return add('no_such_worker', name, rest)
  end
  if kind == 'held' and rest ~= pause_rules.NEWER and place.lacks('HEXISTS', keys.pauses(base), rest) then
    return add('no_such_pause', name, '')
  end
  if kind == 'pauses' and place.lacks('HEXISTS', keys.meta(base), 'paused') then
    return add('unseen_pauses', name, '')
  end
  if rest ~= '' and place.WITH_TTL[kind] and redis.call('PTTL', key) == -1 then return add('no_ttl', name, '') end
  if kind ~= 'task' then return end
  local record = task.read(base, rest, place.FIELDS)
  local problem = place.misplaced(base, rest, record)
  if problem then
    add(problem, rest, record.state or '')
  elseif record.state == 'queued' and not place.is_quarantined(record) then
    add('queued', rest, record.lane or '')
  end
end
local function scan_keys(base, cursor, limit, add)
  local pattern = string.gsub(base, '[%[%]%*%?\\]', '\\%0') .. '*'
  local page = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', limit)
  for _, key in ipairs(page[2]) do check_key(base, key, add) end
  return page[1], #page[2]
end
local function check_entry(base, id, kind, of, add)
  local record, err = task.read(base, id, place.FIELDS)
  if err then return add('wrong_type', 'task:' .. id, '') end
  if not place.FITS[kind](record, of) then
    add('ghost_in_' .. kind, id, of ~= '' and of or record.state or 'no record')
  end
end
local function walk_ready(base, name, cursor, limit, add)
  local key = keys.ready(base, name)
  local last = tonumber(cursor) - 1
  if last < 0 then last = errors.read('LLEN', key) - 1 end
  if last < 0 then return '0', 0 end
  local first = math.max(last - limit + 1, 0)
  local ids = errors.read('LRANGE', key, first, last)
  if #ids > 0 then
    local is_tombstone = errors.read('SMISMEMBER', keys.tombstones(base, name), unpack(ids))
    for i, id in ipairs(ids) do
      if is_tombstone[i] == 0 then
        check_entry(base, id, 'ready', name, add)
        add('entry', id, name)
      end
    end
  end
  return tostring(first), #ids
end
local SCANS = {
  scheduled = { 'ZSCAN', 2 }, dead = { 'ZSCAN', 2 }, quarantined = { 'ZSCAN', 2 }, running = { 'HSCAN', 2 },
  held = { 'ZSCAN', 2 }, tombstones = { 'SSCAN', 1 },
}
local function scan_place(base, kind, of, cursor, limit, add)
  local command, width = unpack(SCANS[kind])
  local key = of == '' and keys[kind](base) or keys[kind](base, of)
  local page = errors.read(command, key, cursor, 'COUNT', limit)
  for i = 1, #page[2], width do check_entry(base, page[2][i], kind, of, add) end
  return page[1], #page[2] / width
end
local function scan_workers(base, cursor, limit, add)
  local page = errors.read('ZSCAN', keys.workers(base), cursor, 'COUNT', limit)
  for i = 1, #page[2], 2 do
    local worker, expiry = page[2][i], tonumber(page[2][i + 1])
    if expiry > 0 and redis.call('EXISTS', keys.worker(base, worker)) == 0 then add('no_row', worker, '') end
  end
  return page[1], #page[2] / 2
end
local function scan_loads(base, cursor, limit, add)
  local page = errors.read('ZSCAN', keys.loads(base), cursor, 'COUNT', limit)
  for i = 1, #page[2], 2 do
    local worker, load = page[2][i], page[2][i + 1]
    local claimed = member.claimed(base, worker)
    if claimed ~= false and claimed ~= tonumber(load) then add('wrong_load', worker, load) end
  end
  return page[1], #page[2] / 2
end
local HALVES = {
  schedules = { scan = 'HSCAN', look_up = 'ZSCORE', other = 'schedule_due', finding = 'not_in_schedule_due' },
  schedule_due = { scan = 'ZSCAN', look_up = 'HEXISTS', other = 'schedules', finding = 'ghost_in_schedule_due' },
}
local function scan_schedules(base, section, cursor, limit, add)
  local half = HALVES[section]
  local page = errors.read(half.scan, keys[section](base), cursor, 'COUNT', limit)
  for i = 1, #page[2], 2 do
    if place.lacks(half.look_up, keys[half.other](base), page[2][i]) then add(half.finding, page[2][i], '') end
  end
  return page[1], #page[2] / 2
end
local function check_task(base, id, add)
  local record, err = task.read(base, id, place.FIELDS)
  if err then return add('wrong_type', 'task:' .. id, '') end
  if not record.state then return end
  local problem = place.misplaced(base, id, record)
  if problem then return add(problem, id, record.state) end
  if record.state == 'queued' and not place.is_quarantined(record) then
    local name = record.lane or ''
    if not place.is_near_an_end(base, name, id) then add('not_in_ready', id, name) end
    if errors.read('SISMEMBER', keys.tombstones(base, name), id) == 1 then add('ghost_in_tombstones', id, name) end
  end
end
return function(base, args)
  if not string.find(args.cursor, '^%d+$') then errors.raise(errors.bad_argument('cursor must be a number')) end
  local reply = { '0', 1 }
  local function add(kind, id, detail)
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = kind, id, detail
  end
  local section, of = string.match(args.section, '^([a-z_]+):?(.*)$')
  local cursor, seen = unpack(reply)
  if section == 'records' then
    cursor, seen = scan_keys(base, args.cursor, args.limit, add)
  elseif section == 'ready' then
    cursor, seen = walk_ready(base, of, args.cursor, args.limit, add)
  elseif section == 'workers' then
    cursor, seen = scan_workers(base, args.cursor, args.limit, add)
  elseif section == 'loads' then
    cursor, seen = scan_loads(base, args.cursor, args.limit, add)
  elseif section == 'task' then
    check_task(base, of, add)
  elseif HALVES[section] then
    cursor, seen = scan_schedules(base, section, args.cursor, args.limit, add)
  elseif SCANS[section] then
    cursor, seen = scan_place(base, section, of, args.cursor, args.limit, add)
  else
    errors.raise(errors.bad_argument('unknown section ' .. args.section))
  end
  reply[1], reply[2] = cursor, seen
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 3 then return bad_call('fsck_page', KEYS, ARGV, '3') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 1 or arg3 > 1000 then return refuse('fsck_page', 'limit is not an integer from 1 to 1000') end
  local ok, reply = pcall(run, KEYS[1], { section = ARGV[1], cursor = ARGV[2], limit = arg3 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_heartbeat', flags={'allow-oom'}, callback=(function()
local run = (function()
local PROMOTE_LIMIT = 100
local GIVE_BACK_LIMIT = 500
return function(base, args)
  local worker = args.worker
  member.require(base, worker)
  local mailbox = worker .. ':' .. args.generation
  local row = keys.worker(base, worker)
  local known = errors.read('HMGET', row, 'mailbox', 'abandoned_threads', 'stalled_since')
  local old_mailbox, abandoned_threads = known[1], clock.text(args.abandoned_threads)
  local beat = member.last_beat(base)
  local aborts, settled = member.aborts(base, worker)
  local batch = batches.open(base, clock.read())
  member.renew(base, worker, batch.now, args.lease_ms)
  if old_mailbox ~= mailbox then
    redis.call('HSET', row, 'mailbox', mailbox)
    if old_mailbox then redis.call('DEL', keys.mailbox(base, old_mailbox)) end
  end
  if args.stalled_ms > 0 then
    if not known[3] then redis.call('HSET', row, 'stalled_since', clock.text(batch.now - args.stalled_ms)) end
  elseif known[3] then
    redis.call('HDEL', row, 'stalled_since')
  end
  if abandoned_threads ~= (known[2] or '0') then redis.call('HSET', row, 'abandoned_threads', abandoned_threads) end
  local more = move.promote(batch, PROMOTE_LIMIT) and 1 or 0
  if reap.dead_workers(batch, beat, args.lease_ms, args.result_ttl_ms, args.max_lost) then more = 1 end
  if beat[3] and pauses.go_on(batch, GIVE_BACK_LIMIT) then more = 1 end
  if #settled > 0 then redis.call('SREM', keys.aborts(base, worker), unpack(settled)) end
  batches.close(batch)
  lane.remove_empty(base)
  local reply = { keys.mailbox(base, mailbox), more }
  for i = 1, #aborts do reply[2 + i] = aborts[i] end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 7 then return bad_call('heartbeat', KEYS, ARGV, '7') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 then return refuse('heartbeat', 'lease_ms is not an integer from 1') end
  local arg3 = integer(ARGV[3])
  if not arg3 then return refuse('heartbeat', 'result_ttl_ms is not an integer') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('heartbeat', 'generation is not an integer') end
  local arg5 = integer(ARGV[5])
  if not arg5 then return refuse('heartbeat', 'max_lost is not an integer') end
  local arg6 = integer(ARGV[6])
  if not arg6 then return refuse('heartbeat', 'abandoned_threads is not an integer') end
  local arg7 = integer(ARGV[7])
  if not arg7 then return refuse('heartbeat', 'stalled_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], lease_ms = arg2, result_ttl_ms = arg3, generation = arg4, max_lost = arg5, abandoned_threads = arg6, stalled_ms = arg7 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_join', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  local lanes, worker = lane.names(args.lanes), args.worker
  if worker == '' then errors.raise(errors.bad_argument('worker must not be empty')) end
  local now = clock.now()
  if tonumber(errors.read('ZSCORE', keys.workers(base), worker) or 1) <= 0 then
    errors.raise(errors.lease_lost(worker))
  end
  errors.read('HGET', keys.worker(base, worker), 'mailbox')
  errors.read('HGET', keys.meta(base), 'timer_at')
  for _, name in ipairs(lanes) do lane.check(base, name) end
  errors.read('ZREVRANGEBYSCORE', keys.workers(base), 0, 0, 'LIMIT', 0, 1)
  local is_json, info = pcall(cjson.encode, args.info)
  if not is_json then errors.raise(errors.bad_argument('info cannot be stored: ' .. info)) end
  local mailbox = worker .. ':' .. args.generation
  member.renew(base, worker, now, args.lease_ms)
  redis.call('HSET', keys.worker(base, worker), 'info', info,
    'lanes', cjson.encode({ unpack(lanes) }),
    'joined_at', now, 'mailbox', mailbox)
  member.count_load(base, worker)
  local reply = { keys.mailbox(base, mailbox) }
  for i, name in ipairs(lanes) do reply[i + 1] = keys.wake(base, name) end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 5 then return bad_call('join', KEYS, ARGV, '5') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 then return refuse('join', 'lease_ms is not an integer from 1') end
  local arg3 = json(ARGV[3])
  if not arg3 then return refuse('join', 'info is not a JSON array or object') end
  local arg4 = json(ARGV[4])
  if not arg4 then return refuse('join', 'lanes is not a JSON array or object') end
  local arg5 = integer(ARGV[5])
  if not arg5 then return refuse('join', 'generation is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], lease_ms = arg2, info = arg3, lanes = arg4, generation = arg5 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_leave', flags={'allow-oom'}, callback=(function()
local run = (function()
local LIMIT = 1000
return function(base, args)
  local worker = args.worker
  if not errors.read('ZSCORE', keys.workers(base), worker) then return 0 end
  errors.read('HLEN', keys.running(base, worker))
  local batch = batches.open(base, clock.read())
  redis.call('ZADD', keys.workers(base), 0, worker)
  local moved, left = attempt.take_from(batch, worker, LIMIT, args.result_ttl_ms, false)
  if not left then member.remove(base, worker) end
  batches.close(batch)
  return left and moved > 0 and 1 or 0
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('leave', KEYS, ARGV, '2') end
  local arg2 = integer(ARGV[2])
  if not arg2 then return refuse('leave', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], result_ttl_ms = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_list', flags={'no-writes'}, callback=(function()
local run = (function()
local SORTED = { scheduled = keys.scheduled, held = keys.held, dead = keys.dead, quarantined = keys.quarantined,
  unknown_tasks = keys.unknown_tasks }
local function ready_page(base, lane_name, first, last)
  local ids = errors.read('LRANGE', keys.ready(base, lane_name), first, last)
  if #ids == 0 then return {} end
  local is_tombstone, page = errors.read('SMISMEMBER', keys.tombstones(base, lane_name), unpack(ids)), {}
  for i, id in ipairs(ids) do
    if is_tombstone[i] == 0 then page[#page + 1], page[#page + 2] = id, first + i - 1 end
  end
  return page
end
local function running_page(base, worker, first, last)
  local claims, page = member.claims(base, worker), {}
  for i = first + 1, math.min(last + 1, #claims) do
    page[#page + 1], page[#page + 2] = claims[i].id, claims[i].token
  end
  return page
end
return function(base, args)
  local place, first = args.place, args.offset
  local last = first + args.limit - 1
  if place == 'queued' then return ready_page(base, args.which, first, last) end
  if place == 'running' then return running_page(base, args.which, first, last) end
  local key = SORTED[place]
  if not key then
    errors.raise(errors.bad_argument(
      'place must be queued, scheduled, held, running, dead, quarantined or unknown_tasks'))
  end
  return errors.read(place == 'dead' and 'ZREVRANGE' or 'ZRANGE', key(base, args.which), first, last, 'WITHSCORES')
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 4 then return bad_call('list', KEYS, ARGV, '4') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 0 then return refuse('list', 'offset is not an integer from 0') end
  local arg4 = integer(ARGV[4])
  if not arg4 or arg4 < 1 or arg4 > 1000 then return refuse('list', 'limit is not an integer from 1 to 1000') end
  local ok, reply = pcall(run, KEYS[1], { place = ARGV[1], which = ARGV[2], offset = arg3, limit = arg4 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_log', flags={'no-writes'}, callback=(function()
local run = (function()
return function(base, args)
  return errors.read('LRANGE', keys.log(base, args.id), -args.limit, -1)
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('log', KEYS, ARGV, '2') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 or arg2 > 1000 then return refuse('log', 'limit is not an integer from 1 to 1000') end
  local ok, reply = pcall(run, KEYS[1], { id = ARGV[1], limit = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_oldest_ready', flags={'no-writes'}, callback=(function()
local run = (function()
local LOOK_AT = 10
local function first(base, lane_name)
  local ids = errors.read('LRANGE', keys.ready(base, lane_name), 0, LOOK_AT - 1)
  if #ids == 0 then return nil end
  local is_tombstone = errors.read('SMISMEMBER', keys.tombstones(base, lane_name), unpack(ids))
  for i, id in ipairs(ids) do
    if is_tombstone[i] == 0 then return id end
  end
end
return function(base)
  local reply = { clock.now() }
  local lanes = errors.read('SMEMBERS', keys.lanes(base))
  table.sort(lanes)
  for _, name in ipairs(lanes) do
    local id = first(base, name)
    local record = id and task.read(base, id, { 'enqueued_at', 'due_at' }) or {}
    local since = math.max(number.of(record.enqueued_at, 0), number.of(record.due_at, 0))
    if since > 0 then reply[#reply + 1], reply[#reply + 2] = name, since end
  end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 0 then return bad_call('oldest_ready', KEYS, ARGV, '0') end
  local ok, reply = pcall(run, KEYS[1], {  })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_pause', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  local id, rule = pauses.named(args)
  for _, position in pairs(args.positions) do
    if type(position) ~= 'number' or position < 0 then
      errors.raise(errors.bad_argument('a position must be a number, at least 0'))
    end
  end
  local before = pauses.read(base, id)
  pauses.check(base, id, not before)
  if before and not before.resuming then rule = before else rule.paused_at = clock.now() end
  local learned = rule.argument and pauses.learn(rule, args.positions)
  pauses.write(base, id, rule, rule ~= before or learned)
  return 'paused'
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 4 then return bad_call('pause', KEYS, ARGV, '4') end
  local arg4 = json(ARGV[4])
  if not arg4 then return refuse('pause', 'positions is not a JSON array or object') end
  local ok, reply = pcall(run, KEYS[1], { task = ARGV[1], argument = ARGV[2], value = ARGV[3], positions = arg4 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_pauses', flags={'no-writes'}, callback=(function()
local run = (function()
return function(base)
  local entries, reply = errors.read('HGETALL', keys.pauses(base)), {}
  for i = 1, #entries, 2 do
    local held = errors.read('ZCARD', keys.held(base, entries[i]))
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = entries[i], entries[i + 1], held
  end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 0 then return bad_call('pauses', KEYS, ARGV, '0') end
  local ok, reply = pcall(run, KEYS[1], {  })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_position', flags={'no-writes'}, callback=(function()
local run = (function()
local RANKED = { scheduled = 'ZRANK', held = 'ZRANK', quarantined = 'ZRANK', dead = 'ZREVRANK' }
local function place_of(record)
  local state = record.state
  if state == 'queued' and place.is_quarantined(record) then return 'quarantined', '' end
  if state == 'queued' then return 'queued', record.lane or task.DEFAULT_LANE end
  if state == 'held' then return 'held', record.pause or '' end
  if state == 'running' then return 'running', record.worker or '' end
  if state == 'scheduled' then return 'scheduled', '' end
  return state == 'failed' and 'dead' or '', ''
end
return function(base, args)
  local record, err = task.read(base, args.id, place.FIELDS)
  if err then return { err = err } end
  local kept_ms = redis.call('PTTL', keys.task(base, args.id))
  local name, of = place_of(record)
  local position, length
  if name == 'queued' then
    local key = keys.ready(base, of)
    position, length = errors.read('LPOS', key, args.id, 'MAXLEN', args.limit), errors.read('LLEN', key)
  elseif name == 'running' then
    length = errors.read('HLEN', keys.running(base, of))
  elseif RANKED[name] then
    local key = keys[name](base, of)
    position, length = errors.read(RANKED[name], key, args.id), errors.read('ZCARD', key)
  end
  return { name, of, position or -1, length or 0, kept_ms }
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('position', KEYS, ARGV, '2') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 or arg2 > 10000 then return refuse('position', 'limit is not an integer from 1 to 10000') end
  local ok, reply = pcall(run, KEYS[1], { id = ARGV[1], limit = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_progress', flags={}, callback=(function()
local run = (function()
local MAX_LINES, MAX_NOTES, MAX_NAME, MAX_NOTE = 1000, 100, 200, 8192
local HOUR_MS, WEEK_MS = 3600000, 7 * 86400000
local function is_its_attempt(base, args, record)
  if member.token(errors.read('HGET', keys.running(base, args.worker), args.id)) == args.token then return true end
  return record.worker == args.worker and task.is_finished(record.state)
end
local function sorted(told)
  local lines, notes, dropped, fields, last = {}, {}, {}, {}, {}
  for at = 1, #told, 2 do
    local note, text = told[at], told[at + 1]
    if #note > MAX_NAME or (note ~= '' and #text > MAX_NOTE) then
      errors.raise(errors.bad_argument('the name of a note must have at most ' .. MAX_NAME .. ' bytes, its value '
        .. MAX_NOTE))
    end
    if note == '' then
      lines[#lines + 1] = text
    else
      local field = task.note_field(note)
      if not last[field] then fields[#fields + 1] = field end
      last[field] = text
    end
  end
  for _, field in ipairs(fields) do
    if last[field] == '' then
      dropped[#dropped + 1] = field
    else
      notes[#notes + 1], notes[#notes + 2] = field, last[field]
    end
  end
  return lines, notes, dropped
end
local function check_notes(base, id, notes, dropped)
  local names, count = {}, 0
  for _, field in ipairs(task.note_fields(base, id)) do names[field] = true end
  for i = 1, #notes, 2 do names[notes[i]] = true end
  for _, field in ipairs(dropped) do names[field] = nil end
  for _ in pairs(names) do count = count + 1 end
  if count > MAX_NOTES then
    errors.raise(errors.bad_argument('a task may have at most ' .. MAX_NOTES .. ' notes; with these, ' .. id
      .. ' would have ' .. count))
  end
end
local function log_ttl_ms(args, record)
  local kept_ms = task.kept_ms(record, args.result_ttl_ms)
  return kept_ms < 0 and WEEK_MS or math.max(kept_ms, HOUR_MS)
end
return function(base, args)
  local key, log = keys.task(base, args.id), keys.log(base, args.id)
  if #args.progress > MAX_NOTE then
    errors.raise(errors.bad_argument('progress must have at most ' .. MAX_NOTE .. ' bytes'))
  end
  local lines, notes, dropped = sorted(args.told)
  local record, err = task.read(base, args.id, { 'state', 'worker', 'watched_until', 'result_ttl_ms' })
  if err then return { err = err } end
  if not record.state or not is_its_attempt(base, args, record) then return 'stale' end
  if #notes > 0 then check_notes(base, args.id, notes, dropped) end
  errors.read('LLEN', log)
  if args.progress ~= '' then redis.call('HSET', key, 'progress', args.progress) end
  if #notes > 0 then redis.call('HSET', key, unpack(notes)) end
  if #dropped > 0 then redis.call('HDEL', key, unpack(dropped)) end
  if #lines > 0 then
    redis.call('RPUSH', log, unpack(lines))
    redis.call('LTRIM', log, -MAX_LINES, -1)
    redis.call('PEXPIRE', log, clock.text(log_ttl_ms(args, record)))
  end
  if record.watched_until and record.state == 'running' then
    waiters.changed(base, clock.now(), args.id, record.watched_until, args.told)
  end
  return 'ok'
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  local is_packed = #ARGV == 6
  local records
  if is_packed then records = unpacked(ARGV[6]) else records = behind(ARGV, 5) end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV < 5 or not records or #records > 2000 or #records % 2 ~= 0 then return bad_call('progress', KEYS, ARGV, '5 and 2 for each of up to 1000 told') end
  local arg5 = integer(ARGV[5])
  if not arg5 then return refuse('progress', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], id = ARGV[2], token = ARGV[3], progress = ARGV[4], result_ttl_ms = arg5, told = records })
  if is_packed and ok and type(reply) == 'table' and not reply.err then return cmsgpack.pack(reply) end
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_purge', flags={'allow-oom'}, callback=(function()
local run = (function()
local PLACES = {
  held = { key = keys.held, state = 'held' },
  quarantined = { key = keys.quarantined, state = 'queued' },
  scheduled = { key = keys.scheduled, state = 'scheduled' },
  dead = { key = keys.dead, state = 'failed' },
}
local function scheduled_of(base, lane_name, offset, limit)
  local key, found = keys.scheduled(base), {}
  local ids = errors.read('ZREVRANGE', key, offset, offset + limit - 1)
  for _, id in ipairs(ids) do
    local record = task.read(base, id, { 'lane' })
    if record and (record.lane or task.DEFAULT_LANE) == lane_name then found[#found + 1] = id end
  end
  if #found > 0 then redis.call('ZREM', key, unpack(found)) end
  return found, #ids
end
return function(base, args)
  local place, limit = args.place, args.limit
  local batch = batches.open(base, clock.read())
  local ids, looked
  if place == 'scheduled' and args.which ~= '' then
    ids, looked = scheduled_of(base, args.which, args.offset, limit)
  elseif place == 'queued' then
    lane.check(base, args.which)
    ids, looked = lane.pop(base, args.which, limit)
  elseif PLACES[place] then
    local key = PLACES[place].key(base, args.which)
    ids = errors.read('ZRANGE', key, 0, limit - 1)
    looked = #ids
    if looked > 0 then redis.call('ZREM', key, unpack(ids)) end
  else
    errors.raise(errors.bad_argument('place must be queued, held, quarantined, scheduled or dead'))
  end
  local state = PLACES[place] and PLACES[place].state or 'queued'
  local removed = 0
  for _, id in ipairs(ids) do
    if move.discard(batch, id, state, args.result_ttl_ms) then removed = removed + 1 end
  end
  batches.close(batch)
  return { removed, looked == limit and 1 or 0, place == 'scheduled' and looked - #ids or 0 }
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 5 then return bad_call('purge', KEYS, ARGV, '5') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 0 then return refuse('purge', 'offset is not an integer from 0') end
  local arg4 = integer(ARGV[4])
  if not arg4 or arg4 < 1 or arg4 > 1000 then return refuse('purge', 'limit is not an integer from 1 to 1000') end
  local arg5 = integer(ARGV[5])
  if not arg5 then return refuse('purge', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { place = ARGV[1], which = ARGV[2], offset = arg3, limit = arg4, result_ttl_ms = arg5 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_release', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  return attempt.settle_one(base, args, 'release')
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 4 then return bad_call('release', KEYS, ARGV, '4') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('release', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], id = ARGV[2], token = ARGV[3], result_ttl_ms = arg4 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_repair', flags={'allow-oom'}, callback=(function()
local run = (function()
local TTL_MS = 3600000
local function parts(name) return string.match(name, '^([a-z_]+):(.*)$') end
local MEND = {}
local function put_in_place(batch, id, ttl_ms)
  local record, err = task.read(batch.base, id, { 'state', 'lane', 'lost', 'due_at', 'finished_at',
    'watched_until' })
  if err then return err end
  if record.state == 'running' then return (attempt.hand_back(batch, id, ttl_ms, false)) end
  if record.state == 'held' then return (move.make_ready(batch, id, record, {}, { 'pause' }, 'front')) end
  local key = record.state == 'scheduled' and keys.scheduled or record.state == 'failed' and keys.dead
    or place.FITS.quarantined(record) and keys.quarantined
  if not key then return 'by_hand' end
  err = batches.obstacle(batch, 'ZCARD', key(batch.base))
  if err then return err end
  local lane_name = record.lane or task.DEFAULT_LANE
  if record.state == 'scheduled' then
    move.schedule(batch, id, lane_name, number.of(record.due_at, batch.now))
  else
    redis.call('ZADD', key(batch.base), record.finished_at or batch.now_text, id)
    if record.state == 'queued' then batches.quarantine(batch, lane_name) end
  end
end
local function put_back(batch, finding, record, ttl_ms)
  if place.misplaced(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
  return put_in_place(batch, finding.id, ttl_ms) and 'by_hand' or nil
end
MEND.not_in_scheduled, MEND.not_in_running = put_back, put_back
MEND.not_in_dead, MEND.not_in_quarantined, MEND.not_in_held = put_back, put_back, put_back
local function make_ready(batch, id, record)
  if not place.FITS.ready(record, record.lane or '') then return 'sound' end
  if batches.obstacle(batch, 'LLEN', keys.ready(batch.base, record.lane)) then return 'by_hand' end
  if place.is_near_an_end(batch.base, record.lane, id) then return 'sound' end
  batches.add(batch, 'back', record.lane, id)
end
function MEND.not_in_ready(batch, finding, record) return make_ready(batch, finding.id, record) end
local function drop_ghosts(kind, command)
  MEND['ghost_in_' .. kind] = function(batch, finding, record, ttl_ms)
    local id, of = finding.id, finding.detail
    if place.FITS[kind](record, of) then return 'sound' end
    local dropped = redis.pcall(command, keys[kind](batch.base, of), id)
    if errors.of(dropped) then return 'by_hand' end
    if dropped == 0 then return 'sound' end
    if kind == 'running' then member.count_load(batch.base, of) end
    if record.state and place.misplaced(batch.base, id, record) then
      put_in_place(batch, id, ttl_ms)
    else
      make_ready(batch, id, record)
    end
  end
end
drop_ghosts('scheduled', 'ZREM')
drop_ghosts('dead', 'ZREM')
drop_ghosts('quarantined', 'ZREM')
drop_ghosts('held', 'ZREM')
drop_ghosts('running', 'HDEL')
drop_ghosts('tombstones', 'SREM')
function MEND.ghost_in_schedule_due(batch, finding)
  if batches.obstacle(batch, 'HLEN', keys.schedules(batch.base)) then return 'by_hand' end
  if not place.lacks('HEXISTS', keys.schedules(batch.base), finding.id) then return 'sound' end
  local dropped = redis.pcall('ZREM', keys.schedule_due(batch.base), finding.id)
  if errors.of(dropped) then return 'by_hand' end
  return dropped == 0 and 'sound' or nil
end
function MEND.no_row(batch, finding)
  local expiry = redis.pcall('ZSCORE', keys.workers(batch.base), finding.id)
  if errors.of(expiry) then return 'by_hand' end
  if not expiry or tonumber(expiry) <= 0 then return 'sound' end
  if redis.call('EXISTS', keys.worker(batch.base, finding.id)) == 1 then return 'sound' end
  redis.call('ZADD', keys.workers(batch.base), 0, finding.id)
end
function MEND.no_such_worker(batch, finding)
  local kind, worker = parts(finding.id)
  if not place.OF_WORKERS[kind] or redis.call('EXISTS', keys[kind](batch.base, worker)) == 0 then return 'sound' end
  if batches.obstacle(batch, 'ZCARD', keys.workers(batch.base)) then return 'by_hand' end
  if redis.call('ZSCORE', keys.workers(batch.base), worker) then return 'sound' end
  if redis.call('EXISTS', keys.running(batch.base, worker)) == 1 then
    redis.call('ZADD', keys.workers(batch.base), 0, worker)
  else
    member.remove(batch.base, worker)
  end
end
function MEND.wrong_load(batch, finding)
  if batches.obstacle(batch, 'ZCARD', keys.loads(batch.base)) then return 'by_hand' end
  return not member.count_load(batch.base, finding.id) and 'sound' or nil
end
function MEND.no_ttl(batch, finding)
  local kind, rest = parts(finding.id)
  if not place.WITH_TTL[kind] then return 'sound' end
  local key = keys[place.WITH_TTL[kind]](batch.base, rest)
  if redis.call('PTTL', key) ~= -1 then return 'sound' end
  redis.call('PEXPIRE', key, TTL_MS)
end
return function(base, args)
  local batch, answers = batches.open(base, clock.read()), {}
  local findings = args.findings
  for at = 1, #findings, 3 do
    local finding = { kind = findings[at], id = findings[at + 1], detail = findings[at + 2] }
    local mend = MEND[finding.kind]
    local record, err = task.read(base, finding.id, place.FIELDS)
    local answer = (not mend or err) and 'by_hand' or mend(batch, finding, record, args.result_ttl_ms) or 'mended'
    answers[#answers + 1] = answer
    batches.flush(batch)
  end
  batches.close(batch)
  return answers
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  local is_packed = #ARGV == 2
  local records
  if is_packed then records = unpacked(ARGV[2]) else records = behind(ARGV, 1) end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV < 1 or not records or #records > 60 or #records % 3 ~= 0 then return bad_call('repair', KEYS, ARGV, '1 and 3 for each of up to 20 findings') end
  local arg1 = integer(ARGV[1])
  if not arg1 then return refuse('repair', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { result_ttl_ms = arg1, findings = records })
  if is_packed and ok and type(reply) == 'table' and not reply.err then return cmsgpack.pack(reply) end
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_report_stats', flags={}, callback=(function()
local run = (function()
local FIGURES = 7
return function(base, args)
  local tasks, names, figures = args.tasks, {}, {}
  if #tasks == 0 then return 'ok' end
  local key = keys.task_stats(base, stats.minute(clock.now()))
  for at = 1, #tasks, 1 + FIGURES do names[#names + 1] = tasks[at] end
  local known = redis.pcall('HMGET', key, unpack(names))
  if errors.of(known) then return 'ok' end
  for i, name in ipairs(names) do
    local ok, before = pcall(cjson.decode, figures[name] or known[i] or '[]')
    local sums, at = {}, (i - 1) * (1 + FIGURES) + 1
    for j = 1, FIGURES do
      sums[j] = clock.text(number.of(ok and type(before) == 'table' and before[j], 0) + tasks[at + j])
    end
    for j = FIGURES + 1, ok and type(before) == 'table' and #before or 0 do sums[j] = cjson.encode(before[j]) end
    figures[name] = '[' .. table.concat(sums, ',') .. ']'
  end
  local fields = {}
  for name, text in pairs(figures) do fields[#fields + 1], fields[#fields + 2] = name, text end
  redis.call('HSET', key, unpack(fields))
  redis.call('EXPIRE', key, stats.MINUTE_TTL_S)
  return 'ok'
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  local is_packed = #ARGV == 1
  local records
  if is_packed then records = unpacked(ARGV[1]) else records = ARGV end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV < 0 or not records or #records > 800 or #records % 8 ~= 0 then return bad_call('report_stats', KEYS, ARGV, '0 and 8 for each of up to 100 tasks') end
  for i = 1, #records, 8 do
    local completed = tonumber(records[i + 1])
    if not completed or completed % 1 ~= 0 then return refuse('report_stats', 'completed is not an integer') end
    records[i + 1] = completed
    local failed = tonumber(records[i + 2])
    if not failed or failed % 1 ~= 0 then return refuse('report_stats', 'failed is not an integer') end
    records[i + 2] = failed
    local retried = tonumber(records[i + 3])
    if not retried or retried % 1 ~= 0 then return refuse('report_stats', 'retried is not an integer') end
    records[i + 3] = retried
    local aborted = tonumber(records[i + 4])
    if not aborted or aborted % 1 ~= 0 then return refuse('report_stats', 'aborted is not an integer') end
    records[i + 4] = aborted
    local run_ms = tonumber(records[i + 5])
    if not run_ms or run_ms % 1 ~= 0 then return refuse('report_stats', 'run_ms is not an integer') end
    records[i + 5] = run_ms
    local waits = tonumber(records[i + 6])
    if not waits or waits % 1 ~= 0 then return refuse('report_stats', 'waits is not an integer') end
    records[i + 6] = waits
    local wait_ms = tonumber(records[i + 7])
    if not wait_ms or wait_ms % 1 ~= 0 then return refuse('report_stats', 'wait_ms is not an integer') end
    records[i + 7] = wait_ms
  end
  local ok, reply = pcall(run, KEYS[1], { tasks = records })
  if is_packed and ok and type(reply) == 'table' and not reply.err then return cmsgpack.pack(reply) end
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_requeue', flags={}, callback=(function()
local run = (function()
return function(base, args)
  local batch, answers, records, damaged = batches.open(base, clock.read()), {}, {}, {}
  errors.read('ZCARD', keys.dead(base))
  for i, id in ipairs(args.tasks) do
    local record, err = task.read(base, id, { 'state', 'lane' })
    records[i] = record
    if err then
      answers[i] = err
    elseif record.state ~= 'failed' then
      answers[i] = 'not_dead'
    else
      local name = record.lane or task.DEFAULT_LANE
      if damaged[name] == nil then damaged[name] = lane.damage(base, name) or false end
      answers[i] = damaged[name] and damaged[name].err or 'queued'
    end
  end
  for i, id in ipairs(args.tasks) do
    if answers[i] == 'queued' then
      if task.read(base, id, { 'state' }).state == 'failed' then
        move.requeue(batch, id, records[i])
      else
        answers[i] = 'not_dead' -- named twice in this call
      end
    end
  end
  batches.close(batch)
  return answers
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  local records = ARGV
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV < 0 or #records > 1000 then return bad_call('requeue', KEYS, ARGV, '0 and 1 for each of up to 1000 tasks') end
  local ok, reply = pcall(run, KEYS[1], { tasks = records })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_requeue_with', flags={}, callback=(function()
local run = (function()
return function(base, args)
  errors.read('ZCARD', keys.dead(base))
  local record, err = task.read(base, args.id, { 'state', 'lane' })
  if err then return { err = err } end
  if record.state ~= 'failed' then return 'not_dead' end
  lane.check(base, record.lane or task.DEFAULT_LANE)
  local batch = batches.open(base, clock.read())
  move.requeue(batch, args.id, record, args)
  batches.close(batch)
  return 'queued'
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 5 then return bad_call('requeue_with', KEYS, ARGV, '5') end
  local ok, reply = pcall(run, KEYS[1], { id = ARGV[1], args = ARGV[2], kwargs = ARGV[3], codec = ARGV[4], headers = ARGV[5] })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_resume', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  local limit, id, named = args.limit, pauses.named(args)
  local rule = pauses.read(base, id)
  pauses.check(base, id)
  local is_over = args.resuming == 1 and not (rule and rule.resuming)
  if is_over or not rule and redis.call('EXISTS', keys.held(base, id)) == 0 then return { 'not_paused', 0, 0 } end
  local batch = batches.open(base, clock.read())
  local moved, left = move.give_back(batch, id, limit)
  if left then
    rule = rule or named
    local changed = not rule.resuming
    rule.resuming = true
    pauses.write(base, id, rule, changed)
  else
    pauses.remove(base, id)
  end
  batches.close(batch)
  pauses.wake_all(base)
  return { 'resumed', moved, left and moved > 0 and 1 or 0 }
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 5 then return bad_call('resume', KEYS, ARGV, '5') end
  local arg4 = integer(ARGV[4])
  if not arg4 or arg4 < 1 or arg4 > 1000 then return refuse('resume', 'limit is not an integer from 1 to 1000') end
  local arg5 = integer(ARGV[5])
  if not arg5 or arg5 < 0 or arg5 > 1 then return refuse('resume', 'resuming is not an integer from 0 to 1') end
  local ok, reply = pcall(run, KEYS[1], { task = ARGV[1], argument = ARGV[2], value = ARGV[3], limit = arg4, resuming = arg5 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_retry', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  return attempt.settle_one(base, args, 'retry', args.error,
    { traceback = args.traceback, delay_ms = args.delay_ms, max_age_ms = args.max_age_ms })
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 9 then return bad_call('retry', KEYS, ARGV, '9') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('retry', 'run_ms is not an integer') end
  local arg5 = integer(ARGV[5])
  if not arg5 then return refuse('retry', 'delay_ms is not an integer') end
  local arg6 = integer(ARGV[6])
  if not arg6 then return refuse('retry', 'max_age_ms is not an integer') end
  local arg9 = integer(ARGV[9])
  if not arg9 then return refuse('retry', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], id = ARGV[2], token = ARGV[3], run_ms = arg4, delay_ms = arg5, max_age_ms = arg6, error = ARGV[7], traceback = ARGV[8], result_ttl_ms = arg9 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_schedule', flags={'no-writes'}, callback=(function()
local run = (function()
return function(base, args)
  local due_at = schedule.due_at(base, args.name)
  return due_at and schedule.describe(base, { args.name, due_at }, {}) or {}
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 1 then return bad_call('schedule', KEYS, ARGV, '1') end
  local ok, reply = pcall(run, KEYS[1], { name = ARGV[1] })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_schedule_declare', flags={}, callback=(function()
local run = (function()
local RUNS_MS = 60000
local KNOWN_MS = 86400000
local MAX = 50
local function decode(text)
  local ok, value = pcall(cjson.decode, text or '')
  return ok and type(value) == 'table' and value or nil
end
local function noted_versions(text)
  local known = {}
  for _, entry in ipairs(decode(text) or {}) do
    local is_version = type(entry) == 'table' and type(entry[1]) == 'string' and type(entry[2]) == 'number'
    if is_version and type(entry[3]) == 'number' then known[#known + 1] = entry end
  end
  return known
end
local function noted_names(text)
  local known = {}
  for _, name in ipairs(decode(text) or {}) do
    if type(name) == 'string' then known[#known + 1] = name end
  end
  return known
end
local function after_silence(versions, now)
  local last = 0
  for _, entry in ipairs(versions) do last = math.max(last, entry[3]) end
  if now - last <= RUNS_MS / 2 then return end
  for _, entry in ipairs(versions) do
    if last - entry[3] <= RUNS_MS then entry[3] = now end
  end
end
local function seen(known, version, now)
  local versions, first, own_first = {}, now, nil
  for _, entry in ipairs(known) do
    if entry[1] == version then
      own_first = entry[2]
    elseif now - entry[3] <= KNOWN_MS then
      versions[#versions + 1] = entry
      first = math.max(first, entry[2] + 1)
    end
  end
  table.sort(versions, function(x, y) return x[3] > y[3] end)
  while #versions >= MAX do table.remove(versions) end
  versions[#versions + 1] = { version, own_first or first, now }
  table.sort(versions, function(x, y) return x[2] < y[2] or x[2] == y[2] and x[1] < y[1] end)
  return versions
end
return function(base, args)
  local meta, now, declared = keys.meta(base), clock.now(), {}
  local schedules = args.schedules
  for at = 1, #schedules, 3 do
    local name, definition = schedules[at], decode(schedules[at + 1])
    schedule.check(name, definition)
    declared[#declared + 1], declared[name] = name, definition
  end
  local known = errors.read('HMGET', meta, 'declared_version', 'declared_names', 'declared_seen')
  errors.read('HLEN', keys.schedules(base))
  errors.read('ZCARD', keys.schedule_due(base))
  if #declared == 0 and not known[1] then return { 'nothing' } end
  local names, known_versions = noted_names(known[2] or nil), noted_versions(known[3] or nil)
  if args.starting == 0 then after_silence(known_versions, now) end
  local versions, last = seen(known_versions, args.version, now), nil
  for _, entry in ipairs(versions) do
    if now - entry[3] <= RUNS_MS then last = entry[1] end
  end
  redis.call('HSET', meta, 'declared_seen', cjson.encode(versions))
  if last ~= args.version then return { 'superseded' } end
  if known[1] == args.version and args.starting == 0 then return { 'kept' } end
  local reply = { 'declared' }
  for _, name in ipairs(names) do
    local definition = not declared[name] and schedule.read(base, name)
    if definition and definition.source == 'code' then
      schedule.remove(base, name)
      reply[#reply + 1] = name
    end
  end
  for at = 1, #schedules, 3 do
    schedule.put(base, schedules[at], declared[schedules[at]], schedules[at + 2])
  end
  names = #declared > 0 and cjson.encode({ unpack(declared) }) or '[]'
  redis.call('HSET', meta, 'declared_version', args.version, 'declared_names', names)
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  local is_packed = #ARGV == 3
  local records
  if is_packed then records = unpacked(ARGV[3]) else records = behind(ARGV, 2) end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV < 2 or not records or #records > 3000 or #records % 3 ~= 0 then return bad_call('schedule_declare', KEYS, ARGV, '2 and 3 for each of up to 1000 schedules') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 0 or arg2 > 1 then return refuse('schedule_declare', 'starting is not an integer from 0 to 1') end
  for i = 1, #records, 3 do
    local next_due_at = tonumber(records[i + 2])
    if not next_due_at or next_due_at % 1 ~= 0 then return refuse('schedule_declare', 'next_due_at is not an integer') end
    records[i + 2] = next_due_at
  end
  local ok, reply = pcall(run, KEYS[1], { version = ARGV[1], starting = arg2, schedules = records })
  if is_packed and ok and type(reply) == 'table' and not reply.err then return cmsgpack.pack(reply) end
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_schedule_fire', flags={}, callback=(function()
local run = (function()
local GRACE_MS = 60000
local MAX_CAUGHT_UP = 100
local function judge(definition, due_at, now)
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
  local last = definition.coalesce and definition.last_id and task.read(base, definition.last_id, { 'state' })
  local runs, caught_up = judge(definition, due_at, now)
  local before, passed = last and last.state, nil
  if definition.paused then
    passed = 'paused'
  elseif not runs then
    passed = 'skipped'
  elseif before and before ~= 'running' and not task.is_finished(before) then
    passed = 'coalesced' -- once the one before runs, there is no backlog
  end
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
  if record.state and not task.is_finished(record.state) then return { 'exists', next_due_at, id } end
  if record.state then move.remove(base, id) end
  local batch, plan = batches.open(base, now, now_text), { fields = {} }
  local start_at = schedule.start_at(definition, due_at, id)
  local function add(field, value) plan.fields[#plan.fields + 1], plan.fields[#plan.fields + 2] = field, value end
  local headers = args.headers ~= '' and args.headers or definition.headers
  if headers then add('headers', headers) end
  if definition.result_ttl_ms then add('result_ttl_ms', clock.text(definition.result_ttl_ms)) end
  if start_at > now then
    plan.due_at = start_at
    add('due_at', clock.text(start_at))
  end
  move.create(batch, key, id, definition.task, definition.lane, definition.args or '', definition.kwargs or '', plan)
  batches.count(batch, 'enqueued')
  redis.call('SADD', keys.lanes(base), definition.lane)
  batches.close(batch)
  return { 'fired', next_due_at, id }
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 5 then return bad_call('schedule_fire', KEYS, ARGV, '5') end
  local arg2 = integer(ARGV[2])
  if not arg2 then return refuse('schedule_fire', 'due_at is not an integer') end
  local arg3 = integer(ARGV[3])
  if not arg3 then return refuse('schedule_fire', 'following_at is not an integer') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('schedule_fire', 'next_due_at is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { name = ARGV[1], due_at = arg2, following_at = arg3, next_due_at = arg4, headers = ARGV[5] })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_schedule_pause', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  local definition = schedule.read(base, args.name)
  if not definition then return 'not_found' end
  local paused = args.paused == 1
  if (definition.paused or false) == paused then return 'ok' end
  definition.paused = paused or nil
  schedule.write(base, args.name, definition)
  return 'ok'
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('schedule_pause', KEYS, ARGV, '2') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 0 or arg2 > 1 then return refuse('schedule_pause', 'paused is not an integer from 0 to 1') end
  local ok, reply = pcall(run, KEYS[1], { name = ARGV[1], paused = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_schedule_put', flags={}, callback=(function()
local run = (function()
return function(base, args)
  schedule.check(args.name, args.definition)
  errors.read('ZCARD', keys.schedule_due(base))
  return schedule.put(base, args.name, args.definition, args.next_due_at)
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 3 then return bad_call('schedule_put', KEYS, ARGV, '3') end
  local arg2 = json(ARGV[2])
  if not arg2 then return refuse('schedule_put', 'definition is not a JSON array or object') end
  local arg3 = integer(ARGV[3])
  if not arg3 then return refuse('schedule_put', 'next_due_at is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { name = ARGV[1], definition = arg2, next_due_at = arg3 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_schedule_remove', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  errors.read('ZSCORE', keys.schedule_due(base), args.name)
  errors.read('HLEN', keys.schedules(base))
  return schedule.remove(base, args.name) and 'removed' or 'not_found'
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 1 then return bad_call('schedule_remove', KEYS, ARGV, '1') end
  local ok, reply = pcall(run, KEYS[1], { name = ARGV[1] })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_schedules', flags={'no-writes'}, callback=(function()
local run = (function()
return function(base, args)
  if not string.find(args.cursor, '^%d+$') then errors.raise(errors.bad_argument('cursor must be a number')) end
  local page = errors.read('ZSCAN', keys.schedule_due(base), args.cursor, 'COUNT', args.limit)
  return schedule.describe(base, page[2], { page[1] })
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('schedules', KEYS, ARGV, '2') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 or arg2 > 1000 then return refuse('schedules', 'limit is not an integer from 1 to 1000') end
  local ok, reply = pcall(run, KEYS[1], { cursor = ARGV[1], limit = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_schedules_due', flags={'no-writes'}, callback=(function()
local run = (function()
return function(base, args)
  local key, now, limit = keys.schedule_due(base), clock.now(), args.limit
  local page = errors.read('ZRANGEBYSCORE', key, '-inf', clock.text(now), 'WITHSCORES', 'LIMIT', args.offset, limit)
  local following = errors.read('ZRANGEBYSCORE', key, '(' .. clock.text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return schedule.describe(base, page, { now, tonumber(following[2] or -1) })
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('schedules_due', KEYS, ARGV, '2') end
  local arg1 = integer(ARGV[1])
  if not arg1 or arg1 < 0 then return refuse('schedules_due', 'offset is not an integer from 0') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 or arg2 > 1000 then return refuse('schedules_due', 'limit is not an integer from 1 to 1000') end
  local ok, reply = pcall(run, KEYS[1], { offset = arg1, limit = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_snooze', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  return attempt.settle_one(base, args, 'snooze', args.reason,
    { delay_ms = args.delay_ms, max_age_ms = args.max_age_ms })
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 8 then return bad_call('snooze', KEYS, ARGV, '8') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('snooze', 'run_ms is not an integer') end
  local arg5 = integer(ARGV[5])
  if not arg5 then return refuse('snooze', 'delay_ms is not an integer') end
  local arg6 = integer(ARGV[6])
  if not arg6 then return refuse('snooze', 'max_age_ms is not an integer') end
  local arg8 = integer(ARGV[8])
  if not arg8 then return refuse('snooze', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], id = ARGV[2], token = ARGV[3], run_ms = arg4, delay_ms = arg5, max_age_ms = arg6, reason = ARGV[7], result_ttl_ms = arg8 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_stats', flags={'no-writes'}, callback=(function()
local run = (function()
return function(base, args)
  local now, first, last = stats.minutes(args)
  local reply = { now }
  for ago = first, last do
    local counts = redis.pcall('HMGET', keys.stats_minute(base, stats.minute(now) - ago), unpack(stats.COUNTERS))
    local is_damaged = errors.of(counts)
    reply[#reply + 1] = ago
    for i = 1, #stats.COUNTERS do reply[#reply + 1] = is_damaged and 0 or number.of(counts[i], 0) end
  end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('stats', KEYS, ARGV, '2') end
  local arg1 = integer(ARGV[1])
  if not arg1 or arg1 < 0 then return refuse('stats', 'minutes_ago is not an integer from 0') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 or arg2 > 120 then return refuse('stats', 'minutes is not an integer from 1 to 120') end
  local ok, reply = pcall(run, KEYS[1], { minutes_ago = arg1, minutes = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_step', flags={'allow-oom'}, callback=(function()
local run = (function()
local PROMOTE_LIMIT = 100
local DETAILS = { codec = 'string', traceback = 'string', delay_ms = 'number', max_age_ms = 'number' }
local NO_DETAILS = {}
local function read_outcomes(outcomes)
  for at = 1, #outcomes, 6 do
    local outcome, details = outcomes[at + 2], outcomes[at + 5]
    outcomes[at + 5] = details ~= '' and object.decode(details, DETAILS, 'details') or NO_DETAILS
    if not attempt.OUTCOMES[outcome] then errors.raise(errors.bad_argument('unknown outcome ' .. outcome)) end
  end
  return outcomes
end
local function repeat_step(base, worker, first_token, answers)
  local reply = { 1, -1, 0 }
  local ok, said = pcall(cjson.decode, answers or '[]')
  if ok and type(said) == 'table' and #said % 3 == 0 then
    reply[3] = #said / 3
    for i = 1, #said do reply[3 + i] = tostring(said[i]) end
  end
  if first_token ~= '' then claim.since(base, worker, number.of(first_token, 0), reply) end
  return reply
end
local function answer(refusals)
  local reply = { 0, -1, #refusals / 3, n = 3 + #refusals }
  for i = 1, #refusals do reply[3 + i] = refusals[i] end
  return reply
end
return function(base, args)
  local worker, seq, now, now_text = args.worker, args.seq, clock.read()
  local lanes, want = lane.names(args.lanes), math.min(args.want, 1000)
  local outcomes = read_outcomes(args.outcomes)
  member.require(base, worker)
  local row = keys.worker(base, worker)
  local last = errors.read('HMGET', row, 'seq', 'first_token', 'quarantined', 'passes', 'timer_at', 'answers',
    'idle', 'handed')
  local last_seq = number.of(last[1], 0)
  if seq < last_seq then errors.raise(errors.old_step(seq, last_seq)) end
  if seq > last_seq + 1 then errors.raise(errors.lost_steps(worker, seq, last_seq)) end
  local tokens = attempt.tokens(base, worker, outcomes)
  local pauses, waited_until = claim.check(base)
  member.renew(base, worker, now, args.lease_ms)
  if seq == last_seq then return repeat_step(base, worker, last[2] or '', last[6]) end
  local batch = batches.open(base, now, now_text)
  batch.pauses, batch.waited_until = pauses, waited_until
  attempt.settle(batch, worker, outcomes, tokens, args.result_ttl_ms)
  if batch.refusals then
    redis.call('HSET', row, 'answers', cjson.encode(batch.refusals))
  elseif last[6] then
    redis.call('HDEL', row, 'answers')
  end
  local more_due = move.promote(batch, PROMOTE_LIMIT)
  batches.flush(batch)
  local handed, first_handed = {}, last[8] and last[8] ~= '' and last[8]
  if first_handed then claim.since(base, worker, number.of(first_handed, 0), handed) end
  local reply, earlier = answer(batch.refusals or {}), { quarantined = last[3], passes = last[4] or nil }
  local from = reply.n
  local claimed, first_token, more = claim.take(batch, worker, lanes, want, earlier, args.result_ttl_ms, reply)
  if #handed > 0 then first_token = first_handed end
  if args.hand_off == 1 and want > 0 and claimed == 0 and more == 0 and #handed == 0 then
    local terms = { lanes = args.lanes, want = want, lease_ms = args.lease_ms, result_ttl_ms = args.result_ttl_ms }
    redis.call('HSET', row, 'seq', seq, 'first_token', first_token, 'idle', cjson.encode(terms), 'handed', '')
    member.offer(base, worker, lanes, batch.now_text)
  elseif last[7] and last[7] ~= '' or first_handed then
    redis.call('HSET', row, 'seq', seq, 'first_token', first_token, 'idle', '', 'handed', '')
  else
    redis.call('HSET', row, 'seq', seq, 'first_token', first_token)
  end
  batches.close(batch)
  if more_due then more = 1 end
  local wait_ms = -1
  if claimed == want then
    if last[5] then timer.drop(base, worker) end
  elseif claimed == 0 and more == 0 then
    wait_ms = timer.wait_ms(batch, worker)
  end
  if batch.refusals and #batch.refusals > from - 3 then
    local claims = reply
    reply = answer(batch.refusals)
    for i = from + 1, claims.n do reply[#reply + 1] = claims[i] end
  end
  local at = #reply
  for i = 1, #handed do reply[at + i] = handed[i] end
  reply[1], reply[2], reply.n = more, wait_ms, nil
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  local is_packed = #ARGV == 8
  local records
  if is_packed then records = unpacked(ARGV[8]) else records = behind(ARGV, 7) end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV < 7 or not records or #records > 6000 or #records % 6 ~= 0 then return bad_call('step', KEYS, ARGV, '7 and 6 for each of up to 1000 outcomes') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 then return refuse('step', 'seq is not an integer from 1') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 1 then return refuse('step', 'lease_ms is not an integer from 1') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('step', 'result_ttl_ms is not an integer') end
  local arg5 = json(ARGV[5])
  if not arg5 then return refuse('step', 'lanes is not a JSON array or object') end
  local arg6 = integer(ARGV[6])
  if not arg6 or arg6 < 0 then return refuse('step', 'want is not an integer from 0') end
  local arg7 = integer(ARGV[7])
  if not arg7 or arg7 < 0 or arg7 > 1 then return refuse('step', 'hand_off is not an integer from 0 to 1') end
  for i = 1, #records, 6 do
    local run_ms = tonumber(records[i + 3])
    if not run_ms or run_ms % 1 ~= 0 then return refuse('step', 'run_ms is not an integer') end
    records[i + 3] = run_ms
  end
  local ok, reply = pcall(run, KEYS[1], { worker = ARGV[1], seq = arg2, lease_ms = arg3, result_ttl_ms = arg4, lanes = arg5, want = arg6, hand_off = arg7, outcomes = records })
  if is_packed and ok and type(reply) == 'table' and not reply.err then return cmsgpack.pack(reply) end
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_stop_waiting', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  return errors.read('SREM', keys.waiters(base, args.id), args.mailbox)
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('stop_waiting', KEYS, ARGV, '2') end
  local ok, reply = pcall(run, KEYS[1], { id = ARGV[1], mailbox = ARGV[2] })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_task', flags={'no-writes'}, callback=(function()
local run = (function()
return function(base, args)
  return errors.read('HGETALL', keys.task(base, args.id))
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 1 then return bad_call('task', KEYS, ARGV, '1') end
  local ok, reply = pcall(run, KEYS[1], { id = ARGV[1] })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_task_stats', flags={'no-writes'}, callback=(function()
local run = (function()
return function(base, args)
  local now, first, last = stats.minutes(args)
  local reply = { now }
  for ago = first, last do
    local figures = redis.pcall('HGETALL', keys.task_stats(base, stats.minute(now) - ago))
    for i = 1, errors.of(figures) and 0 or #figures, 2 do
      local at = #reply
      reply[at + 1], reply[at + 2], reply[at + 3] = ago, figures[i], figures[i + 1]
    end
  end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('task_stats', KEYS, ARGV, '2') end
  local arg1 = integer(ARGV[1])
  if not arg1 or arg1 < 0 then return refuse('task_stats', 'minutes_ago is not an integer from 0') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 or arg2 > 120 then return refuse('task_stats', 'minutes is not an integer from 1 to 120') end
  local ok, reply = pcall(run, KEYS[1], { minutes_ago = arg1, minutes = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_watch', flags={'allow-oom'}, callback=(function()
local run = (function()
return function(base, args)
  if args.mailbox == '' then errors.raise(errors.bad_argument('mailbox must not be empty')) end
  local id = args.id
  local record, answer = ask.outcome(base, id, args.result_ttl_ms)
  if not record then return answer end
  mail.await(base, id, args.mailbox, args.waiter_ttl_ms)
  local now = clock.now()
  local watched_until = now + args.waiter_ttl_ms
  mail.note_wait(base, now, args.waiter_ttl_ms)
  if (tonumber(record.watched_until) or 0) < watched_until then
    redis.call('HSET', keys.task(base, id), 'watched_until', watched_until, 'tries', record.tries or '0')
  end
  mail.post(base, args.mailbox, { waiters.message(id, record) })
  return { 'unfinished', record.state }
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 4 then return bad_call('watch', KEYS, ARGV, '4') end
  local arg3 = integer(ARGV[3])
  if not arg3 or arg3 < 1 then return refuse('watch', 'waiter_ttl_ms is not an integer from 1') end
  local arg4 = integer(ARGV[4])
  if not arg4 then return refuse('watch', 'result_ttl_ms is not an integer') end
  local ok, reply = pcall(run, KEYS[1], { id = ARGV[1], mailbox = ARGV[2], waiter_ttl_ms = arg3, result_ttl_ms = arg4 })
  if ok then return reply end
  return failed(reply)
end
end)()}
redis.register_function{function_name='ardiq_v1_workers', flags={'no-writes'}, callback=(function()
local run = (function()
local FIELDS = { 'joined_at', 'abandoned_threads', 'stalled_since', 'info', 'lanes' }
return function(base, args)
  if not string.find(args.cursor, '^%d+$') then errors.raise(errors.bad_argument('cursor must be a number')) end
  local key, now = keys.workers(base), clock.now()
  local page = errors.read('ZSCAN', key, args.cursor, 'COUNT', args.limit)
  local reply = { page[1], now, errors.read('ZCOUNT', key, clock.text(now), '+inf') }
  for i = 1, #page[2], 2 do
    local worker, at = page[2][i], #reply
    local claimed = redis.pcall('HLEN', keys.running(base, worker))
    local row = redis.pcall('HMGET', keys.worker(base, worker), unpack(FIELDS))
    reply[at + 1], reply[at + 2] = worker, tonumber(page[2][i + 1])
    reply[at + 3] = errors.of(claimed) and 0 or claimed
    for f = 1, #FIELDS do reply[at + 3 + f] = not errors.of(row) and row[f] or '' end
  end
  return reply
end
end)()
return function(KEYS, ARGV)
  if not type then fetch_globals() end
  if #KEYS ~= 1 or not is_base(KEYS[1]) or #ARGV ~= 2 then return bad_call('workers', KEYS, ARGV, '2') end
  local arg2 = integer(ARGV[2])
  if not arg2 or arg2 < 1 or arg2 > 100 then return refuse('workers', 'limit is not an integer from 1 to 100') end
  local ok, reply = pcall(run, KEYS[1], { cursor = ARGV[1], limit = arg2 })
  if ok then return reply end
  return failed(reply)
end
end)()}
