-- Membership of workers: leases, their rows, and the reaping of those that died.
local M = {}

local REAP_LIMIT = 100

-- Refuse a worker that is not a member, before anything else.
function M.require(base, worker)
  local expiry = errors.read('ZSCORE', keys.workers(base), worker)
  if not expiry or tonumber(expiry) == 0 then errors.raise(errors.lease_lost(worker)) end
end

function M.renew(base, worker, now, lease_ms)
  if lease_ms <= 0 then errors.raise(errors.bad_argument('lease_ms must be positive')) end
  redis.call('ZADD', keys.workers(base), now + lease_ms, worker)
end

-- Forget a worker that holds nothing any more.
function M.remove(base, worker)
  local row = keys.worker(base, worker)
  local mailbox = redis.call('HGET', row, 'mailbox')
  if mailbox then redis.call('DEL', keys.mailbox(base, mailbox)) end
  redis.call('DEL', row, keys.aborts(base, worker))
  redis.call('ZREM', keys.workers(base), worker)
end

-- The ids this worker is still asked to abort.
function M.aborts(base, worker)
  local asked = redis.call('SMEMBERS', keys.aborts(base, worker))
  if #asked == 0 then return asked end
  local tokens, open = redis.call('HMGET', keys.running(base, worker), unpack(asked)), {}
  for i, id in ipairs(asked) do
    if tokens[i] then open[#open + 1] = id else redis.call('SREM', keys.aborts(base, worker), id) end
  end
  return open
end

-- After an outage longer than half a lease everybody gets one more lease to show a sign of life.
local function may_reap(b, lease_ms)
  local meta = keys.meta(b.base)
  local beat = errors.read('HMGET', meta, 'last_beat', 'reap_after')
  local reap_after = tonumber(beat[2] or 0)
  if beat[1] and b.now - beat[1] > lease_ms / 2 then
    reap_after = b.now + lease_ms
    redis.call('HSET', meta, 'reap_after', reap_after)
  end
  redis.call('HSET', meta, 'last_beat', b.now)
  return b.now >= reap_after
end

-- Give the tasks of a worker whose lease ran out to others: it is marked lost (and refused from then on), then
-- emptied, a bounded portion a call. Replies 1 if more is left to reap.
function M.reap(b, lease_ms, ttl_ms, max_lost)
  if not may_reap(b, lease_ms) then return 0 end
  local workers = keys.workers(b.base)
  local expired = redis.call('ZRANGEBYSCORE', workers, '-inf', b.now, 'LIMIT', 0, 2)
  local worker = expired[1]
  if not worker then return 0 end
  redis.call('ZADD', workers, 0, worker)
  if task.take_from(b, worker, REAP_LIMIT, ttl_ms, true, max_lost) == 1 then return 1 end
  M.remove(b.base, worker)
  return #expired - 1
end

return M
