-- Counters of a queue: in total, and per minute for two hours. Written once a call, whatever its size.
local M = {}

M.MINUTE_TTL_S = 7200
-- What is counted, in the order in which `stats` answers it.
M.COUNTERS = { 'enqueued', 'completed', 'failed', 'retried', 'snoozed', 'unknown', 'aborted', 'expired', 'released',
  'held', 'lost', 'requeued', 'discarded', 'unreadable', 'ghosts' }

-- A key of one minute is named by it.
function M.minute(now) return (now - now % 60000) / 60000 end

-- The minutes that a query is asked for, the newest first: now, and how long ago the first and the last of them were.
function M.minutes(args)
  return clock.now(), args.minutes_ago, args.minutes_ago + args.minutes - 1
end

-- A damaged statistics key costs figures, never a task, hence pcall.
function M.add(base, now, name, count)
  if count == 0 then return end
  local minute = keys.stats_minute(base, M.minute(now))
  redis.pcall('HINCRBY', keys.stats(base), name, count)
  -- The first of its name may be the first of its minute.
  if redis.pcall('HINCRBY', minute, name, count) == count then redis.pcall('EXPIRE', minute, M.MINUTE_TTL_S) end
end

return M
