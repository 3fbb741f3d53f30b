-- Adaptive limits: where a task finds one used up elsewhere, half of what its bucket lets start is left, and it creeps back
-- linearly (additive increase, multiplicative decrease: Chiu and Jain, 1989), within `recovery_ms` from nothing to all. Kept is
-- the share that was left and since when it grows; what it is by now is worked out by whoever looks. A bucket is `one` of
-- those that limits.lua knows.
local M = {}

-- A share that lacks but the end of a fraction is enough for one more.
local TOLERANCE = 1e-6

-- Of a definition: nil where it is not adaptive.
function M.recovery_ms(definition)
  local recovery_ms = number.of(definition.recovery_ms, 0)
  return recovery_ms > 0 and recovery_ms or nil
end

local function whole_at(one) return one.since + (1 - one.share) * one.recovery_ms end

-- Learn which of these buckets are slowed. Where none is adaptive nothing is asked.
function M.look(base, buckets, known, now)
  local places, asked = {}, {}
  for _, bucket in ipairs(buckets) do
    if known[bucket].recovery_ms then
      places[#places + 1], asked[#asked + 1] = keys.slowed(base, bucket), known[bucket]
    end
  end
  if #places == 0 then return end
  -- A damaged one reads as none, and is written over.
  local found = bulk.collect(places, function(...) return redis.call('MGET', ...) end)
  for i, one in ipairs(asked) do
    local share, since = string.match(found[i] or '', '^(%S+) (%S+)$')
    share, since = number.of(share, 1), number.of(since, 0)
    if share > 0 and share < 1 and since + (1 - share) * one.recovery_ms > now then
      one.share, one.since = share, since
    end
  end
end

-- What is left of a bucket now: 1 where it is not slowed.
function M.share(one, now)
  return one.share and math.min(one.share + math.max(now - one.since, 0) / one.recovery_ms, 1) or 1
end

-- The same of a bucket that nothing is known of but its definition.
function M.share_of(base, bucket, definition, now)
  local one = { recovery_ms = M.recovery_ms(definition) }
  M.look(base, { bucket }, { [bucket] = one }, now)
  return M.share(one, now)
end

-- How many may run now, at least one; and where a slowed bucket has no room, when one more may.
function M.concurrency(one, now)
  local most = one.concurrency
  if not one.share then return most end
  local may = math.max(math.min(most, 1), math.floor(most * M.share(one, now) + TOLERANCE))
  if may > one.busy or one.busy >= most then return may end
  return may, math.ceil(one.since + math.max((one.busy + 1) / most - one.share, 0) * one.recovery_ms)
end

-- What a rate has let start by a time, in ms of the full one, counted from when that is there again; and the reverse.
local function worked(one, at)
  local left = whole_at(one) - at
  return left <= 0 and -left or left * left / (2 * one.recovery_ms) - left
end

local function worked_at(one, work)
  if work >= 0 then return whole_at(one) + work end
  return whole_at(one) - one.recovery_ms * (1 - math.sqrt(1 + 2 * work / one.recovery_ms))
end

-- By when the rate lets start, from `from` on, what the full one does in `ms`; and what it does in so long, in ms of the full one.
function M.reach(one, from, ms)
  if not one.share then return from + ms end
  from = math.max(from, one.since)
  -- To the microsecond: below, a number as large as a time says something else from call to call.
  return math.floor(worked_at(one, worked(one, from) + ms) * 1000 + 0.5) / 1000
end

function M.work(one, from, ms)
  if not one.share then return ms end
  from = math.max(from, one.since)
  return worked(one, from + ms) - worked(one, from)
end

-- An attempt that began at `started_at` found it used up elsewhere, and nothing starts until `until_at`: from then on there is
-- half of what there was. One that began before the share grows tells only what is known.
function M.slow(one, now, started_at, until_at)
  if not one.recovery_ms then return end
  local since = math.max(until_at, now + 1)
  if not one.share or started_at >= one.since then
    one.share, one.since, one.is_share_changed = tonumber(string.format('%.4g', M.share(one, now) / 2)), since, true
  elseif one.since > now and since > one.since then
    one.since, one.is_share_changed = since, true
  end
end

-- Until it is whole.
function M.write(base, bucket, one, now)
  redis.call('SET', keys.slowed(base, bucket), string.format('%.4g %d', one.share, one.since), 'PX',
    clock.text(math.ceil(whole_at(one) - now)))
end

return M
