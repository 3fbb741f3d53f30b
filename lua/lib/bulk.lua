-- Commands with more arguments than `unpack` can have, which is bounded by Lua's stack: in portions.
local M = {}

-- Even, so that pairs stay together.
local AT_ONCE = 1000

-- What a command replies for each of these fields, or its error.
function M.read(command, key, fields)
  if #fields <= AT_ONCE then return redis.pcall(command, key, unpack(fields)) end
  local found = {}
  for from = 1, #fields, AT_ONCE do
    local part = redis.pcall(command, key, unpack(fields, from, math.min(from + AT_ONCE - 1, #fields)))
    if errors.of(part) then return part end
    for i = 1, #part do found[#found + 1] = part[i] end
  end
  return found
end

-- A command that writes these arguments; none where there are none.
function M.write(command, key, arguments)
  for from = 1, #arguments, AT_ONCE do
    redis.call(command, key, unpack(arguments, from, math.min(from + AT_ONCE - 1, #arguments)))
  end
end

return M
