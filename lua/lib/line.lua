-- Lines: the tasks of a lane that wait with the same buckets, first in, first out. The lines that may run take turns in the ring
-- of their lane, by virtual time (start-time fair queueing: Goyal, Vin and Cheng, 1996): a line is served at its score, and
-- each task moves it on by 1 / weight. A line without room waits under the bucket that has none, and keeps its score. The
-- ready list of the lane is one more line.
local M = {}

-- So many of a line in a row, where others wait: a call is for so many lines that each gets about QUANTUM of it.
local QUANTUM, LONGEST = 4, 16
-- Lines that a bucket gives back to the ring in one call, and buckets whose time has come.
local REOPENED, OPENED = 100, 100
-- Blocked buckets that are looked at in one call after a limit has changed.
local CHANGED = 500
-- `unpack` is bounded by Lua's stack.
local MAX_AT_ONCE = 1000

-- Why a task cannot be put into a line: one of its keys has another type. `sound`: keys that this call has looked at already.
function M.damage(base, lane_name, line, sound)
  sound = sound or {}
  local commands = { LLEN = keys.line(base, lane_name, line), ZCARD = keys.ring(base, lane_name) }
  for command, key in pairs(commands) do
    if not sound[key] and errors.of(redis.pcall(command, key)) then return errors.wrong_type(key) end
    sound[key] = true
  end
  if sound.others then return nil end
  for _, key in ipairs({ keys.turns(base), keys.limited(base), keys.meta(base) }) do
    if errors.of(redis.pcall('HLEN', key)) then return errors.wrong_type(key) end
  end
  sound.others = true
end

-- A command whose key may be damaged, which `fsck` names: nil where it is. What waits is looked at again by heartbeats.
local function try(batch, command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if not errors.of(reply) then return reply end
  redis.pcall('HSET', keys.meta(batch.base), 'limited', 1, 'reopening', '0')
end

-- The turns of a lane: the virtual time that it has reached, and that of its ready list.
local function turns(base, lane_name)
  local text = redis.pcall('HGET', keys.turns(base), lane_name)
  local reached, ready = string.match(type(text) == 'string' and text or '', '^(%S+) (%S+)$')
  return number.of(reached, 0), number.of(ready, 0)
end

-- So many entries are in the lines of a lane, more or less; without any nothing is left of its turns, nor of lines that wait
-- for theirs empty, so that they have not waited in vain. Less than none is a count that somebody took away: go_on counts anew.
local function count(base, lane_name, by)
  local total = redis.pcall('HINCRBY', keys.limited(base), lane_name, by)
  if errors.of(total) then
    total = by
    redis.pcall('HSET', keys.limited(base), lane_name, by)
  end
  if total == by and by > 0 then redis.call('HSET', keys.meta(base), 'limited', 1) end
  if total <= 0 then
    redis.pcall('HDEL', keys.limited(base), lane_name)
    redis.pcall('HDEL', keys.turns(base), lane_name)
  end
  if total == 0 and by < 0 then redis.call('DEL', keys.ring(base, lane_name)) end
end

-- Put ids into lines: `lane`, `line`, `ids` and `command` of each. One that was empty gets its turn after those that have
-- waited: a key that was idle has saved up nothing.
function M.push(batch, lines)
  local base, lanes, of_lanes = batch.base, {}, {}
  batch.has_lines = true
  for _, one in ipairs(lines) do
    local lane_name, ids, key, length = one.lane, one.ids, keys.line(base, one.lane, one.line), nil
    local of_lane = of_lanes[lane_name] or { added = 0, woken = 0, new = {} }
    if not of_lanes[lane_name] then lanes[#lanes + 1], of_lanes[lane_name] = lane_name, of_lane end
    for from = 1, #ids, MAX_AT_ONCE do
      length = redis.call(one.command, key, unpack(ids, from, math.min(from + MAX_AT_ONCE - 1, #ids)))
    end
    of_lane.added = of_lane.added + #ids
    if length == #ids then
      of_lane.new[#of_lane.new + 1], of_lane.woken = one.line, of_lane.woken + #ids
    elseif redis.call('ZSCORE', keys.ring(base, lane_name), one.line) then
      of_lane.woken = of_lane.woken + #ids
    end
  end
  for _, lane_name in ipairs(lanes) do
    local of_lane, scored = of_lanes[lane_name], {}
    local reached = #of_lane.new > 0 and number.text((turns(base, lane_name)))
    for i, line in ipairs(of_lane.new) do scored[2 * i - 1], scored[2 * i] = reached, line end
    if reached then redis.call('ZADD', keys.ring(base, lane_name), 'NX', unpack(scored)) end
    count(base, lane_name, of_lane.added)
    if of_lane.woken > 0 and not batch.is_stuck then lane.wake(base, lane_name, of_lane.woken) end
  end
end

-- Add to the lanes where a bucket blocks lines, or take away from them.
local function note_blocked(base, bucket, lanes)
  if #lanes > 0 then
    redis.call('HSET', keys.blocked_lanes(base), bucket, cjson.encode(lanes))
  else
    redis.call('HDEL', keys.blocked_lanes(base), bucket)
  end
end

-- Lines of a lane that have no room wait under their bucket: `blocked` has bucket -> score and line in turn, `opens` bucket ->
-- when it has room by time. Where they cannot they stay in the ring.
local function block(batch, lane_name, blocked, opens)
  local base, buckets, times = batch.base, {}, {}
  for bucket in pairs(blocked) do buckets[#buckets + 1] = bucket end
  if #buckets == 0 then return end
  local known = try(batch, 'HMGET', keys.blocked_lanes(base), unpack(buckets))
  for i, bucket in ipairs(buckets) do
    if known and try(batch, 'ZADD', keys.blocked(base, lane_name, bucket), unpack(blocked[bucket])) then
      local lanes, is_known = limits.lanes(known[i]), false
      for _, name in ipairs(lanes) do is_known = is_known or name == lane_name end
      if not is_known then
        lanes[#lanes + 1] = lane_name
        note_blocked(base, bucket, lanes)
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
  -- One that is there already may be for a line that costs less.
  if #times > 0 then try(batch, 'ZADD', keys.opens(base), 'LT', unpack(times)) end
end

-- Whether a line, by its lane and name as its key has them, is in the ring or waits under a bucket.
function M.has_place(base, lane_and_name)
  local lane_name, name = string.match(lane_and_name, '^(.*):([^:]*)$')
  if not name or redis.pcall('ZSCORE', keys.ring(base, lane_name), name) then return true end
  for _, bucket in ipairs((limits.parse(name))) do
    if redis.pcall('ZSCORE', keys.blocked(base, lane_name, bucket), name) then return true end
  end
  return false
end

-- Put a line into the ring that has no place.
function M.place(batch, lane_and_name)
  local base, lane_name, name = batch.base, string.match(lane_and_name, '^(.*):([^:]*)$')
  redis.call('ZADD', keys.ring(base, lane_name), number.text((turns(base, lane_name))), name)
  redis.call('HSET', keys.meta(base), 'limited', 1)
  lane.wake(base, lane_name, 1)
end

-- Lines that wait under a bucket go back to the ring, as many as it has room for: in each lane, for not every lane has a worker
-- with nothing to do. What it does not have room for comes back at its next turn.
local function reopen(batch, bucket, lanes)
  local base, room, opens_at = batch.base, limits.room(batch, bucket, 1)
  local left, changed = {}, false
  for _, lane_name in ipairs(lanes) do
    local key, portion = keys.blocked(base, lane_name, bucket), math.min(room, REOPENED)
    local lines = portion > 0 and try(batch, 'ZPOPMIN', key, clock.text(portion)) or {}
    if #lines > 0 then
      local reached, scored = turns(base, lane_name), {}
      for i = 1, #lines, 2 do
        scored[i], scored[i + 1] = number.text(math.max(number.of(lines[i + 1], 0), reached)), lines[i]
      end
      if try(batch, 'ZADD', keys.ring(base, lane_name), unpack(scored)) then
        lane.wake(base, lane_name, #lines / 2)
      else
        redis.call('ZADD', key, unpack(scored))
      end
    end
    if redis.call('EXISTS', key) == 1 then
      left[#left + 1] = lane_name
      -- Without a limit nothing will free a slot: the rest is for the calls that follow.
      if room > REOPENED then opens_at = batch.now end
    else
      changed = true
    end
  end
  if changed then note_blocked(base, bucket, left) end
  if #left > 0 and opens_at then
    try(batch, 'ZADD', keys.opens(base), clock.text(opens_at), bucket)
    timer.note(batch, left[1], opens_at)
  end
end

-- Look again at buckets under which lines may wait.
function M.reconsider(batch, buckets)
  if #buckets == 0 or limits.look(batch, buckets) then return end
  local blocked = redis.pcall('HMGET', keys.blocked_lanes(batch.base), unpack(buckets))
  if errors.of(blocked) then return end
  for i, bucket in ipairs(buckets) do
    if blocked[i] then reopen(batch, bucket, limits.lanes(blocked[i])) end
  end
end

-- Buckets whose time has come are looked at again.
function M.open_due(batch)
  local opens = keys.opens(batch.base)
  local due = redis.pcall('ZRANGEBYSCORE', opens, '-inf', batch.now_text, 'LIMIT', 0, OPENED)
  if errors.of(due) or #due == 0 then return false end
  redis.call('ZREM', opens, unpack(due))
  batch.freed = batch.freed or {}
  for _, bucket in ipairs(due) do batch.freed[bucket] = batch.freed[bucket] or 0 end
  return #due == OPENED
end

-- Blocked buckets that are to be looked at because a limit has changed, a portion a call.
local function reopen_some(batch)
  local base, times = batch.base, {}
  local cursor = redis.call('HGET', keys.meta(base), 'reopening')
  if not cursor or errors.of(redis.pcall('ZCARD', keys.opens(base))) then return end
  local page = redis.call('HSCAN', keys.blocked_lanes(base), string.match(cursor, '^%d+$') or '0', 'COUNT', CHANGED)
  for i = 1, #page[2], 2 do times[i], times[i + 1] = batch.now_text, page[2][i] end
  if #times > 0 then redis.call('ZADD', keys.opens(base), unpack(times)) end
  if page[1] == '0' then
    redis.call('HDEL', keys.meta(base), 'reopening')
  else
    redis.call('HSET', keys.meta(base), 'reopening', page[1])
  end
end

-- Limits have changed, or a key of one: what waits is looked at again, of the limits themselves at once.
function M.limits_changed(batch, buckets)
  local freed = {}
  for _, bucket in ipairs(buckets) do freed[bucket] = 0 end
  if #buckets == 0 then return end
  batch.freed = freed
  if redis.call('EXISTS', keys.blocked_lanes(batch.base)) == 0 then return end
  redis.call('HSET', keys.meta(batch.base), 'reopening', '0')
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

-- Take up to `most` ids out of the lines of a lane, those in the ring first. Replies them, and how many entries were looked at.
function M.drain(batch, lane_name, most)
  local base, ids = batch.base, {}
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
    note_blocked(base, blocked[i], left)
  end
  if #ids > 0 then count(base, lane_name, -#ids) end
  return ids, #ids
end

-- The lines whose turn it is in a lane, up to `most`: score, name, buckets, costs; and the score up to which no line is missing.
local function open_lines(batch, lane_name, most)
  local found, asked, open = redis.pcall('ZRANGE', keys.ring(batch.base, lane_name), 0, most - 1, 'WITHSCORES'), {}, {}
  local err = errors.of(found) and errors.wrong_type(keys.ring(batch.base, lane_name))
  if err then return open, 0, err end
  for i = 1, #found, 2 do
    local buckets, costs = limits.parse(found[i])
    open[#open + 1] = { name = found[i], score = number.of(found[i + 1], 0), buckets = buckets, costs = costs }
    for _, bucket in ipairs(buckets) do asked[#asked + 1] = bucket end
  end
  err = #asked > 0 and limits.look(batch, asked)
  return open, #open == most and open[#open].score or math.huge, err
end

-- The room of a line: how many of it may start, the bucket that has least, and when that opens.
local function room_of(batch, one)
  local room, least, opens_at = math.huge, nil, nil
  for i, bucket in ipairs(one.buckets) do
    local has, at = limits.room(batch, bucket, one.costs[i])
    if has < room or has == 0 and (at or 0) > (opens_at or 0) then room, least, opens_at = has, bucket, at end
  end
  return room, least, opens_at
end

-- Whether one of a line may start, beside all turns; and that one has.
function M.has_room(batch, name)
  local buckets, costs = limits.parse(name)
  if limits.look(batch, buckets) then return false end
  return room_of(batch, { buckets = buckets, costs = costs }) >= 1
end

function M.charge(batch, name)
  local buckets, costs = limits.parse(name)
  limits.charge(batch, buckets, costs, 1)
end

-- A line whose turn it is: up to `portion` of it start, or it goes under the bucket that has no room. Replies whether it is out
-- of the ring. Other lines may have waited for what it leaves: its buckets are looked at again.
local function serve(taking, one, portion, start)
  local batch, room, least, opens_at = taking.batch, room_of(taking.batch, one)
  local key = keys.line(batch.base, taking.lane, one.name)
  local is_blocked = room < 1 and redis.call('EXISTS', key) == 1
  if is_blocked then
    local lines = taking.blocked[least] or {}
    lines[#lines + 1], lines[#lines + 2] = number.text(one.score), one.name
    taking.blocked[least] = lines
    if opens_at then taking.opens[least] = math.min(taking.opens[least] or math.huge, opens_at) end
  elseif room >= 1 then
    local served = 0
    portion = math.min(portion, room, taking.budget)
    local ids = redis.pcall('LPOP', key, clock.text(portion)) or {}
    for i = 1, #ids do
      local weight = start(ids[i], one.name)
      if weight then served, one.began, one.score = served + 1, one.score, one.score + 1 / weight end
    end
    if served > 0 then limits.charge(batch, one.buckets, one.costs, served) end
    taking.taken, taking.budget, taking.popped = taking.taken + served, taking.budget - #ids, taking.popped + #ids
    if #ids == portion then
      taking.scores[one.name] = one.score
      return false
    end
  end
  taking.scores[one.name] = nil
  taking.gone[#taking.gone + 1] = one.name
  for _, bucket in ipairs(one.buckets) do
    if not (is_blocked and bucket == least) then taking.again[bucket] = true end
  end
  return true
end

-- Serve the open lines, always the one that is furthest behind. Beyond `bound` lines that are not here have their turn.
local function serve_all(taking, want, open, bound, start, take_ready)
  while taking.taken < want and taking.budget > 0 and #open > 0 do
    local at = 1
    for i = 2, #open do
      if open[i].score < open[at].score then at = i end
    end
    local one, left = open[at], want - taking.taken
    if one.score > bound then return end
    taking.reached = math.max(taking.reached, one.score)
    local is_alone = #open == 1 and bound == math.huge
    local portion = is_alone and left or math.min(math.max(math.ceil(left / #open), QUANTUM), LONGEST, left)
    local is_out
    if one.name then
      is_out = serve(taking, one, portion, start)
    else
      local got
      got, is_out = take_ready(portion)
      taking.taken, one.score, taking.ready_is_dry = taking.taken + got, one.score + got, is_out
      taking.ready_score, one.began = one.score, got > 0 and one.score - 1
    end
    -- What a line had while it was alone is not held against it.
    if is_alone and one.began then taking.reached = math.max(taking.reached, one.began) end
    if is_out then table.remove(open, at) end
  end
end

-- Write what has become of the lines that were served.
local function write_turns(taking)
  local batch, lane_name, moved = taking.batch, taking.lane, {}
  local base, ring = batch.base, keys.ring(batch.base, lane_name)
  for name, score in pairs(taking.scores) do moved[#moved + 1], moved[#moved + 2] = number.text(score), name end
  if #taking.gone > 0 then redis.call('ZREM', ring, unpack(taking.gone)) end
  if #moved > 0 then redis.call('ZADD', ring, unpack(moved)) end
  block(batch, lane_name, taking.blocked, taking.opens)
  local reached, ready_score = number.text(taking.reached), number.text(taking.ready_score)
  redis.pcall('HSET', keys.turns(base), lane_name, reached .. ' ' .. ready_score)
  -- Not minus nothing: Redis 6.2 is told `-0`, and takes it for no integer.
  count(base, lane_name, 0 - taking.popped)
  taking.scores, taking.gone, taking.blocked, taking.opens, taking.popped = {}, {}, {}, {}, 0
end

-- Take up to `want` tasks of a lane, of its lines and its ready list in turn. `start(id, line)` claims one and replies its
-- weight, or false; `take_ready(count)` claims from the ready list, and replies how many, and whether there is no more. Replies
-- how many were taken, whether there is no more, how many entries of lines were looked at, and an error where a damaged key is in
-- the way.
function M.take(batch, lane_name, want, budget, start, take_ready)
  local taking = { batch = batch, lane = lane_name, budget = budget, taken = 0, popped = 0, scores = {}, gone = {},
    blocked = {}, opens = {}, again = {} }
  taking.reached, taking.ready_score = turns(batch.base, lane_name)
  local is_last, err = false, nil
  while taking.taken < want and taking.budget > 0 and not is_last do
    local open, bound
    open, bound, err = open_lines(batch, lane_name, math.max(math.ceil((want - taking.taken) / QUANTUM) + 1, 2))
    if err then open, bound = {}, math.huge end
    if not taking.ready_is_dry then open[#open + 1] = { score = math.max(taking.ready_score, taking.reached) } end
    serve_all(taking, want, open, bound, start, take_ready)
    if not err then write_turns(taking) end
    is_last = bound == math.huge
  end
  local again = {}
  for bucket in pairs(taking.again) do again[#again + 1] = bucket end
  table.sort(again)
  M.reconsider(batch, again)
  return taking.taken, is_last and taking.taken < want, budget - taking.budget, err
end

return M
