-- Counters of a queue: in total, and per minute for two hours. Written once a call, whatever its size.
local M = {}

M.MINUTE_TTL_S = 7200

-- `counters`: name -> how many. A damaged statistics key costs figures, never a task, hence pcall.
function M.add(base, now, counters)
  local minute, is_new
  for name, count in pairs(counters) do
    if count ~= 0 then
      minute = minute or keys.stats_minute(base, math.floor(now / 60000))
      redis.pcall('HINCRBY', keys.stats(base), name, count)
      -- The first of its name may be the first of its minute.
      if redis.pcall('HINCRBY', minute, name, count) == count then is_new = true end
    end
  end
  if is_new then redis.pcall('EXPIRE', minute, M.MINUTE_TTL_S) end
end

return M
