-- What a claim does with a task that is ready: a worker holds it, or it has expired, or it is held by a pause.
local M = {}

-- What a worker is told of a claim.
local CLAIM = { 'state', 'name', 'args', 'kwargs', 'codec', 'headers', 'lane', 'tries', 'enqueued_at' }

-- queued -> held under a pause, where it is not looked at again until that ends.
local function hold(b, id, key, lane_name, pause_id, watched_until)
  local obstacle = batch.obstacle(b, 'ZCARD', keys.held(b.base, pause_id))
  if not obstacle then
    redis.call('HSET', key, 'state', 'held', 'held_by', pause_id)
    batch.push(b.held, pause_id, id)
    waiters.changed(b.base, b.now, id, watched_until)
    return batch.count(b, 'held')
  end
  -- Where it cannot be held it goes to the end of its lane, and nobody is woken for it.
  if not b.is_stuck then batch.refuse(b, id, '', obstacle) end
  b.is_stuck = true
  redis.pcall('RPUSH', keys.ready(b.base, lane_name or task.DEFAULT_LANE), id)
end

-- queued -> running, expired, held for one id. Appends a claim (its token still open) to `claims` and replies whether it did.
local function start(b, id, worker, ttl_ms, claims)
  local key = keys.task(b.base, id)
  local r = redis.pcall('HMGET', key, 'state', 'name', 'args', 'lane', 'enqueued_at', 'tries', 'kwargs', 'codec',
    'headers', 'expires_at', 'watched_until', 'result_ttl_ms')
  if r.err then
    batch.refuse(b, id, '', errors.wrong_type(key).err)
    return false
  end
  if r[1] ~= 'queued' then
    batch.count(b, 'ghosts')
    return false
  end
  if r[10] and number.of(r[10], b.now + 1) <= b.now then
    move.finish(b, id, 'expired', { 'error', 'expired' }, number.of(r[12], ttl_ms))
    return false
  end
  -- The one place that asks whether a task may start now.
  if b.pauses then
    local pause_id, unreadable = pause.match(b.pauses, r[2], r[3], r[7], r[8])
    if unreadable then batch.count(b, 'unreadable') end
    if pause_id then
      hold(b, id, key, r[4], pause_id, r[11])
      return false
    end
  end
  local tries = r[6] and clock.text(number.of(r[6], 0) + 1) or '1'
  redis.call('HSET', key, 'state', 'running', 'worker', worker, 'started_at', b.now_text, 'tries', tries)
  waiters.changed(b.base, b.now, id, r[11])
  local n = claims.n
  if r[12] then
    b.own_ttls = b.own_ttls or {}
    b.own_ttls[id] = r[12]
  end
  claims[n + 1], claims[n + 3], claims[n + 4], claims[n + 5] = id, r[2] or '', r[3] or '', r[7] or ''
  claims[n + 6], claims[n + 7], claims[n + 8] = r[8] or '', r[9] or '', r[4] or ''
  claims[n + 9], claims[n + 10] = tries, r[5] or '0'
  claims.n = n + 10
  return true
end

-- Whether a suspect falls under a pause. It stays where it is, so that it is a suspect still when that ends.
local function is_paused(b, id)
  local record = b.pauses and task.read(b.base, id, { 'name', 'args', 'kwargs', 'codec' })
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
function M.check(base)
  local meta = errors.read('HMGET', keys.meta(base), 'token', 'paused')
  if meta[1] and not number.of(meta[1]) then errors.raise(errors.wrong_type(keys.meta(base))) end
  return pause.load(base, meta[2])
end

-- queued -> running for up to `want` tasks of the lanes: in their order, or shared by their weights, with what the row
-- of the worker (`row`: suspect, passes) says of earlier claims. `claims` ({n = 0}) is filled with flat records.
-- Replies how many, the first of their tokens (they are consecutive), and 1 if ready work is left, else 0.
function M.take(b, worker, lanes, want, row, ttl_ms, claims)
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
      local own_ttl = b.own_ttls and b.own_ttls[claims[at + 1]]
      held[2 * i + 1], held[2 * i + 2] = claims[at + 1], own_ttl and token .. '/' .. own_ttl or token
    end
    batch.change_load(b, worker, redis.call('HSET', keys.running(base, worker), unpack(held)))
  end
  if taken == 0 and b.is_stuck then return 0, '', 0 end
  return taken, first_token, lane.settle_tokens(base, lanes, is_empty)
end

-- The claims of an earlier step again, after its reply was lost: what the worker holds from `first_token` on.
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
