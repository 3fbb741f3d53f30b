-- The only file that moves a task between states. Moves happen within a batch (batch.lua), which does once for all of
-- them what need not be done for each.
local M = {}

local CLAIM = { 'state', 'name', 'args', 'kwargs', 'codec', 'headers', 'lane', 'tries', 'enqueued_at' }
local HELD = { 'state', 'lane', 'tries', 'lost', 'abort_requested', 'worker', 'enqueued_at', 'history' }
-- What a record loses with its holder, with a settled attempt, and when a dead letter starts anew.
local HOLDER = { 'worker', 'started_at' }
local SUSPECTED = { 'worker', 'started_at', 'lost' }
local EARLIER_LIFE = { 'tries', 'lost', 'error', 'traceback', 'history', 'started_at', 'finished_at', 'worker',
  'due_at', 'expires_at', 'abort_requested' }
-- What is left of a record that was discarded.
local OUTLIVES = { 'state', 'name', 'lane', 'call', 'tries', 'enqueued_at', 'started_at', 'finished_at', 'error' }
-- The lane of a record that somebody took its lane from.
local DEFAULT = 'default'

-- Fields of a record by name, or nil and the error text when the key holds something else.
local function read(base, id, fields)
  local values = redis.pcall('HMGET', keys.task(base, id), unpack(fields))
  local err = errors.of(values)
  if err then return nil, errors.wrong_type(keys.task(base, id)).err end
  local record = {}
  for i, field in ipairs(fields) do record[field] = values[i] or nil end
  return record
end
M.read = read

-- The outcomes an attempt can be settled with.
M.OUTCOMES = { complete = true, failed = true, retry = true, snooze = true, aborted = true, release = true }

function M.is_finished(state)
  return state == 'complete' or state == 'failed' or state == 'aborted' or state == 'expired' or state == 'discarded'
end

-- What becomes of a record whose last write is `written`: kept for a time, for ever as a dead letter, or not at all.
local function ended(b, id, key, counter, written, ttl_ms)
  if type(written) == 'table' then return errors.wrong_type(key).err end
  batch.count(b, counter)
  b.finished[#b.finished + 1] = id
  if ttl_ms > 0 then
    b.ttl_text = b.ttl_text or clock.text(ttl_ms)
    redis.call('PEXPIRE', key, b.ttl_text)
  elseif ttl_ms == 0 then
    b.removed[#b.removed + 1] = key
  end
end

-- any -> failed, aborted, expired, discarded. `fields`: more names and values to write, flat.
local function finish(b, id, state, fields, ttl_ms)
  local key = keys.task(b.base, id)
  local written = redis.pcall('HSET', key, 'state', state, 'finished_at', b.now_text, unpack(fields))
  if state == 'failed' and type(written) == 'number' then redis.call('ZADD', keys.dead(b.base), b.now_text, id) end
  return ended(b, id, key, state, written, ttl_ms)
end

-- running -> aborted.
local function abort(b, id, ttl_ms)
  return finish(b, id, 'aborted', { 'error', 'aborted' }, ttl_ms)
end

-- Out of the place of a task that waits. An entry of a ready list cannot be taken out of its middle: it gets a tombstone.
local function take_out(b, id, record)
  if record.state == 'scheduled' then
    errors.read('ZREM', keys.scheduled(b.base), id)
  elseif record.state == 'held' then
    errors.read('ZREM', keys.held(b.base, record.held_by or ''), id)
    redis.call('HDEL', keys.task(b.base, id), 'held_by')
  elseif errors.read('ZREM', keys.suspects(b.base), id) == 0 then
    errors.read('SADD', keys.tombs(b.base, record.lane or DEFAULT), id)
  end
end

-- queued, scheduled, held -> aborted.
function M.abort_waiting(b, id, record, ttl_ms)
  take_out(b, id, record)
  return abort(b, id, ttl_ms)
end

-- queued, scheduled, held -> expired, for a task that somebody asks about before a worker comes upon it. Replies whether.
function M.expire_waiting(b, id, record, ttl_ms)
  local is_waiting = record.state == 'queued' or record.state == 'scheduled' or record.state == 'held'
  if not (is_waiting and (tonumber(record.expires_at) or math.huge) <= b.now) then return false end
  take_out(b, id, record)
  finish(b, id, 'expired', { 'error', 'expired' }, ttl_ms)
  return true
end

-- running -> failed: a dead letter.
local function bury(b, id, error_text, traceback, more_fields)
  local obstacle = batch.obstacle(b, 'ZCARD', keys.dead(b.base))
  if obstacle then return obstacle, true end
  local fields = more_fields or {}
  fields[#fields + 1], fields[#fields + 2] = 'error', error_text
  if traceback and traceback ~= '' then fields[#fields + 1], fields[#fields + 2] = 'traceback', traceback end
  return finish(b, id, 'failed', fields, -1)
end

-- running, scheduled, held, failed -> queued, with what else to write to its record and, first, which fields to drop.
local function make_ready(b, id, record, fields, dropped, lists)
  local lane_name = record.lane
  if not lane_name then
    lane_name = DEFAULT
    fields[#fields + 1], fields[#fields + 2] = 'lane', lane_name
  end
  local obstacle = batch.obstacle(b, 'LLEN', keys.ready(b.base, lane_name))
  if obstacle then return obstacle, true end
  local key = keys.task(b.base, id)
  if dropped then redis.call('HDEL', key, unpack(dropped)) end
  redis.call('HSET', key, 'state', 'queued', unpack(fields))
  batch.push(lists or b.back, lane_name, id)
end

-- none, running -> scheduled.
local function schedule(b, id, lane_name, due_at)
  redis.call('ZADD', keys.scheduled(b.base), due_at, id)
  if not b.first_due or due_at < b.first_due then
    b.first_due, b.first_due_lane = due_at, lane_name
  end
end

-- none -> queued, scheduled. `t`: id, name, lane, args, kwargs; `plan`: when it falls due, more fields to write.
function M.create(b, key, t, plan)
  local state, args = plan.due_at and 'scheduled' or 'queued', t.args ~= '' and t.args or '[]'
  if t.kwargs == '' and not plan.fields then
    redis.call('HSET', key, 'state', state, 'name', t.name, 'args', args, 'lane', t.lane, 'enqueued_at', b.now_text)
  else
    local more = plan.fields or {}
    if t.kwargs ~= '' then more[#more + 1], more[#more + 2] = 'kwargs', t.kwargs end
    redis.call('HSET', key, 'state', state, 'name', t.name, 'args', args, 'lane', t.lane, 'enqueued_at', b.now_text,
      unpack(more))
  end
  if plan.due_at then schedule(b, t.id, t.lane, plan.due_at) else batch.push(b.back, t.lane, t.id) end
  batch.count(b, 'enqueued')
  return state
end

-- scheduled -> queued for up to `limit` tasks that are due; those whose lane is damaged are put behind the others.
-- Replies whether as many as that were due.
function M.promote(b, limit)
  local scheduled = keys.scheduled(b.base)
  local due = redis.pcall('ZRANGEBYSCORE', scheduled, '-inf', b.now_text, 'LIMIT', 0, limit)
  if due.err then batch.refuse(b, '', '', errors.wrong_type(scheduled).err) end
  if due.err or #due == 0 then return false end
  local gone, stuck = {}, {}
  for _, id in ipairs(due) do
    local record, err, stays = read(b.base, id, { 'state', 'lane' })
    if record and record.state == 'scheduled' then
      err, stays = make_ready(b, id, record, {})
    elseif record then
      batch.count(b, 'ghosts')
    end
    if err then batch.refuse(b, id, '', err) end
    if stays then
      stuck[#stuck + 1], stuck[#stuck + 2] = b.now + batch.STUCK_MS, id
    else
      gone[#gone + 1] = id
    end
  end
  if #stuck > 0 then redis.call('ZADD', scheduled, unpack(stuck)) end
  if #gone > 0 then redis.call('ZREM', scheduled, unpack(gone)) end
  return #due == limit
end

-- The history of a record with the attempt that just ended.
local function attempted(b, record, run_ms, error_text)
  return history.add(record.history, tonumber(record.tries or 1), b.now, run_ms, record.worker, error_text)
end

-- running -> queued, aborted, failed: a worker no longer holds the task. `lost`: it died with it. Replies an error text
-- or nil, and whether the task stays where it is because of a damaged key.
local function hand_back(b, id, ttl_ms, lost, max_lost)
  local record, err = read(b.base, id, HELD)
  if err then return err end
  if record.state ~= 'running' then
    batch.count(b, 'ghosts')
    return 'not_found'
  end
  local key = keys.task(b.base, id)
  local times = tonumber(record.lost or 0) + (lost and 1 or 0)
  local fields = { 'tries', math.max(tonumber(record.tries or 1) - 1, 0) }
  if times > 0 then fields[3], fields[4] = 'lost', times end
  if lost then
    fields[5], fields[6] = 'history', attempted(b, record, nil, 'its worker died')
  end
  local stays
  if record.abort_requested then
    redis.call('HDEL', key, 'worker', 'started_at')
    return abort(b, id, ttl_ms)
  elseif lost and times > max_lost then
    fields[2] = record.tries or '0'
    err, stays = bury(b, id, 'poison: ' .. times .. ' workers died while holding this task', nil, fields)
    if not err then redis.call('HDEL', key, 'worker', 'started_at') end
  elseif times >= 2 then
    err = batch.obstacle(b, 'ZCARD', keys.suspects(b.base))
    stays = err and true
    if not err then
      redis.call('HDEL', key, 'worker', 'started_at')
      redis.call('HSET', key, 'state', 'queued', unpack(fields))
      redis.call('ZADD', keys.suspects(b.base), b.now, id)
      local name = record.lane or DEFAULT
      b.suspects[name] = (b.suspects[name] or 0) + 1
    end
  else
    err, stays = make_ready(b, id, record, fields, HOLDER, b.front)
  end
  if not err then batch.count(b, lost and 'lost' or 'released') end
  return err, stays
end

-- running -> complete.
local function complete(b, o, ttl_ms)
  local key = keys.task(b.base, o.id)
  local started_at = o.run_ms == 0 and b.now_text or clock.text(b.now - o.run_ms)
  local written
  if o.codec and o.codec ~= '' then
    written = redis.pcall('HSET', key, 'state', 'complete', 'started_at', started_at, 'finished_at', b.now_text,
      'result', o.value, 'result_codec', o.codec)
  else
    written = redis.pcall('HSET', key, 'state', 'complete', 'started_at', started_at, 'finished_at', b.now_text,
      'result', o.value)
  end
  -- All of them new fields: somebody deleted the record. Half of one must not come back.
  if written == (o.codec and o.codec ~= '' and 5 or 4) then
    redis.call('DEL', key)
    batch.count(b, 'ghosts')
    return 'not_found'
  end
  return ended(b, o.id, key, 'completed', written, ttl_ms)
end

-- running -> scheduled, queued, aborted; failed where the next attempt would come later than `max_age_ms` allows. A
-- snooze is no failure: it spends no try and is no part of the history.
local function try_again(b, o, record, ttl_ms)
  if record.abort_requested then return abort(b, o.id, ttl_ms) end
  local snoozed, delay_ms = o.outcome == 'snooze', math.max(math.floor(o.delay_ms or 0), 0)
  local fields, err, stays
  if snoozed then
    fields = { 'tries', math.max(tonumber(record.tries or 1) - 1, 0) }
  else
    fields = { 'error', o.value, 'history', attempted(b, record, o.run_ms, o.value) }
    if o.traceback and o.traceback ~= '' then fields[5], fields[6] = 'traceback', o.traceback end
  end
  if (o.max_age_ms or 0) > 0 and b.now + delay_ms - tonumber(record.enqueued_at or b.now) > o.max_age_ms then
    return bury(b, o.id, o.value .. ' (older than its max_age of ' .. clock.text(o.max_age_ms) .. ' ms)', nil, fields)
  end
  local counter = snoozed and 'snoozed' or 'retried'
  if delay_ms == 0 then
    err, stays = make_ready(b, o.id, record, fields, SUSPECTED)
    if not err then batch.count(b, counter) end
    return err, stays
  end
  err = batch.obstacle(b, 'ZCARD', keys.scheduled(b.base))
  if err then return err, true end
  local key, due_at = keys.task(b.base, o.id), b.now + delay_ms
  redis.call('HDEL', key, unpack(SUSPECTED))
  redis.call('HSET', key, 'state', 'scheduled', 'due_at', due_at, unpack(fields))
  schedule(b, o.id, record.lane or DEFAULT, due_at)
  batch.count(b, counter)
end

-- One outcome of an attempt that is known to be the holder's. Replies as `hand_back`.
local function settle(b, o, ttl_ms)
  -- The one outcome that does not look first: it is most of them.
  if o.outcome == 'complete' then return complete(b, o, ttl_ms) end
  if o.outcome == 'release' then return hand_back(b, o.id, ttl_ms, false) end
  local record, err = read(b.base, o.id, HELD)
  if err then return err end
  if record.state ~= 'running' then
    batch.count(b, 'ghosts')
    return 'not_found'
  end
  if o.outcome == 'retry' or o.outcome == 'snooze' then
    return try_again(b, o, record, ttl_ms)
  elseif o.outcome == 'failed' then
    return bury(b, o.id, o.value, o.traceback,
      { 'started_at', b.now - o.run_ms, 'history', attempted(b, record, o.run_ms, o.value) })
  end
  return abort(b, o.id, ttl_ms)
end

-- The lease tokens that the worker holds for these outcomes; to be asked before anything is written.
function M.tokens(base, worker, outcomes)
  local running, ids = keys.running(base, worker), {}
  for i = 1, #outcomes do ids[i] = outcomes[i].id end
  if #ids == 0 then return errors.read('HLEN', running) end
  return errors.read('HMGET', running, unpack(ids))
end

-- Settle attempts of one worker; `outcomes`: {id, token, outcome, run_ms, value} each, some with codec, traceback,
-- delay_ms, max_age_ms.
-- Those it does not hold (`stale`), whose record was deleted (`not_found`), and whose record or new place is damaged are
-- refused. Replies how many it no longer holds.
function M.settle(b, worker, outcomes, tokens, ttl_ms)
  local settled, seen = {}, {}
  for i = 1, #outcomes do
    local o = outcomes[i]
    if tokens[i] == o.token and not seen[o.id] then
      seen[o.id] = true
      local err, stays = settle(b, o, ttl_ms)
      if err then batch.refuse(b, o.id, o.token, err) end
      if not stays then settled[#settled + 1] = o.id end
    else
      batch.refuse(b, o.id, o.token, 'stale')
    end
  end
  if #settled > 0 then redis.call('HDEL', keys.running(b.base, worker), unpack(settled)) end
  return #settled
end

-- One outcome by its own transition. Replies `ok`, `stale` or, where it was asked to abort meanwhile, `aborted`.
function M.settle_one(base, args, outcome)
  member.require(base, args.worker)
  outcome.id, outcome.token, outcome.run_ms = args.id, args.token, args.run_ms or 0
  local outcomes = { outcome }
  local tokens, b = M.tokens(base, args.worker, outcomes), batch.open(base, clock.now())
  local settled, refusal = M.settle(b, args.worker, outcomes, tokens, args.result_ttl_ms), b.refusals[3]
  batch.close(b)
  if refusal and refusal ~= 'stale' and settled == 0 then return { err = refusal } end
  return refusal or b.counters.aborted and 'aborted' or 'ok'
end

-- running -> running. The wish to abort survives the worker in the record, and the worker is told: by token, since by
-- the time it hears of it a later task may have the id.
function M.ask_abort(base, id, worker)
  local mailbox = worker and errors.read('HGET', keys.worker(base, worker), 'mailbox')
  local token = mailbox and errors.read('HGET', keys.running(base, worker), id)
  if token then errors.read('SADD', keys.aborts(base, worker), id) end
  redis.call('HSET', keys.task(base, id), 'abort_requested', 1)
  if token then mail.post(base, mailbox, { mail.pack('abort', id, token) }) end
end

-- queued, scheduled, held, failed -> discarded: taken out of its place already. The record shrinks to its outcome, which for a
-- dead letter stays what it was, and is kept as long as a result.
function M.discard(b, id, state, ttl_ms)
  local record = read(b.base, id, OUTLIVES)
  if not record or record.state ~= state then
    batch.count(b, 'ghosts')
    return false
  end
  record.state, record.error = 'discarded', state == 'failed' and record.error or 'discarded'
  record.finished_at = state == 'failed' and record.finished_at or b.now_text
  local key, fields = keys.task(b.base, id), {}
  for _, name in ipairs(OUTLIVES) do
    if record[name] then fields[#fields + 1], fields[#fields + 2] = name, record[name] end
  end
  redis.call('DEL', key)
  ended(b, id, key, 'discarded', redis.call('HSET', key, unpack(fields)), ttl_ms)
  return true
end

-- queued -> held under a pause, where it is not looked at again until that ends.
local function hold(b, id, key, lane_name, pause_id)
  local obstacle = batch.obstacle(b, 'ZCARD', keys.held(b.base, pause_id))
  if not obstacle then
    redis.call('HSET', key, 'state', 'held', 'held_by', pause_id)
    batch.push(b.held, pause_id, id)
    return batch.count(b, 'held')
  end
  -- Where it cannot be held it goes to the end of its lane, and nobody is woken for it.
  if not b.is_stuck then batch.refuse(b, id, '', obstacle) end
  b.is_stuck = true
  redis.pcall('RPUSH', keys.ready(b.base, lane_name or DEFAULT), id)
end

-- held -> queued for up to `limit` tasks of a pause, to the front of their lanes: each portion in its order, the last
-- ones first, so that all lie in their order when the last portion is through. Replies how many were moved, and whether
-- any is left.
function M.give_back(b, pause_id, limit)
  local place, moved = keys.held(b.base, pause_id), {}
  local ids = redis.pcall('ZREVRANGE', place, 0, limit - 1)
  if errors.of(ids) then return 0, true end
  for i = #ids, 1, -1 do
    local id = ids[i]
    local record, err, stays = read(b.base, id, { 'state', 'lane', 'held_by' })
    if record and record.state == 'held' and record.held_by == pause_id then
      err, stays = make_ready(b, id, record, {}, { 'held_by' }, b.front)
    elseif record then
      batch.count(b, 'ghosts')
    end
    if err then batch.refuse(b, id, '', err) end
    if not stays then moved[#moved + 1] = id end
  end
  if #moved > 0 then redis.call('ZREM', place, unpack(moved)) end
  return #moved, redis.call('EXISTS', place) == 1
end

-- queued -> running, expired, held for one id. Appends a claim (its token still open) to `claims` and replies whether it did.
local function start(b, id, worker, ttl_ms, claims)
  local key = keys.task(b.base, id)
  local r = redis.pcall('HMGET', key, 'state', 'name', 'args', 'lane', 'enqueued_at', 'tries', 'kwargs', 'codec',
    'headers', 'expires_at')
  if r.err then
    batch.refuse(b, id, '', errors.wrong_type(key).err)
    return false
  end
  if r[1] ~= 'queued' then
    batch.count(b, 'ghosts')
    return false
  end
  if r[10] and tonumber(r[10]) <= b.now then
    finish(b, id, 'expired', { 'error', 'expired' }, ttl_ms)
    return false
  end
  -- The one place that asks whether a task may start now.
  if b.pauses then
    local pause_id, unreadable = pause.match(b.pauses, r[2], r[3], r[7], r[8])
    if unreadable then batch.count(b, 'unreadable') end
    if pause_id then
      hold(b, id, key, r[4], pause_id)
      return false
    end
  end
  local tries = r[6] and clock.text(r[6] + 1) or '1'
  redis.call('HSET', key, 'state', 'running', 'worker', worker, 'started_at', b.now_text, 'tries', tries)
  local n = claims.n
  claims[n + 1], claims[n + 3], claims[n + 4], claims[n + 5] = id, r[2] or '', r[3] or '', r[7] or ''
  claims[n + 6], claims[n + 7], claims[n + 8] = r[8] or '', r[9] or '', r[4] or ''
  claims[n + 9], claims[n + 10] = tries, r[5] or '0'
  claims.n = n + 10
  return true
end

-- Whether a suspect falls under a pause. It stays where it is, so that it is a suspect still when that ends.
local function is_paused(b, id)
  local record = b.pauses and read(b.base, id, { 'name', 'args', 'kwargs', 'codec' })
  return record and pause.match(b.pauses, record.name, record.args, record.kwargs, record.codec)
end

-- A task that killed workers before is handed out alone among its like, so that the guilty one shows itself.
-- `held`: the suspect this worker was handed last. Replies how many were claimed: 0 or 1.
local function start_suspect(b, worker, lanes, held, ttl_ms, claims)
  local suspects = keys.suspects(b.base)
  local waiting = redis.pcall('ZRANGE', suspects, 0, 7)
  if errors.of(waiting) or #waiting == 0 then return 0 end
  if held and redis.call('HEXISTS', keys.running(b.base, worker), held) == 1 then return 0 end
  local served = {}
  for _, name in ipairs(lanes) do served[name] = not (lanes.most and lanes.most[name] == 0) end
  for _, id in ipairs(waiting) do
    local name = redis.pcall('HGET', keys.task(b.base, id), 'lane')
    if type(name) ~= 'string' or served[name] and not is_paused(b, id) then
      redis.call('ZREM', suspects, id)
      if start(b, id, worker, ttl_ms, claims) then
        redis.call('HSET', keys.worker(b.base, worker), 'suspect', id)
        if lanes.most and lanes.most[name] then lanes.most[name] = lanes.most[name] - 1 end
        return 1
      end
    else
      -- To the end, so that those which nobody may take do not hide the others.
      redis.call('ZADD', suspects, b.now, id)
    end
  end
  return 0
end

-- Refuse a claim while nothing is written yet: what it writes last must be writable. Replies what is paused, or nil.
function M.check_claim(base)
  return pause.load(base, errors.read('HMGET', keys.meta(base), 'token', 'paused')[2])
end

-- queued -> running for up to `want` tasks of the lanes: in their order, or shared by their weights, with what the row
-- of the worker (`row`: suspect, passes) says of earlier claims. `claims` ({n = 0}) is filled with flat records.
-- Replies how many, the first of their tokens (they are consecutive), and 1 if ready work is left, else 0.
function M.claim(b, worker, lanes, want, row, ttl_ms, claims)
  local base, taken, first_token = b.base, 0, ''
  if b.pauses and b.pauses.whole then return 0, '', 0 end
  local budget, most, is_empty = 4 * want + 100, lanes.most or {}, {}

  -- Up to `count` tasks of one lane; replies how many, and whether there is no more to be had.
  local function take(name, count)
    local got, limit = 0, math.min(count, most[name] or count)
    while got < limit and budget > 0 do
      local asked = math.min(limit - got, budget)
      local ids, looked, err = lane.pop(base, name, asked)
      if err then batch.refuse(b, '', '', err) end
      budget = budget - looked
      for i = 1, #ids do
        if start(b, ids[i], worker, ttl_ms, claims) then got = got + 1 end
      end
      if looked < asked then
        is_empty[name] = not err and not b.is_stuck
        break
      end
    end
    if most[name] then most[name] = most[name] - got end
    return got, got < count
  end

  if want > 0 then
    taken = start_suspect(b, worker, lanes, row.suspect, ttl_ms, claims)
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
    local held = {}
    for i = 0, taken - 1 do
      local at, token = 10 * i, clock.text(first_token + i)
      claims[at + 2] = token
      held[2 * i + 1], held[2 * i + 2] = claims[at + 1], token
    end
    redis.call('HSET', keys.running(base, worker), unpack(held))
    batch.count(b, 'claimed', taken)
  end
  if taken == 0 and b.is_stuck then return 0, '', 0 end
  return taken, first_token, lane.settle_tokens(base, lanes, is_empty)
end

-- The claims of an earlier step again, after its reply was lost: what the worker holds from `first_token` on.
function M.claims_since(base, worker, first_token, reply)
  local held, found = redis.call('HGETALL', keys.running(base, worker)), {}
  for i = 1, #held, 2 do
    local token = tonumber(held[i + 1])
    if token >= first_token then found[#found + 1] = { id = held[i], token = token } end
  end
  table.sort(found, function(x, y) return x.token < y.token end)
  for _, claim in ipairs(found) do
    local r = read(base, claim.id, CLAIM)
    if r and r.state == 'running' then
      local at = #reply
      reply[at + 1], reply[at + 2] = claim.id, clock.text(claim.token)
      for i = 2, #CLAIM do reply[at + i + 1] = r[CLAIM[i]] or '' end
    end
  end
end

-- running -> queued, aborted, failed for up to `limit` tasks of a worker that is gone. Replies how many were moved,
-- whether any is left, and whether any of those was not tried yet. The whole hash is read: it is bounded by what one
-- worker can hold. What a damaged key keeps from a lost one goes behind the rest, with minus the time as its token.
function M.take_from(b, worker, limit, ttl_ms, lost, max_lost)
  local running, held, moved = keys.running(b.base, worker), {}, {}
  local entries = redis.call('HGETALL', running)
  for i = 1, #entries, 2 do held[#held + 1] = { id = entries[i], token = tonumber(entries[i + 1]) } end
  -- Each portion goes to the front of the lane, so the newest claims come first, and within it the oldest.
  table.sort(held, function(x, y) return x.token < y.token end)
  local stuck = {}
  for i = math.max(#held - limit + 1, 1), #held do
    local _, stays = hand_back(b, held[i].id, ttl_ms, lost, max_lost)
    if stays then
      stuck[#stuck + 1], stuck[#stuck + 2] = held[i].id, clock.text(-b.now)
    else
      moved[#moved + 1] = held[i].id
    end
  end
  if lost and #stuck > 0 then redis.call('HSET', running, unpack(stuck)) end
  if #moved > 0 then redis.call('HDEL', running, unpack(moved)) end
  local next_one = held[#held - limit]
  return #moved, #moved < #held, next_one and next_one.token > 0
end

-- Whatever its record says of where it is, its place does not know it: it is put there, and what runs nowhere is queued
-- again (what a pause should hold, too: it will be held), aborted where that was asked for. Replies an error text when the place is damaged.
function M.put_in_place(b, id, ttl_ms)
  local record, err = read(b.base, id, { 'state', 'lane', 'lost', 'due_at', 'finished_at' })
  if err then return err end
  if record.state == 'running' then return (hand_back(b, id, ttl_ms, false)) end
  if record.state == 'held' then return (make_ready(b, id, record, {}, { 'held_by' }, b.front)) end
  local key = record.state == 'scheduled' and keys.scheduled or record.state == 'failed' and keys.dead
    or place.FITS.suspects(record) and keys.suspects
  if not key then return 'by_hand' end
  err = batch.obstacle(b, 'ZCARD', key(b.base))
  if err then return err end
  local lane_name = record.lane or DEFAULT
  if record.state == 'scheduled' then
    schedule(b, id, lane_name, tonumber(record.due_at or b.now))
  else
    redis.call('ZADD', key(b.base), record.finished_at or b.now_text, id)
    if record.state == 'queued' then b.suspects[lane_name] = (b.suspects[lane_name] or 0) + 1 end
  end
end

-- failed -> queued: a dead letter runs again as if new; `call`: with these args, kwargs and codec instead of its own.
function M.revive(b, id, record, call)
  local fields = { 'enqueued_at', b.now_text }
  redis.call('ZREM', keys.dead(b.base), id)
  if call then
    redis.call('HDEL', keys.task(b.base, id), 'kwargs', 'codec')
    for _, name in ipairs({ 'args', 'kwargs', 'codec' }) do
      if call[name] ~= '' then fields[#fields + 1], fields[#fields + 2] = name, call[name] end
    end
  end
  batch.count(b, 'requeued')
  make_ready(b, id, record, fields, EARLIER_LIFE)
end

-- A finished record makes room for a new task under its id.
function M.erase(base, id)
  redis.call('DEL', keys.task(base, id))
  redis.call('ZREM', keys.dead(base), id)
end

return M
