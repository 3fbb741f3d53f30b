-- Numbers that are kept as text, where somebody may have written something else.
local M = {}

local MAX = 2 ^ 53

-- The number, or `default` where there is none that can be counted with.
function M.of(text, default)
  local value = tonumber(text or nil)
  return value and value > -MAX and value < MAX and value or default
end

return M
