-- Numbers that are kept as text, where somebody may have written something else.
local M = {}

local MOST = 2 ^ 53

-- The number, or `default` where there is none that can be counted with.
function M.of(text, default)
  local value = tonumber(text or nil)
  return value and value > -MOST and value < MOST and value or default
end

return M
