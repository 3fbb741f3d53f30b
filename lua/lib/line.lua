-- Lines: the tasks of a lane that wait with the same buckets, first in, first out. A line has one place: the ring of its lane,
-- where the lines that may run take turns (turn.lua), or under the bucket that has no room, until opening.lua takes it from there.
local M = {}

-- How far into a line an id is looked for, from either end.
local WINDOW = 1000

local function is_damaged(sound, command, key)
  if not sound[key] and errors.of(redis.pcall(command, key)) then return true end
  sound[key] = true
end

-- Why a task cannot be put into a line: one of its keys has another type. `sound`: keys that this call has looked at already.
function M.damage(base, lane_name, line, sound)
  sound = sound or {}
  local entries, ring = keys.line(base, lane_name, line), keys.ring(base, lane_name)
  if is_damaged(sound, 'LLEN', entries) then return errors.wrong_type(entries) end
  if is_damaged(sound, 'ZCARD', ring) then return errors.wrong_type(ring) end
  if sound.others then return nil end
  for _, key in ipairs({ keys.turns(base), keys.limited(base), keys.meta(base) }) do
    if errors.of(redis.pcall('HLEN', key)) then return errors.wrong_type(key) end
  end
  sound.others = true
end

-- A key is damaged, which `fsck` names: what waits is looked at again by heartbeats.
function M.look_later(batch) redis.pcall('HSET', keys.meta(batch.base), 'limited', 1, 'reopening', '0') end

-- A command whose key may be damaged: nil where it is.
function M.try(batch, command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if not errors.of(reply) then return reply end
  M.look_later(batch)
end

-- The same with any number of arguments, also none.
function M.try_all(batch, command, key, arguments)
  if errors.of(bulk.try(command, key, arguments)) then M.look_later(batch) end
end

-- The turns of a lane: the virtual time that it has reached, and that of its ready list.
function M.turns(base, lane_name)
  local text = redis.pcall('HGET', keys.turns(base), lane_name)
  local reached, ready = string.match(type(text) == 'string' and text or '', '^(%S+) (%S+)$')
  return number.of(reached, 0), number.of(ready, 0)
end

-- So many entries are in the lines of a lane, more or less; without any nothing is left of its turns, nor of lines that wait
-- for theirs empty, so that they have not waited in vain. Less than none is a count that somebody took away: heartbeats count anew.
function M.count(base, lane_name, by)
  local total = redis.pcall('HINCRBY', keys.limited(base), lane_name, by)
  if errors.of(total) then
    total = by
    redis.pcall('HSET', keys.limited(base), lane_name, by)
  end
  if total == by and by > 0 then
    redis.call('HSET', keys.meta(base), 'limited', 1)
    redis.pcall('SADD', keys.lanes(base), lane_name)
  end
  if total <= 0 then
    redis.pcall('HDEL', keys.limited(base), lane_name)
    redis.pcall('HDEL', keys.turns(base), lane_name)
  end
  if total == 0 and by < 0 then redis.call('DEL', keys.ring(base, lane_name)) end
end

-- The lanes where buckets block lines are these from now on: `bucket` and `lanes` of each. Without any there is nothing to open.
function M.note_blocked(batch, places)
  local known, some, none = keys.blocked_lanes(batch.base), {}, {}
  for _, place in ipairs(places) do
    if #place.lanes > 0 then
      some[#some + 1], some[#some + 2] = place.bucket, cjson.encode(place.lanes)
    else
      none[#none + 1] = place.bucket
    end
  end
  M.try_all(batch, 'HSET', known, some)
  M.try_all(batch, 'HDEL', known, none)
  M.try_all(batch, 'ZREM', keys.opens(batch.base), none)
end

-- A line waits no more under a bucket, if it did. Replies whether.
local function unblock(batch, lane_name, line_name, bucket)
  local base, left = batch.base, {}
  local key = keys.blocked(base, lane_name, bucket)
  if (M.try(batch, 'ZREM', key, line_name) or 0) == 0 then return false end
  local known = redis.call('EXISTS', key) == 0 and M.try(batch, 'HGET', keys.blocked_lanes(base), bucket)
  if known then
    for _, name in ipairs(limits.lanes(known)) do
      if name ~= lane_name then left[#left + 1] = name end
    end
    M.note_blocked(batch, { { bucket = bucket, lanes = left } })
  end
  return true
end

-- Put ids into lines: `lane`, `line`, `ids` and `command` of each. One that was empty gets its turn after those that have
-- waited: a key that was idle has saved up nothing.
function M.push(batch, lines)
  local base, lanes, of_lanes = batch.base, {}, {}
  batch.has_lines = true
  for _, one in ipairs(lines) do
    local lane_name, ids = one.lane, one.ids
    local of_lane = of_lanes[lane_name] or { added = 0, woken = 0, new = {}, old = {}, of_old = {} }
    if not of_lanes[lane_name] then lanes[#lanes + 1], of_lanes[lane_name] = lane_name, of_lane end
    local length = bulk.write(one.command, keys.line(base, lane_name, one.line), ids)
    of_lane.added = of_lane.added + #ids
    local bucket, size, wait_ms = limits.batch_of(batch, one.line)
    local woken = bucket and gather.full(size, wait_ms, length - #ids, length) or #ids
    if length == #ids and woken == 0 then
      M.gather(batch, lane_name, one.line, bucket, wait_ms)
    elseif length == #ids or bucket and woken > 0 and unblock(batch, lane_name, one.line, bucket) then
      of_lane.new[#of_lane.new + 1], of_lane.woken = one.line, of_lane.woken + woken
    else
      of_lane.old[#of_lane.old + 1], of_lane.of_old[#of_lane.of_old + 1] = one.line, woken
    end
  end
  for _, lane_name in ipairs(lanes) do
    local of_lane, scored = of_lanes[lane_name], {}
    -- What is blocked wakes nobody.
    local scores = #of_lane.old > 0 and bulk.read('ZMSCORE', keys.ring(base, lane_name), of_lane.old) or {}
    for i = 1, #scores do
      if scores[i] then of_lane.woken = of_lane.woken + of_lane.of_old[i] end
    end
    local reached = #of_lane.new > 0 and number.text((M.turns(base, lane_name)))
    for i, line in ipairs(of_lane.new) do scored[2 * i - 1], scored[2 * i] = reached, line end
    if reached then redis.call('ZADD', keys.ring(base, lane_name), 'NX', unpack(scored)) end
    M.count(base, lane_name, of_lane.added)
    if of_lane.woken > 0 and not batch.is_stuck then lane.wake(base, lane_name, of_lane.woken) end
  end
end

-- A line has gone without starting anything: others may have waited for what it leaves.
local function give_way(batch, line_name)
  batch.freed = batch.freed or {}
  for _, bucket in ipairs((limits.parse(line_name))) do
    if not gather.is(bucket) then batch.freed[bucket] = batch.freed[bucket] or 0 end
  end
end

-- Take an id out of its line. What lies deeper in it is passed over when its turn comes, and counted until then.
function M.take_out(batch, lane_name, line_name, id)
  local base, key, from = batch.base, keys.line(batch.base, lane_name, line_name), '1'
  if not M.try(batch, 'LPOS', key, id, 'MAXLEN', WINDOW) then
    from = '-1'
    if not M.try(batch, 'LPOS', key, id, 'RANK', from, 'MAXLEN', WINDOW) then return end
  end
  redis.call('LREM', key, from, id)
  if redis.call('EXISTS', key) == 0 then
    if M.try(batch, 'ZREM', keys.ring(base, lane_name), line_name) == 1 then give_way(batch, line_name) end
    for _, bucket in ipairs((limits.parse(line_name))) do unblock(batch, lane_name, line_name, bucket) end
  end
  M.count(base, lane_name, -1)
end

-- Lines of a lane that have no room wait under their bucket: `blocked` has bucket -> score and line in turn, `opens` bucket ->
-- when it has room by time. Where they cannot they stay in the ring.
function M.block(batch, lane_name, blocked, opens)
  local base, buckets, places, times = batch.base, {}, {}, {}
  for bucket in pairs(blocked) do buckets[#buckets + 1] = bucket end
  if #buckets == 0 then return end
  local known = M.try(batch, 'HMGET', keys.blocked_lanes(base), unpack(buckets))
  for i, bucket in ipairs(buckets) do
    if known and M.try(batch, 'ZADD', keys.blocked(base, lane_name, bucket), unpack(blocked[bucket])) then
      local lanes, is_known = limits.lanes(known[i]), false
      for _, name in ipairs(lanes) do is_known = is_known or name == lane_name end
      if not is_known then
        lanes[#lanes + 1] = lane_name
        places[#places + 1] = { bucket = bucket, lanes = lanes }
      end
      if opens[bucket] then
        times[#times + 1], times[#times + 2] = clock.text(opens[bucket]), bucket
        timer.note(batch, lane_name, opens[bucket])
      end
    else
      batch.is_stuck = true
      redis.call('ZADD', keys.ring(base, lane_name), unpack(blocked[bucket]))
    end
  end
  M.note_blocked(batch, places)
  -- One that is there already may be for a line that costs less.
  if #times > 0 then M.try(batch, 'ZADD', keys.opens(base), 'LT', unpack(times)) end
end

-- A line waits for others to come.
function M.gather(batch, lane_name, line_name, bucket, wait_ms)
  local score = number.text((M.turns(batch.base, lane_name)))
  M.block(batch, lane_name, { [bucket] = { score, line_name } }, { [bucket] = batch.now + wait_ms })
end

-- Lane and name of a line, as its key has them.
function M.split(lane_and_name) return string.match(lane_and_name, '^(.*):([^:]*)$') end

-- Whether a line, by its lane and name as its key has them, is in the ring or waits under a bucket.
function M.has_place(base, lane_and_name)
  local lane_name, name = M.split(lane_and_name)
  if not name or redis.pcall('ZSCORE', keys.ring(base, lane_name), name) then return true end
  for _, bucket in ipairs((limits.parse(name))) do
    if redis.pcall('ZSCORE', keys.blocked(base, lane_name, bucket), name) then return true end
  end
  return false
end

-- Put a line into the ring that has no place.
function M.place(batch, lane_and_name)
  local base, lane_name, name = batch.base, M.split(lane_and_name)
  redis.call('ZADD', keys.ring(base, lane_name), number.text((M.turns(base, lane_name))), name)
  redis.call('HSET', keys.meta(base), 'limited', 1)
  lane.wake(base, lane_name, 1)
end

-- Take up to `most` ids out of the lines of a lane, those in the ring first. Replies them, and how many entries were looked at.
function M.drain(batch, lane_name, most)
  local base, ids, places = batch.base, {}, {}
  errors.read('ZCARD', keys.ring(base, lane_name))
  local blocked = errors.read('HGETALL', keys.blocked_lanes(base))
  local function empty(place)
    while #ids < most do
      local name = redis.pcall('ZRANGE', place, 0, 0)[1]
      if not name then return end
      local key = keys.line(base, lane_name, name)
      local found = redis.pcall('LPOP', key, clock.text(most - #ids)) or {}
      for i = 1, #found do ids[#ids + 1] = found[i] end
      if redis.call('EXISTS', key) == 1 then return end
      redis.call('ZREM', place, name)
      give_way(batch, name)
    end
  end
  empty(keys.ring(base, lane_name))
  for i = 1, #blocked, 2 do
    if #ids >= most then break end
    local left = {}
    for _, name in ipairs(limits.lanes(blocked[i + 1])) do
      if name == lane_name then empty(keys.blocked(base, lane_name, blocked[i])) end
      if redis.call('EXISTS', keys.blocked(base, name, blocked[i])) == 1 then left[#left + 1] = name end
    end
    places[#places + 1] = { bucket = blocked[i], lanes = left }
  end
  M.note_blocked(batch, places)
  if #ids > 0 then M.count(base, lane_name, -#ids) end
  return ids, #ids
end

return M
