-- The alarm: one idle worker at a time is told the next due time and wakes for it; it is kept in `meta`.
local M = {}

-- Tasks were scheduled: one that falls due before the alarm makes a worker look again.
function M.scheduled(b)
  if not b.first_due then return end
  local alarm = redis.pcall('HGET', keys.meta(b.base), 'alarm')
  local at = number.of(alarm, 0)
  if at <= b.now or b.first_due < at then lane.wake(b.base, b.first_due_lane, 1) end
end

-- A worker is gone or has no slot left: if the alarm was its, another is woken, and takes it when it finds nothing to do.
function M.drop(base, worker)
  local meta = keys.meta(base)
  redis.pcall('HDEL', keys.worker(base, worker), 'alarm')
  local held = redis.pcall('HGET', meta, 'alarm_worker')
  if held ~= worker then return end
  redis.call('HDEL', meta, 'alarm', 'alarm_worker')
  local next_due = redis.pcall('ZRANGE', keys.scheduled(base), 0, 0)
  if errors.of(next_due) or #next_due == 0 then return end
  local name = redis.pcall('HGET', keys.task(base, next_due[1]), 'lane')
  if type(name) == 'string' then lane.wake(base, name, 1) end
end

-- A worker is about to block: when it should step again because a task falls due, in ms from now; -1: another one
-- will, or nothing is scheduled. An alarm that has passed was missed by its worker, and is given anew.
function M.wait_ms(b, worker)
  local next_due = redis.pcall('ZRANGE', keys.scheduled(b.base), 0, 0, 'WITHSCORES')
  if errors.of(next_due) or #next_due == 0 then return -1 end
  local meta, due_at = keys.meta(b.base), tonumber(next_due[2])
  local alarm = redis.call('HMGET', meta, 'alarm', 'alarm_worker')
  local at = number.of(alarm[1], 0)
  if alarm[2] ~= worker and at > b.now and at <= due_at then return -1 end
  if alarm[2] ~= worker or at ~= due_at then
    redis.call('HSET', meta, 'alarm', due_at, 'alarm_worker', worker)
    redis.call('HSET', keys.worker(b.base, worker), 'alarm', due_at)
  end
  return math.max(due_at - b.now, 0)
end

return M
