-- Limits: how many attempts of a bucket run at once over all workers, and how many may start in a time. A bucket is the name of
-- a limit, or `name(key)`; a task names its buckets when it is enqueued. Here is kept what a call knows of buckets: read once,
-- changed in memory, written once at its end. Where tasks wait is for line.lua, whose turn it is for turn.lua.
local M = {}

local FIELDS = { concurrency = 'number', rate = 'number', per_ms = 'number', burst = 'number', ordered = 'boolean',
  max_waiting = 'number', recovery_ms = 'number' }
local MAX_NAME, MAX_KEY = 100, 256
-- Beyond, the times that a rate is kept by would be no longer exact.
local MAX_BURST_MS = 1e15
-- What a name may have, and what of a key stands in a bucket as it is; all else is written as %XX.
local PLAIN, OTHER = '^[%w_.%-/@\128-\255]+$', '[^%w_.%-/@\128-\255]'
-- How long after its time it is known that a bucket was shut.
local SHUT_KEPT_MS = 86400000
-- A start that is due to the fraction of a millisecond is due.
local TOLERANCE = 1e-6

local function bad(what) errors.raise(errors.bad_argument(what)) end

-- NaN and infinity are none of them.
local function is_whole(number, least) return number >= least and number < 2 ^ 53 and number % 1 == 0 end

function M.check_name(name)
  -- A `#` in front is that of a batch.
  if #name > MAX_NAME or not string.find(string.gsub(name, '^#', ''), PLAIN) then
    bad('the name of a limit must be 1 to ' .. MAX_NAME .. ' letters, digits or any of _ . - / @')
  end
end

-- Refuse a definition whose parts do not go together. `what`: the definition, in the refusal.
local function check_parts(what, parts)
  if parts.rate and not parts.per_ms then bad(what .. ' has a rate and no per_ms: give both') end
  if not parts.rate and (parts.per_ms or parts.burst) then
    bad(what .. ' has ' .. (parts.per_ms and 'per_ms' or 'a burst') .. ' and no rate: give both')
  end
  if parts.rate and parts.per_ms / parts.rate * (parts.burst or 1) > MAX_BURST_MS then
    bad(what .. ' is too slow: a full burst would take more than ' .. clock.text(MAX_BURST_MS) .. ' ms')
  end
  if (parts.recovery_ms or 0) > 0 and not (parts.concurrency or parts.rate) then
    bad(what .. ' has a recovery_ms, and neither a concurrency nor a rate')
  end
  if parts.ordered and (parts.concurrency or 2) > 1 then
    bad(what .. ' is ordered, which belongs to a concurrency of 1')
  end
end

-- Refuse what is no definition. `is_override`: what operators put over one, which may have any part of it, and close a limit.
function M.check(name, text, is_override)
  M.check_name(name)
  if gather.is(name) then return gather.check(name, text, is_override) end
  local what = 'the definition of limit ' .. name
  local fields = object.decode(text, FIELDS, what)
  local concurrency, rate, per_ms, burst = fields.concurrency, fields.rate, fields.per_ms, fields.burst
  local least = is_override and 0 or 1
  if concurrency and not is_whole(concurrency, least) then
    bad(what .. ': concurrency must be a whole number >= ' .. least)
  end
  if rate and not (rate > 0 and rate < 2 ^ 53) then bad(what .. ': rate must be a number > 0') end
  if per_ms and not is_whole(per_ms, 1) then bad(what .. ': per_ms must be a whole number >= 1') end
  if burst and not is_whole(burst, 1) then bad(what .. ': burst must be a whole number >= 1') end
  local most = fields.max_waiting
  if most and not is_whole(most, 1) then bad(what .. ': max_waiting must be a whole number >= 1') end
  local recovery_ms = fields.recovery_ms
  if recovery_ms and not is_whole(recovery_ms, least) then
    bad(what .. ': recovery_ms must be a whole number >= ' .. least)
  end
  if next(fields) == nil then bad(what .. ' is empty: give concurrency, or rate and per_ms, or max_waiting') end
  if not is_override then check_parts(what, fields) end
  return fields
end

-- The bucket of a limit, and of a key where it has one.
function M.bucket(name, key)
  if not key or key == '' then return name end
  if #key > MAX_KEY then
    bad('the key of limit ' .. name .. ' has ' .. #key .. ' bytes, and may have ' .. MAX_KEY .. ': '
      .. string.sub(key, 1, 40) .. '…')
  end
  if not string.find(key, OTHER) then return name .. '(' .. key .. ')' end
  return name .. '(' .. string.gsub(key, OTHER, function(c) return string.format('%%%02X', string.byte(c)) end) .. ')'
end

-- Somebody may have written one by hand. What makes no sense lets nothing start, and says so to whoever enqueues.
local DAMAGED = { concurrency = 0, is_damaged = true }
-- Parts that may be 0.
local FROM_0 = { concurrency = true, recovery_ms = true, batch_wait_ms = true }

-- Whether each part that is known is what it should be; a later version may have others.
local function is_sound(fields, kinds)
  for name, kind in pairs(kinds) do
    local value = fields[name]
    if value ~= nil and type(value) ~= kind then return false end
    if value and kind == 'number' then
      local least_is_0 = value == 0 and FROM_0[name]
      if not (least_is_0 or value > 0 and value < 2 ^ 53) then return false end
    end
  end
  return true
end

-- Texts are decoded once: they say the same in every call.
local decoded, decoded_count = {}, 0

local function decode(text)
  local fields = decoded[text]
  if fields == nil then
    local ok, found = pcall(cjson.decode, text)
    ok = ok and type(found) == 'table' and is_sound(found, FIELDS) and is_sound(found, gather.FIELDS)
    fields = ok and found or DAMAGED
    if decoded_count >= 1000 then decoded, decoded_count = {}, 0 end
    decoded[text], decoded_count = fields, decoded_count + 1
  end
  return fields
end

local function add_field(into, text)
  local fields = text and decode(text)
  if not fields or into == DAMAGED then return into end
  if not into or fields == DAMAGED then return fields end
  local sum = {}
  for name, value in pairs(into) do sum[name] = value end
  for name, value in pairs(fields) do sum[name] = value end
  return sum
end

-- A definition with what operators put for a bucket over it.
function M.with_override(base, definition, bucket)
  return add_field(definition, redis.call('HGET', keys.overrides(base), bucket))
end

function M.name(bucket) return string.match(bucket, '^[^(]*') end

-- The effective definitions of buckets: what code declared, with what operators put for the limit and for the bucket over it.
-- Each is nil where there is none; and whether operators put anything. Or nil and an error where a key is damaged.
function M.definitions(base, buckets)
  local names, at, name_at, found = {}, {}, {}, {}
  for i = 1, #buckets do
    local name = M.name(buckets[i])
    if not at[name] then names[#names + 1], at[name] = name, #names + 1 end
    name_at[i] = at[name]
  end
  local code = bulk.read('HMGET', keys.limits(base), names)
  if errors.of(code) then return nil, errors.wrong_type(keys.limits(base)) end
  local count = redis.pcall('HLEN', keys.overrides(base))
  if errors.of(count) then return nil, errors.wrong_type(keys.overrides(base)) end
  local of_names = count > 0 and bulk.read('HMGET', keys.overrides(base), names) or {}
  local of_buckets = count > 0 and bulk.read('HMGET', keys.overrides(base), buckets) or {}
  local of_limits = {}
  for i = 1, #names do of_limits[i] = add_field(add_field(nil, code[i]), of_names[i]) or false end
  for i = 1, #buckets do
    local definition = of_limits[name_at[i]] or nil
    if of_buckets[i] and buckets[i] ~= names[name_at[i]] then definition = add_field(definition, of_buckets[i]) end
    found[i] = definition
  end
  return found, nil, count > 0
end

-- The buckets of a line, and what one start costs of each.
local ONE = { 1 }
function M.parse(line)
  -- Most have one, and cost one.
  if not string.find(line, '[,*]') then return { line }, ONE end
  local buckets, costs = {}, {}
  for part in string.gmatch(line, '[^,]+') do
    local bucket, cost = string.match(part, '^(.*)%*(%d+)$')
    buckets[#buckets + 1], costs[#costs + 1] = bucket or part, tonumber(cost) or 1
  end
  return buckets, costs
end

-- What a bucket that is shut until then may start by then, and that is one, has started.
local function reached_when_shut(one)
  return one.interval_ms and one.shut_until + (one.burst - 1) * one.interval_ms or one.shut_until
end

-- What a bucket has started is no more than a full burst of its rate, also where that was slower: so a change counts at once.
function M.cap(batch, one)
  local most = one.interval_ms and adaptive.reach(one, batch.now, one.burst * one.interval_ms) or batch.now
  if one.reached > most then one.reached, one.shut_until, one.is_reached_changed = most, nil, not batch.limits_err end
end

-- Of a limit that nobody defines.
local NONE = {}

-- What holds a slot of these buckets, as `busy` has it.
local function read_busy(batch, buckets)
  local busy = bulk.read('HMGET', keys.busy(batch.base), buckets)
  if errors.of(busy) then
    batch.busy_is_damaged = true
    batch.limits_err = batch.limits_err or errors.wrong_type(keys.busy(batch.base))
  end
  return busy
end

local function count_of(busy) return busy and math.floor(number.of(busy, 0)) or 0 end

-- Learn what is known of these buckets, those that this call has not asked for before. Replies an error where a key that says
-- so is damaged: then nothing of any may start.
function M.look(batch, buckets)
  local base, known, asked = batch.base, batch.buckets or {}, {}
  batch.buckets = known
  for i = 1, #buckets do
    local bucket = buckets[i]
    local one = known[bucket]
    if not one then
      known[bucket] = true
      asked[#asked + 1] = bucket
    elseif one ~= true and one.is_count_alone then
      one.is_count_alone = nil
      asked[#asked + 1] = bucket
    end
  end
  if #asked == 0 then return batch.limits_err end
  local definitions, err = M.definitions(base, asked)
  local busy = read_busy(batch, asked)
  local reached = bulk.read('ZMSCORE', keys.rates(base), asked)
  err = err or errors.of(reached) and errors.wrong_type(keys.rates(base))
  batch.limits_err = batch.limits_err or err or nil
  -- Those that have more than a concurrency.
  local special, shut = {}, {}
  for i = 1, #asked do
    local bucket = asked[i]
    local definition, score = definitions and definitions[i] or NONE, reached[i]
    -- What would gather runs one by one, as where nobody defines that any more.
    if definition.is_damaged and gather.is(bucket) then definition = NONE end
    local interval_ms = definition.rate and definition.per_ms and definition.per_ms / definition.rate
    local counted = known[bucket]
    -- With all that most of them get, since a table that has to grow costs as much again.
    local one = { concurrency = definition.concurrency, burst = definition.burst or 1, reached = 0, busy = 0,
      is_changed = false }
    if counted == true then
      one.busy = count_of(busy[i])
    else
      one.busy, one.is_changed = counted.busy, counted.is_changed
    end
    known[bucket] = one
    if definition.ordered then one.is_ordered = true end
    if definition.batch_size then
      one.batch_size, one.batch_wait_ms = definition.batch_size, definition.batch_wait_ms
    end
    if score or interval_ms or definition.recovery_ms then
      -- The theoretical arrival time of GCRA (ITU-T I.371): until then all that may start has started. It says nothing of a
      -- limit that has no rate any more.
      score = number.of(score, 0)
      if interval_ms then one.interval_ms, one.reached = interval_ms, math.max(score, 0) end
      if definition.recovery_ms then one.recovery_ms = adaptive.recovery_ms(definition) end
      -- With a minus: until when a task has shut it, whatever its rate is by now.
      if score < 0 then
        one.shut_until = -score
        one.reached = reached_when_shut(one)
        shut[#shut + 1] = bucket
      end
      special[#special + 1] = bucket
    end
  end
  if #special == 0 then return batch.limits_err end
  adaptive.look(base, special, known, batch.now)
  if #shut > 0 then saving.look(base, shut, known) end
  for _, bucket in ipairs(special) do
    local one = known[bucket]
    if one.saves_for or not one.shut_until then M.cap(batch, one) end
    saving.read_time(one)
  end
  return batch.limits_err
end

-- The bucket of a line that gathers, how many it gathers, and for how long (ms) it waits for them; nil of others. What nobody
-- defines any more runs one by one.
function M.batch_of(batch, line)
  if not gather.is(line) then return nil end
  for _, bucket in ipairs((M.parse(line))) do
    if gather.is(bucket) then
      M.look(batch, { bucket })
      local one = batch.buckets[bucket]
      return bucket, one.batch_size or 1, one.batch_wait_ms or 0
    end
  end
end

-- The lanes where lines wait under a bucket, as `blocked_lanes` has them.
function M.lanes(text)
  if not text then return {} end
  local ok, found = pcall(cjson.decode, text)
  local lanes = {}
  for _, name in ipairs(ok and type(found) == 'table' and found or {}) do
    if type(name) == 'string' then lanes[#lanes + 1] = name end
  end
  return lanes
end

-- How many may start now at this cost; where none may for want of time, when one may (ms).
function M.room(batch, bucket, cost)
  local one, room, opens_at = batch.buckets[bucket], math.huge, nil
  -- Most have a concurrency alone.
  if not (one.interval_ms or one.shut_until or one.share) then
    return one.concurrency and math.max(one.concurrency - one.busy, 0) or room
  end
  local ahead_ms = math.max(one.reached - batch.now, 0)
  if one.concurrency then
    local may
    may, opens_at = adaptive.concurrency(one, batch.now)
    room = math.max(may - one.busy, 0)
  end
  local shut_until = one.shut_until or 0
  if shut_until > batch.now then room, opens_at = 0, math.ceil(shut_until) end
  if one.interval_ms then
    local each_ms = math.min(cost, one.burst) * one.interval_ms
    local spare_ms = one.burst * one.interval_ms - each_ms - ahead_ms
    if spare_ms < -TOLERANCE * each_ms then
      room, opens_at = 0, math.ceil(math.max(batch.now - spare_ms, shut_until))
    else
      local work_ms = adaptive.work(one, batch.now + ahead_ms, spare_ms)
      room = math.min(room, math.floor(work_ms / each_ms + TOLERANCE) + 1)
    end
  end
  return room, opens_at and math.max(opens_at, batch.now + 1)
end

-- So many of a line have started.
function M.charge(batch, buckets, costs, count)
  for i = 1, #buckets do
    local one = batch.buckets[buckets[i]]
    one.busy, one.is_changed = one.busy + count, true
    if one.interval_ms then
      one.reached = adaptive.reach(one, math.max(one.reached, batch.now), count * costs[i] * one.interval_ms)
      one.shut_until, one.is_reached_changed = nil, true
      saving.finish(one)
    end
  end
end

-- A line whose turn it is has no room because it costs more than one. If one that costs less would start in its place, nothing
-- does until there is room for it. Replies whether.
function M.save(batch, buckets, costs)
  for _, bucket in ipairs(buckets) do
    if M.room(batch, bucket, 1) < 1 then return false end
  end
  for i, bucket in ipairs(buckets) do
    if M.room(batch, bucket, costs[i]) < 1 then saving.begin(batch.buckets[bucket], costs[i]) end
  end
  return true
end

-- A claim of a line has ended: its slots are free. `freed_lines`: the lines, and of each how many.
function M.free(batch, line)
  local lines = batch.freed_lines or {}
  batch.freed_lines = lines
  local count = lines[line]
  if not count then lines[#lines + 1] = line end
  lines[line] = (count or 0) + 1
end

-- Learn of these buckets what holds a slot, and no more than that.
local function look_at_counts(batch, buckets)
  local known, asked = batch.buckets or {}, {}
  batch.buckets = known
  for _, bucket in ipairs(buckets) do
    if not known[bucket] then asked[#asked + 1] = bucket end
  end
  if #asked == 0 then return end
  local busy = read_busy(batch, asked)
  for i = 1, #asked do known[asked[i]] = { busy = count_of(busy[i]), is_count_alone = true, is_changed = false } end
end

-- Count what was freed: mostly nobody waits for it. Replies the buckets that have to be looked at again for those that do, and
-- how many of them are to be whatever they are: the others not where they gather, for that waits for no end of another batch.
function M.settle(batch)
  local freed, lines, buckets = batch.freed or {}, batch.freed_lines or {}, {}
  batch.freed, batch.freed_lines = nil, nil
  for bucket in pairs(freed) do buckets[#buckets + 1] = bucket end
  -- In the same order everywhere.
  table.sort(buckets)
  local due = #buckets
  for i = 1, #lines do
    local of_line, count = M.parse(lines[i]), lines[lines[i]]
    for n = 1, #of_line do
      local bucket = of_line[n]
      if not freed[bucket] then buckets[#buckets + 1], freed[bucket] = bucket, 0 end
      freed[bucket] = freed[bucket] + count
    end
  end
  look_at_counts(batch, buckets)
  for i = 1, #buckets do
    local one, count = batch.buckets[buckets[i]], freed[buckets[i]]
    if count ~= 0 then one.busy, one.is_changed = math.max(one.busy - count, 0), true end
  end
  return buckets, due
end

-- Refuse a change of limits while nothing is written yet, if what follows from it could not be written.
function M.check_keys(base)
  errors.read('HLEN', keys.blocked_lanes(base))
  errors.read('HLEN', keys.busy(base))
  errors.read('ZCARD', keys.opens(base))
  errors.read('ZCARD', keys.rates(base))
  errors.read('HGET', keys.meta(base), 'limited')
end

-- Refuse an override that does not go together with what it is put over. `text`: what is put for the limit, or for one `key` of it.
function M.check_together(base, name, key, text, declared)
  local over = add_field(nil, declared or nil)
  if key ~= '' then over = add_field(over, errors.read('HGET', keys.overrides(base), name) or nil) end
  check_parts('limit ' .. M.bucket(name, key), add_field(over, text))
end

-- The buckets of a line whose tasks keep their order when one is to run again.
function M.ordered(batch, line)
  local buckets, found = M.parse(line), {}
  M.look(batch, buckets)
  for _, bucket in ipairs(buckets) do
    if batch.buckets[bucket].is_ordered then found[#found + 1] = bucket end
  end
  return found
end

-- Nothing of a bucket starts until then; then one may, and the rate goes on from there.
function M.shut(batch, bucket, until_at)
  M.look(batch, { bucket })
  local one = batch.buckets[bucket]
  local reached, shut_until = one.reached, one.shut_until
  one.shut_until = until_at
  one.reached = reached_when_shut(one)
  if one.reached > math.max(reached, batch.now) then
    one.is_reached_changed = not batch.limits_err
    saving.finish(one)
  else
    one.reached, one.shut_until = reached, shut_until
  end
end

-- An operator says what a bucket lets start: what a task has shut is open. Replies whether it was shut.
function M.open(batch, bucket)
  M.look(batch, { bucket })
  local one = batch.buckets[bucket]
  local was_shut = one.shut_until and not one.saves_for or false
  M.cap(batch, one)
  return was_shut
end

-- What runs of each bucket, by the leases: all claims of all workers are read.
function M.count_busy(base)
  local counted = {}
  for _, worker in ipairs(errors.read('ZRANGE', keys.workers(base), 0, -1)) do
    for _, lease in ipairs(errors.read('HVALS', keys.running(base, worker))) do
      local _, _, _, line_name = member.token(lease)
      for _, bucket in ipairs(line_name and M.parse(line_name) or {}) do
        counted[bucket] = (counted[bucket] or 0) + 1
      end
    end
  end
  return counted
end

-- Those whose time has come are as good as absent: as many as were added are looked at. What was shut has one start by then, and
-- no full burst: it is kept for longer.
local function trim(batch, added)
  local base, least = batch.base, clock.text(batch.now - SHUT_KEPT_MS)
  local past = redis.call('ZRANGEBYSCORE', keys.rates(base), '-' .. least, batch.now_text, 'LIMIT', 0, 2 * added)
  bulk.write('ZREM', keys.rates(base), past)
end

-- Write what has changed.
function M.write(batch)
  local base, busy, idle, reached = batch.base, {}, {}, {}
  for bucket, one in pairs(batch.buckets) do
    if one.is_changed then
      one.is_changed = nil
      if one.busy > 0 then
        busy[#busy + 1], busy[#busy + 2] = bucket, clock.text(one.busy)
      else
        idle[#idle + 1] = bucket
      end
    end
    if one.is_reached_changed then
      local score = one.shut_until and -one.shut_until or one.reached
      reached[#reached + 1], reached[#reached + 2] = number.text(score), bucket
      one.is_reached_changed = nil
    end
    if one.is_share_changed then
      adaptive.write(base, bucket, one, batch.now)
      one.is_share_changed = nil
    end
    if one.is_saving_changed then
      saving.write(base, bucket, one, one.saves_for and reached_when_shut(one), batch.now)
      one.is_saving_changed = nil
    end
  end
  if not batch.busy_is_damaged then
    bulk.write('HSET', keys.busy(base), busy)
    bulk.write('HDEL', keys.busy(base), idle)
  end
  if #reached > 0 then
    bulk.write('ZADD', keys.rates(base), reached)
    trim(batch, #reached / 2)
  end
end

return M
