-- The one clock: the server's.
local M = {}

-- Unix time in milliseconds, as a number and as text.
function M.read()
  local time = redis.call('TIME')
  local micros = time[2]
  if #micros < 6 then micros = string.sub('00000' .. micros, -6) end
  local text = time[1] .. string.sub(micros, 1, 3)
  return tonumber(text), text
end

-- The number alone.
function M.now() return (M.read()) end

-- A whole number as text. Left to the server, each number in a call is printed as a floating-point one, which costs
-- about as much as a small command.
function M.text(number)
  return string.format('%d', number)
end

return M
