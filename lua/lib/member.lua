-- Membership of workers: leases, their rows, and the reaping of those that died.
local M = {}

local REAP_LIMIT = 100
local ABORT_LIMIT = 1000
local LOOK_AT = 10

-- Refuse a worker that is not a member, before anything else.
function M.require(base, worker)
  local expiry = errors.read('ZSCORE', keys.workers(base), worker)
  if not expiry or tonumber(expiry) <= 0 then errors.raise(errors.lease_lost(worker)) end
end

function M.check_lease(lease_ms)
  if lease_ms <= 0 then errors.raise(errors.bad_argument('lease_ms must be positive')) end
end

function M.renew(base, worker, now, lease_ms)
  M.check_lease(lease_ms)
  redis.call('ZADD', keys.workers(base), now + lease_ms, worker)
end

-- How many tasks a member holds, by its running hash; nil of others, false where a damaged key does not tell.
function M.held(base, worker)
  local expiry = redis.pcall('ZSCORE', keys.workers(base), worker)
  local count = redis.pcall('HLEN', keys.running(base, worker))
  if errors.of(expiry) or errors.of(count) then return false end
  return expiry and count or nil
end

-- Write down the load of a worker, anew. Replies whether it was another. A damaged `loads` costs a figure, hence pcall.
function M.count_load(base, worker)
  local held = M.held(base, worker)
  if held then return redis.pcall('ZADD', keys.loads(base), 'CH', held, worker) == 1 end
  return redis.pcall('ZREM', keys.loads(base), worker) == 1
end

-- A worker holds so many tasks more, or less. One whose load nobody wrote down yet is counted.
function M.change_load(base, worker, by)
  if not redis.pcall('ZADD', keys.loads(base), 'XX', 'INCR', by, worker) then M.count_load(base, worker) end
end

-- Forget a worker that holds nothing any more.
function M.remove(base, worker)
  local row = keys.worker(base, worker)
  local mailbox = redis.pcall('HGET', row, 'mailbox')
  if type(mailbox) == 'string' then redis.call('DEL', keys.mailbox(base, mailbox)) end
  redis.call('DEL', row, keys.aborts(base, worker))
  redis.call('ZREM', keys.workers(base), worker)
  redis.pcall('ZREM', keys.loads(base), worker)
  alarm.drop(base, worker)
end

-- A lease token as `running` has it: `12`, or `12/60000` where the task says itself how long its result is kept, so that
-- it need not be asked when it is complete. Replies the token, and that time or `ttl_ms`.
function M.token(text, ttl_ms)
  local token, own_ttl_ms = string.match(text or '', '^(%d+)/(-?%d+)$')
  if token then return token, number.of(own_ttl_ms, ttl_ms) end
  return text, ttl_ms
end

-- What this worker is asked to abort: id and token in turn of what it holds still, and the ids that are settled. Of very
-- many a part: the next call has others.
function M.aborts(base, worker)
  local asked, open, settled = errors.read('SRANDMEMBER', keys.aborts(base, worker), ABORT_LIMIT), {}, {}
  if #asked == 0 then return open, settled end
  local tokens = errors.read('HMGET', keys.running(base, worker), unpack(asked))
  for i, id in ipairs(asked) do
    -- A later task of the same id, which this worker may hold by now, was not asked for.
    local wish = tokens[i] and redis.pcall('HGET', keys.task(base, id), 'abort_requested')
    if wish then
      open[#open + 1], open[#open + 2] = id, (M.token(tokens[i]))
    else
      settled[#settled + 1] = id
    end
  end
  return open, settled
end

-- What a worker holds, the oldest claim first; the hash has no order of its own.
function M.claims(base, worker)
  local entries, held = errors.read('HGETALL', keys.running(base, worker)), {}
  for i = 1, #entries, 2 do
    held[#held + 1] = { id = entries[i], token = number.of((M.token(entries[i + 1])), 0) }
  end
  table.sort(held, function(x, y) return x.token < y.token end)
  return held
end

-- When anybody beat last, until when nobody is reaped, and what is paused.
function M.last_beat(base)
  return errors.read('HMGET', keys.meta(base), 'last_beat', 'reap_after', 'paused')
end

-- The expiry up to which a lease has run out. When nobody beat for more than half a lease, who had one until then gets
-- one more to show a sign of life. Such a grace stands still in further silences, beyond half a lease each, so that
-- beats which are always late put off nobody's end for ever.
local function run_out(b, beat, lease_ms)
  local last, reap_after = number.of(beat[1], b.now), number.of(beat[2], 0)
  local expiry, missed = b.now, b.now - last - math.floor(lease_ms / 2)
  if missed > 0 then
    if reap_after > last then reap_after = reap_after + missed end
    if reap_after <= b.now then reap_after, expiry = b.now + lease_ms, last else expiry = 0 end
    redis.call('HSET', keys.meta(b.base), 'last_beat', b.now, 'reap_after', reap_after)
  else
    if reap_after > b.now then expiry = 0 end
    redis.call('HSET', keys.meta(b.base), 'last_beat', b.now)
  end
  return expiry
end

-- The workers to reap: first those that were being reaped, then those whose lease ran out since. One that was stuck
-- comes after the others, and not before its time.
local function lost(b, workers, expiry)
  local found = redis.call('ZREVRANGEBYSCORE', workers, 0, batch.STUCK_MS - b.now, 'LIMIT', 0, LOOK_AT)
  local expired = redis.call('ZRANGEBYSCORE', workers, '(0', expiry, 'LIMIT', 0, LOOK_AT)
  for _, worker in ipairs(expired) do found[#found + 1] = worker end
  return found
end

-- Give the tasks of a worker whose lease ran out to others: it is marked lost (and refused from then on), then
-- emptied, a bounded portion a call. One that damaged keys keep from it is marked as stuck, by minus the time, and the
-- next is looked at. Replies whether more is left to reap.
function M.reap(b, beat, lease_ms, ttl_ms, max_lost)
  local workers = keys.workers(b.base)
  local found = lost(b, workers, run_out(b, beat, lease_ms))
  for i, worker in ipairs(found) do
    local moved, left, untried = 0, true, false
    redis.call('ZADD', workers, 0, worker)
    if not batch.obstacle(b, 'HLEN', keys.running(b.base, worker)) then
      moved, left, untried = attempt.take_from(b, worker, REAP_LIMIT, ttl_ms, true, max_lost)
    end
    if not left then M.remove(b.base, worker) end
    if moved > 0 or untried or not left then return left or i < #found end
    redis.call('ZADD', workers, clock.text(-b.now), worker)
  end
  return #found >= LOOK_AT
end

return M
