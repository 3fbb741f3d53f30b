-- Numbers that are kept as text, where somebody may have written something else.
local M = {}

local MAX = 2 ^ 53

-- The number, or `default` where there is none that can be counted with.
function M.of(text, default)
  if not text then return default end
  local value = tonumber(text)
  return value and value > -MAX and value < MAX and value or default
end

-- A number that may have a fraction, as text that says all of it.
function M.text(value)
  if value % 1 == 0 and value > -MAX and value < MAX then return string.format('%d', value) end
  return string.format('%.17g', value)
end

return M
