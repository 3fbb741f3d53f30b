-- Opening: a bucket has room again, because something that had it ended, its time has come, or its limit was changed. Lines that
-- wait under it (line.lua) go back to the ring of their lane.
local M = {}

-- Lines that a bucket gives back to the ring in one call, and buckets whose time has come.
local REOPENED, OPENED = 100, 100
-- Blocked buckets that are looked at in one call after a limit has changed.
local CHANGED = 500

-- What is to go back to the ring of a lane, `scored`; none where the ring is not `is_sound`. `reached`: the virtual time of the
-- lane.
local function to_ring(batch, reopened, lane_name)
  local of_lane = reopened.of_lanes[lane_name]
  if not of_lane then
    of_lane = { scored = {}, reached = line.turns(batch.base, lane_name) }
    of_lane.is_sound = line.try(batch, 'ZCARD', keys.ring(batch.base, lane_name))
    reopened.of_lanes[lane_name], reopened.lanes[#reopened.lanes + 1] = of_lane, lane_name
  end
  return of_lane
end

-- Lines that wait under a bucket go back to the ring, as many as it has room for: in each lane, for not every lane has a worker
-- with nothing to do. What it does not have room for comes back at its next turn.
local function reopen(batch, reopened, bucket, lanes, room, opens_at)
  local portion, left, times = math.floor(math.min(room, REOPENED)), {}, reopened.times
  for _, lane_name in ipairs(lanes) do
    local key = keys.blocked(batch.base, lane_name, bucket)
    local of_lane = portion > 0 and to_ring(batch, reopened, lane_name)
    local lines = of_lane and of_lane.is_sound and line.try(batch, 'ZPOPMIN', key, clock.text(portion))
    for i = 1, lines and #lines or 0, 2 do
      local scored, waited = of_lane.scored, number.of(lines[i + 1], 0)
      local score = waited == saving.NEXT and of_lane.reached - saving.AHEAD or math.max(waited, of_lane.reached)
      scored[#scored + 1], scored[#scored + 2] = number.text(score), lines[i]
    end
    -- Fewer than were asked for are all.
    if (not lines or #lines == 2 * portion) and redis.call('EXISTS', key) == 1 then
      left[#left + 1] = lane_name
      -- Without a limit nothing will free a slot: the rest is for the calls that follow.
      if room > REOPENED then opens_at = batch.now end
    end
  end
  if #left < #lanes then reopened.places[#reopened.places + 1] = { bucket = bucket, lanes = left } end
  if #left > 0 and opens_at then
    times[#times + 1], times[#times + 2] = clock.text(opens_at), bucket
    timer.note(batch, left[1], opens_at)
  end
end

-- Look again at buckets under which lines may wait: at the first `due` whatever they are; at others not where they gather, which
-- does not wait for what others leave.
function M.reconsider(batch, buckets, due)
  local base = batch.base
  -- Mostly nothing waits at all, which is cheaper to ask than each of many.
  if #buckets == 0 or redis.pcall('HLEN', keys.blocked_lanes(base)) == 0 then return end
  local reopened = { lanes = {}, of_lanes = {}, places = {}, times = {} }
  local blocked = bulk.read('HMGET', keys.blocked_lanes(base), buckets)
  if errors.of(blocked) then return line.look_later(batch) end
  local waited_for, lanes = {}, {}
  for i, bucket in ipairs(buckets) do
    if blocked[i] and (i <= due or not gather.is(bucket)) then
      waited_for[#waited_for + 1], lanes[#lanes + 1] = bucket, limits.lanes(blocked[i])
    end
  end
  if #waited_for == 0 then return end
  if limits.look(batch, waited_for) then return line.look_later(batch) end
  -- Before the first line is taken out: a definition that makes no sense ends the call.
  local rooms, times = {}, {}
  for i, bucket in ipairs(waited_for) do rooms[i], times[i] = limits.room(batch, bucket, 1) end
  for i, bucket in ipairs(waited_for) do reopen(batch, reopened, bucket, lanes[i], rooms[i], times[i]) end
  for _, lane_name in ipairs(reopened.lanes) do
    local scored = reopened.of_lanes[lane_name].scored
    bulk.write('ZADD', keys.ring(base, lane_name), scored)
    if #scored > 0 then lane.wake(base, lane_name, #scored / 2) end
  end
  line.note_blocked(batch, reopened.places)
  line.try_all(batch, 'ZADD', keys.opens(base), reopened.times)
end

-- Buckets whose time has come are looked at again.
function M.open_due(batch)
  local opens = keys.opens(batch.base)
  local due = redis.pcall('ZRANGEBYSCORE', opens, '-inf', batch.now_text, 'LIMIT', 0, OPENED)
  if errors.of(due) or #due == 0 then return false end
  redis.call('ZREM', opens, unpack(due))
  batch.freed = batch.freed or {}
  for _, bucket in ipairs(due) do batch.freed[bucket] = batch.freed[bucket] or 0 end
  -- Those that a damaged key keeps from being looked at are for a later heartbeat, not for one at once.
  return #due == OPENED and not limits.look(batch, due)
end

-- Blocked buckets that are to be looked at because a limit has changed, a portion a call.
local function reopen_some(batch)
  local base, times = batch.base, {}
  local cursor = redis.call('HGET', keys.meta(base), 'reopening')
  if not cursor or errors.of(redis.pcall('ZCARD', keys.opens(base))) then return end
  local limits_alone, at = string.match(cursor, '^(%-?)(%d+)$')
  local page = redis.call('HSCAN', keys.blocked_lanes(base), at or '0', 'COUNT', CHANGED)
  for i = 1, #page[2], 2 do
    local bucket = page[2][i]
    -- What gathers has its time, with which limits have nothing to do; unless it has lost it.
    if limits_alone ~= '-' or not gather.is(bucket) or not redis.call('ZSCORE', keys.opens(base), bucket) then
      times[#times + 1], times[#times + 2] = batch.now_text, bucket
    end
  end
  bulk.write('ZADD', keys.opens(base), times)
  if page[1] == '0' then
    redis.call('HDEL', keys.meta(base), 'reopening')
  else
    redis.call('HSET', keys.meta(base), 'reopening', (limits_alone or '') .. page[1])
  end
end

-- Limits have changed, or a key of one: what waits is looked at again, of the limits themselves at once.
function M.limits_changed(batch, buckets)
  local freed = {}
  for _, bucket in ipairs(buckets) do freed[bucket] = 0 end
  if #buckets == 0 then return end
  batch.freed = freed
  if redis.call('EXISTS', keys.blocked_lanes(batch.base)) == 0 then return end
  -- With a minus in front: no batch has changed.
  local mark, known = '-', redis.call('HGET', keys.meta(batch.base), 'reopening')
  for _, bucket in ipairs(buckets) do
    if gather.is(bucket) then mark = '' end
  end
  if known and string.sub(known, 1, 1) ~= '-' then mark = '' end
  redis.call('HSET', keys.meta(batch.base), 'reopening', mark .. '0')
  reopen_some(batch)
  M.open_due(batch)
end

-- Count the entries of all lines anew. Replies whether there are any.
local function recount(base)
  local places, found = {}, false
  for _, name in ipairs(redis.pcall('SMEMBERS', keys.lanes(base))) do
    places[#places + 1] = { lane = name, key = keys.ring(base, name) }
  end
  local blocked = redis.pcall('HGETALL', keys.blocked_lanes(base))
  for i = 1, #blocked, 2 do
    for _, name in ipairs(limits.lanes(blocked[i + 1])) do
      places[#places + 1] = { lane = name, key = keys.blocked(base, name, blocked[i]) }
    end
  end
  for _, place in ipairs(places) do
    local entries = 0
    for _, name in ipairs(redis.pcall('ZRANGE', place.key, 0, -1)) do
      entries = entries + number.of(redis.pcall('LLEN', keys.line(base, place.lane, name)), 0)
    end
    if entries > 0 then
      redis.call('HINCRBY', keys.limited(base), place.lane, entries)
      found = true
    end
  end
  return found
end

-- What a heartbeat does for lines. A worker that knows no lines may have taken the wake-up token of one. Replies whether there is
-- more to do.
function M.go_on(batch)
  local base = batch.base
  local lanes = redis.pcall('HKEYS', keys.limited(base))
  if errors.of(lanes) then return false end
  if #lanes == 0 and not recount(base) then -- which is by hand, if it finds any
    redis.call('HDEL', keys.meta(base), 'limited')
    return false
  end
  for _, name in ipairs(lanes) do
    local runs, tokens = redis.pcall('ZCARD', keys.ring(base, name)), redis.pcall('LLEN', keys.wake(base, name))
    if runs ~= 0 and tokens == 0 and not errors.of(runs) then lane.wake(base, name, 1, 0) end
  end
  if not errors.of(redis.pcall('HLEN', keys.blocked_lanes(base))) then reopen_some(batch) end
  return M.open_due(batch)
end

return M
