-- The one clock: the server's.
local M = {}

-- Unix time in milliseconds.
function M.now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A whole number as text. Left to the server, each number in a call is printed as a floating-point one, which costs
-- about as much as a small command.
function M.text(number)
  return string.format('%d', number)
end

return M
