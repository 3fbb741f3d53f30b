-- The timer: one idle worker at a time is told the next due time and wakes for it; it is kept in `meta`.
local M = {}

-- Lanes in which one worker each is woken to take the timer.
local MOST_WOKEN = 10

-- In this lane something may start at that time (ms).
function M.note(batch, lane_name, at)
  if not batch.first_due or at < batch.first_due then batch.first_due, batch.first_due_lane = at, lane_name end
end

-- When the next task falls due or, where tasks wait in lines (`has_lines`), the next bucket has room by time; nil: never.
local function next_due(base, has_lines)
  local due = redis.pcall('ZRANGE', keys.scheduled(base), 0, 0, 'WITHSCORES')
  local at = not errors.of(due) and tonumber(due[2]) or nil
  local opens = has_lines and redis.pcall('ZRANGE', keys.opens(base), 0, 0, 'WITHSCORES')
  local opens_at = opens and not errors.of(opens) and tonumber(opens[2])
  if opens_at and opens_at < (at or math.huge) then return opens_at, nil, opens[1] end
  return at, due[1]
end

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
  local _, id, bucket = next_due(base, true)
  local lanes = { id and redis.pcall('HGET', keys.task(base, id), 'lane') }
  if bucket then
    -- Those that wait under it: perhaps nobody else serves the first.
    local is_sound, named = pcall(cjson.decode, redis.pcall('HGET', keys.blocked_lanes(base), bucket) or '[]')
    lanes = is_sound and type(named) == 'table' and named or {}
  end
  for i = 1, math.min(#lanes, MOST_WOKEN) do
    if type(lanes[i]) == 'string' then lane.wake(base, lanes[i], 1) end
  end
end

-- A worker is about to block: when it should step again because something falls due, in ms from now; -1: another one
-- will, or nothing is scheduled. A timer that has passed was missed by its worker, and is given anew.
function M.wait_ms(batch, worker)
  local meta, due_at = keys.meta(batch.base), next_due(batch.base, batch.has_lines)
  if not due_at then return -1 end
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
