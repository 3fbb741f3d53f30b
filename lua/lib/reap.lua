-- The reaping of workers that died: whose lease has run out, and what they had claimed.
local M = {}

local REAP_LIMIT = 100
local LOOK_AT = 10

-- The expiry up to which a lease has run out. When nobody beat for more than half a lease, who had one until then gets
-- one more to show a sign of life. Further silences of more than half a lease do not begin such a grace anew but stop its
-- clock, so that beats which are always late do not keep a dead worker for ever.
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

-- The workers to reap: first those that were being reaped, then those whose lease ran out since. One that was stuck
-- comes after the others, and not before its time.
local function lost(batch, workers, expiry)
  local found = redis.call('ZREVRANGEBYSCORE', workers, 0, batches.STUCK_MS - batch.now, 'LIMIT', 0, LOOK_AT)
  local expired = redis.call('ZRANGEBYSCORE', workers, '(0', expiry, 'LIMIT', 0, LOOK_AT)
  for _, worker in ipairs(expired) do found[#found + 1] = worker end
  return found
end

-- Give the tasks of a worker whose lease ran out to others: it is marked lost (and refused from then on), then
-- emptied, a bounded portion a call. One that damaged keys keep from it is marked as stuck, by minus the time, and the
-- next is looked at. Replies whether more is left to reap.
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
