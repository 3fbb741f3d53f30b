-- Commands with more arguments than `unpack` can have, which is bounded by Lua's stack: in portions.
local M = {}

-- Even, so that pairs stay together.
local AT_ONCE = 1000

-- What `ask` replies for each entry of a list that it is called with as arguments, or its error.
function M.collect(list, ask)
  if #list <= AT_ONCE then return ask(unpack(list)) end
  local found = {}
  for from = 1, #list, AT_ONCE do
    local part = ask(unpack(list, from, math.min(from + AT_ONCE - 1, #list)))
    if errors.of(part) then return part end
    for i = 1, #part do found[#found + 1] = part[i] end
  end
  return found
end

-- What a command replies for each of these fields, or its error.
function M.read(command, key, fields)
  if #fields <= AT_ONCE then return redis.pcall(command, key, unpack(fields)) end
  return M.collect(fields, function(...) return redis.pcall(command, key, ...) end)
end

local function write(call, command, key, arguments)
  local reply, sum = nil, 0
  for from = 1, #arguments, AT_ONCE do
    reply = call(command, key, unpack(arguments, from, math.min(from + AT_ONCE - 1, #arguments)))
    if errors.of(reply) then break end
    sum = sum + reply
  end
  return reply, sum
end

-- A command that writes these arguments and replies a number; none where there are none. Replies that of the last portion, and
-- the sum of all.
function M.write(command, key, arguments) return write(redis.call, command, key, arguments) end

-- A command of keys alone. Replies the sum of what it did.
function M.of_keys(command, names)
  local sum = 0
  for from = 1, #names, AT_ONCE do
    sum = sum + redis.call(command, unpack(names, from, math.min(from + AT_ONCE - 1, #names)))
  end
  return sum
end

-- The same, where the key may be damaged: replies the error, too.
function M.try(command, key, arguments) return write(redis.pcall, command, key, arguments) end

return M
