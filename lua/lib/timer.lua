-- The timer: one idle worker at a time is told the next due time and wakes for it; it is kept in `meta`.
local M = {}

-- Tasks were scheduled: one that falls due before the timer makes a worker look again.
function M.scheduled(batch)
  local timer = redis.pcall('HGET', keys.meta(batch.base), 'timer_at')
  local at = number.of(timer, 0)
  if at <= batch.now or batch.first_due < at then lane.wake(batch.base, batch.first_due_lane, 1) end
end

-- A worker is gone or has no slot left: if the timer was its, another is woken, and takes it when it finds nothing to do.
function M.drop(base, worker)
  local meta = keys.meta(base)
  redis.pcall('HDEL', keys.worker(base, worker), 'timer_at')
  local held = redis.pcall('HGET', meta, 'timer_worker')
  if held ~= worker then return end
  redis.call('HDEL', meta, 'timer_at', 'timer_worker')
  local next_due = redis.pcall('ZRANGE', keys.scheduled(base), 0, 0)
  if errors.of(next_due) or #next_due == 0 then return end
  local name = redis.pcall('HGET', keys.task(base, next_due[1]), 'lane')
  if type(name) == 'string' then lane.wake(base, name, 1) end
end

-- A worker is about to block: when it should step again because a task falls due, in ms from now; -1: another one
-- will, or nothing is scheduled. A timer that has passed was missed by its worker, and is given anew.
function M.wait_ms(batch, worker)
  local next_due = redis.pcall('ZRANGE', keys.scheduled(batch.base), 0, 0, 'WITHSCORES')
  if errors.of(next_due) or #next_due == 0 then return -1 end
  local meta, due_at = keys.meta(batch.base), tonumber(next_due[2])
  local timer = redis.call('HMGET', meta, 'timer_at', 'timer_worker')
  local at = number.of(timer[1], 0)
  if timer[2] ~= worker and at > batch.now and at <= due_at then return -1 end
  if timer[2] ~= worker or at ~= due_at then
    redis.call('HSET', meta, 'timer_at', due_at, 'timer_worker', worker)
    redis.call('HSET', keys.worker(batch.base, worker), 'timer_at', due_at)
  end
  return math.max(due_at - batch.now, 0)
end

return M
