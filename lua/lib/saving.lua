-- Saving up: a start that costs several of a rate would wait for ever where others that cost less take each as it comes. When its
-- turn has come, its bucket is shut until there is room for it. That has started nothing: what is saved is there for whoever is
-- first then, so nothing is lost should the one that it was saved for be gone.
local M = {}

-- The turn of a line that is saved for has come: it waits in front of all others, by this score, and returns to the ring so far
-- ahead of those whose turn it is as well.
M.NEXT, M.AHEAD = -1, 2 ^ -10

-- When there is room for a start of this cost.
local function fits_at(one, cost) return one.reached - (one.burst - math.min(cost, one.burst)) * one.interval_ms end

-- Learn which of these buckets, all of them shut, save up: they have started less than what is shut for another reason.
function M.look(base, buckets, known)
  local places = {}
  for i, bucket in ipairs(buckets) do places[i] = keys.saving(base, bucket) end
  -- A damaged one reads as none.
  local found = bulk.collect(places, function(...) return redis.call('MGET', ...) end)
  for i, bucket in ipairs(buckets) do
    local reached, cost = string.match(found[i] or '', '^(%S+) (%d+)$')
    reached, cost = number.of(reached), number.of(cost)
    local one = known[bucket]
    if reached and cost and one.interval_ms then
      one.reached, one.saves_for = reached, cost
    elseif reached and cost then
      -- It has no rate any more.
      one.reached, one.shut_until = 0, nil
    end
  end
end

-- Until when, by what its rate is now.
function M.read_time(one)
  if not one.saves_for then return end
  one.shut_until, one.is_saving_changed = fits_at(one, one.saves_for), one.is_reached_changed
end

-- Save up for a start of this cost.
function M.begin(one, cost)
  one.saves_for, one.shut_until = cost, fits_at(one, cost)
  one.is_saving_changed, one.is_reached_changed = true, true
end

-- It has started something, or is shut for another reason.
function M.finish(one)
  if one.saves_for then one.saves_for, one.is_saving_changed = nil, true end
end

-- `lasts_until`: until it has a full burst again, if nothing starts.
function M.write(base, bucket, one, lasts_until, now)
  local key = keys.saving(base, bucket)
  if one.saves_for then
    redis.call('SET', key, number.text(one.reached) .. ' ' .. clock.text(one.saves_for), 'PX',
      clock.text(math.max(math.ceil(lasts_until - now), 1)))
  else
    redis.call('DEL', key)
  end
end

return M
