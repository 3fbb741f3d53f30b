-- Turns: the lines of a lane that may run are served by virtual time (start-time fair queueing: Goyal, Vin and Cheng, 1996): the
-- one with the least score is next, and each of its tasks moves it on by 1 / weight. A line that turns out to have no room
-- waits under the bucket that has none, and keeps its score. The ready list of the lane is one more line.
local M = {}

-- So many of a line in a row, where others wait: a call is for so many lines that each gets about QUANTUM of it.
local QUANTUM, LONGEST = 8, 16
-- Batches that have so many bytes of arguments are enough for one call, and for one execution.
local BATCH_BYTES = 8 * 1024 * 1024

-- The lines whose turn it is in a lane, up to `most`: score, name, buckets, costs; and the score up to which no line is missing.
local function open_lines(batch, lane_name, most)
  local found, asked, open = redis.pcall('ZRANGE', keys.ring(batch.base, lane_name), 0, most - 1, 'WITHSCORES'), {}, {}
  local err = errors.of(found) and errors.wrong_type(keys.ring(batch.base, lane_name))
  if err then return open, 0, err end
  for i = 1, #found, 2 do
    local buckets, costs = limits.parse(found[i])
    open[#open + 1] = { name = found[i], score = number.of(found[i + 1], 0), order = i, buckets = buckets,
      costs = costs }
    for n = 1, #buckets do asked[#asked + 1] = buckets[n] end
  end
  err = #asked > 0 and limits.look(batch, asked)
  return open, #open == most and open[#open].score or math.huge, err
end

-- Whether a line is due before another one: by score, then as they were found.
local function is_before(one, other)
  return one.score < other.score or one.score == other.score and one.order < other.order
end

-- A line gets its place in a list that is in order, from `first` on: mostly one of the last.
local function put_in(list, first, one)
  local at = #list + 1
  while at > first and is_before(one, list[at - 1]) do
    list[at], at = list[at - 1], at - 1
  end
  list[at] = one
end

-- The ready list is one of them, behind those of the same score.
local function add_ready(taking, open)
  put_in(open, 1, { score = math.max(taking.ready_score, taking.reached), order = math.huge })
end

-- The room of a line: how many of it may start, the bucket that has least, and when that opens.
local function room_of(batch, one)
  local room, least, opens_at = math.huge, nil, nil
  for i = 1, #one.buckets do
    local bucket = one.buckets[i]
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

-- A line leaves the ring: it waits under a bucket from now on, until that opens by time, if it does.
local function block(taking, one, bucket, opens_at)
  local lines = taking.blocked[bucket] or {}
  lines[#lines + 1], lines[#lines + 2] = number.text(one.score), one.name
  taking.blocked[bucket] = lines
  if opens_at then taking.opens[bucket] = math.min(taking.opens[bucket] or math.huge, opens_at) end
end

-- A batch has enough: those from `first` on are in front of their line again, in their order.
local function put_back(key, ids, first)
  local rest = {}
  for i = #ids, first, -1 do rest[#rest + 1] = ids[i] end
  redis.call('LPUSH', key, unpack(rest))
end

-- So many were taken out of a line, and started: from `began`, its score before the last of these, to `score`.
local function note(taking, one, popped, started, score, began)
  taking.budget, taking.popped = taking.budget - popped, taking.popped + popped
  if started == 0 then return end
  one.score, one.began, taking.taken = score, began, taking.taken + started
  limits.charge(taking.batch, one.buckets, one.costs, started)
end

-- Up to `portion` of a line start. Replies whether the line is used up.
local function start_some(taking, one, portion)
  local key = keys.line(taking.batch.base, taking.lane, one.name)
  portion = math.min(portion, taking.budget)
  local ids = redis.pcall('LPOP', key, clock.text(portion)) or {}
  note(taking, one, #ids, taking.claim_some(ids, one.name, one.score))
  return #ids < portion
end

-- A batch of a line starts, which counts as one. Replies whether the line is used up; where what is left gathers anew, its bucket
-- and until when.
local function start_batch(taking, one, bucket, size, wait_ms)
  local key = keys.line(taking.batch.base, taking.lane, one.name)
  local ids = redis.pcall('LPOP', key, clock.text(size)) or {}
  local turns, bytes, popped = taking.claim_batch(ids, one.name, BATCH_BYTES - taking.bytes)
  if popped < #ids then put_back(key, ids, popped + 1) end
  note(taking, one, popped, turns > 0 and 1 or 0, one.score + turns, one.score)
  taking.bytes = taking.bytes + bytes
  if taking.bytes >= BATCH_BYTES then
    -- The rest is for the next call, and need not gather.
    taking.budget = 0
    return popped == #ids and redis.call('EXISTS', key) == 0
  end
  if #ids < size then return true end
  local left = redis.call('LLEN', key)
  if left > 0 and left < size and wait_ms > 0 then return false, bucket, taking.batch.now + wait_ms end
  return left == 0
end

-- A line whose turn it is: up to `portion` of it start, or it goes under the bucket that has no room. Replies whether it is out
-- of the ring. Other lines may have waited for what it leaves: its buckets are looked at again.
local function serve(taking, one, portion)
  local batch, room, least, opens_at = taking.batch, room_of(taking.batch, one)
  local waits_for = room < 1 and redis.call('EXISTS', keys.line(batch.base, taking.lane, one.name)) == 1 and least
  local is_used_up = room < 1
  if waits_for and string.find(one.name, '*', 1, true) and limits.save(batch, one.buckets, one.costs) then
    one.score = saving.NEXT
  end
  if room >= 1 then
    local bucket, size, wait_ms = limits.batch_of(batch, one.name)
    if bucket then
      is_used_up, waits_for, opens_at = start_batch(taking, one, bucket, size, wait_ms)
    else
      is_used_up, waits_for, opens_at = start_some(taking, one, math.min(portion, room)), nil, nil
    end
  end
  if waits_for then
    block(taking, one, waits_for, opens_at)
  elseif not is_used_up then
    taking.scores[one.name] = one.score
    return false
  end
  -- One that gives nothing was looked at, too.
  taking.budget = taking.budget - 1
  taking.scores[one.name] = nil
  taking.gone[#taking.gone + 1] = one.name
  for i = 1, #one.buckets do
    local bucket = one.buckets[i]
    if bucket ~= waits_for and not taking.again[bucket] then
      taking.again[bucket], taking.again[#taking.again + 1] = true, bucket
    end
  end
  return true
end

-- Serve the open lines, always the one that is furthest behind. Beyond `bound` lines that are not here have their turn.
local function serve_all(taking, want, open, bound)
  local first, count = 1, #open
  -- Those that were served already, in order, too.
  local served, first_served = {}, 1
  while taking.taken < want and taking.budget > 0 and count > 0 do
    local one, left = open[first], want - taking.taken
    if not one or served[first_served] and is_before(served[first_served], one) then
      one, first_served = served[first_served], first_served + 1
    else
      first = first + 1
    end
    if one.score > bound then return end
    taking.reached = math.max(taking.reached, one.score)
    local is_alone = count == 1 and bound == math.huge
    local portion = is_alone and left or math.min(math.max(math.ceil(left / count), QUANTUM), LONGEST, left)
    local is_out
    if one.name then
      is_out = serve(taking, one, portion)
    else
      local got
      got, is_out = taking.take_ready(portion)
      taking.taken, one.score, taking.ready_is_dry = taking.taken + got, one.score + got, is_out
      taking.ready_score, one.began = one.score, got > 0 and one.score - 1
    end
    -- What a line had while it was alone is not held against it.
    if is_alone and one.began then taking.reached = math.max(taking.reached, one.began) end
    if is_out then
      count = count - 1
    else
      put_in(served, first_served, one)
    end
  end
end

-- Write what has become of the lines that were served.
local function write_lines(taking)
  local moved, ring = {}, keys.ring(taking.batch.base, taking.lane)
  for name, score in pairs(taking.scores) do moved[#moved + 1], moved[#moved + 2] = number.text(score), name end
  bulk.write('ZREM', ring, taking.gone)
  bulk.write('ZADD', ring, moved)
  line.block(taking.batch, taking.lane, taking.blocked, taking.opens)
  taking.scores, taking.gone, taking.blocked, taking.opens = {}, {}, {}, {}
end

-- Write how far the turns of the lane are.
local function write_turns(taking)
  local base, reached, ready_score = taking.batch.base, number.text(taking.reached), number.text(taking.ready_score)
  redis.pcall('HSET', keys.turns(base), taking.lane, reached .. ' ' .. ready_score)
  -- Not minus nothing: Redis 6.2 is told `-0`, and takes it for no integer.
  line.count(base, taking.lane, 0 - taking.popped)
end

-- Take up to `want` tasks of a lane, of its lines and its ready list in turn. `claim_some(ids, line, score)` claims those of a line
-- that may start, and replies how many, and its score after them, and before the last of them. `claim_batch(ids, line, most)`
-- claims a batch of it, until that has `most` bytes of arguments, and replies how far it moves the line on, its bytes, and how many
-- ids it has looked at. `take_ready(count)` claims from the ready list, and replies how many, and whether there is no more.
-- Replies how many were taken, whether there is no more, how many entries of lines were looked at, and an error where a damaged
-- key is in the way.
function M.take(batch, lane_name, want, budget, claim_some, claim_batch, take_ready)
  local taking = { batch = batch, lane = lane_name, budget = budget, taken = 0, popped = 0, bytes = 0, scores = {},
    gone = {}, blocked = {}, opens = {}, again = {}, claim_some = claim_some, claim_batch = claim_batch,
    take_ready = take_ready }
  taking.reached, taking.ready_score = line.turns(batch.base, lane_name)
  -- How many each line gave so far.
  local yield, is_last, err = QUANTUM, false, nil
  while taking.taken < want and taking.budget > 0 and not is_last do
    local before = taking.taken
    local open, bound
    open, bound, err = open_lines(batch, lane_name, math.max(math.ceil((want - before) / yield) + 1, 2))
    if err then open, bound = {}, math.huge end
    local count = #open
    if not taking.ready_is_dry then add_ready(taking, open) end
    serve_all(taking, want, open, bound)
    if not err then write_lines(taking) end
    yield = math.max(math.min((taking.taken - before) / count, yield), 1)
    is_last = bound == math.huge
  end
  if not err or taking.popped > 0 then write_turns(taking) end
  opening.reconsider(batch, taking.again, 0)
  return taking.taken, is_last and taking.taken < want, budget - taking.budget, err
end

return M
