-- Looking up one argument of a stored call, without decoding the rest. A value is told by one text: a string by a quote
-- and its characters, anything else as JSON has it, so that an integer of any size is itself. What cannot be read is an
-- error of Lua, for `find` to catch.
local M = {}

-- The longest text or number that is looked for, in bytes.
M.MAX_VALUE = 255
local MAX_ESCAPED = 6 * M.MAX_VALUE + 2
-- How far into a call is looked: each stop at a quote, a bracket or a value is a step.
local MAX_STEPS = 1000
local LARGEST_MSGPACK = 65536
-- Beyond it a Lua number is no longer the integer that was sent.
local LARGEST_EXACT = 9007199254740991

-- What reads calls. Made when something is paused by an argument: a script makes all functions of its libraries anew with
-- each call. Replies two functions. `find(args, kwargs, codec, position, name)` looks for the argument that is passed at
-- `position` (from 0; nil: never) or by `name` (nil: never): whether the call could be read, and the value's text, or nil
-- where the call does not have it. `canonical(json)` is the text of a value, or nil where it is longer than any that is
-- looked for.
function M.reader()
  -- Where `pattern` comes next.
  local function seek(walk, pattern, at)
    walk.steps = walk.steps - 1
    return walk.steps > 0 and string.find(walk.text, pattern, at) or error('unreadable')
  end

  local function letter(walk, at) return string.sub(walk.text, at, at) end

  -- Where the string that opens at `at` closes: at a quote after an even number of backslashes.
  local function string_end(walk, at)
    local slashes
    repeat
      at, slashes = seek(walk, '"', at + 1), 0
      while letter(walk, at - 1 - slashes) == '\\' and slashes < walk.steps do slashes = slashes + 1 end
      walk.steps = walk.steps - slashes
    until slashes % 2 == 0
    return at
  end

  local function value_end(walk, at)
    local first = letter(walk, at)
    if first == '"' then return string_end(walk, at) end
    if first ~= '[' and first ~= '{' then return seek(walk, '[%s,%]}]', at) - 1 end
    local depth = 0
    repeat
      at = seek(walk, '["%[%]{}]', at)
      local found = letter(walk, at)
      if found == '"' then
        at = string_end(walk, at)
      else
        depth = depth + ((found == '[' or found == '{') and 1 or -1)
      end
      at = at + 1
    until depth == 0
    return at - 1
  end

  local function canonical(json)
    if string.sub(json, 1, 1) ~= '"' then return json end
    if #json > MAX_ESCAPED then return nil end
    if string.find(json, '\\', 1, true) then return '"' .. cjson.decode('[' .. json .. ']')[1] end
    return string.sub(json, 1, -2)
  end

  -- The value that follows what stands at `at`, which must be `mark`; nil where it is something else.
  local function follows(walk, at, mark)
    at = seek(walk, '%S', at)
    return letter(walk, at) == mark and seek(walk, '%S', at + 1) or nil
  end

  local function in_array(walk, position)
    local at = follows(walk, 1, '[')
    for _ = 1, position do
      if not at or letter(walk, at) == ']' then return nil end
      at = follows(walk, value_end(walk, at) + 1, ',')
    end
    if not at or letter(walk, at) == ']' then return nil end
    return canonical(string.sub(walk.text, at, value_end(walk, at)))
  end

  local function in_object(walk, name)
    local at = follows(walk, 1, '{')
    while at and letter(walk, at) == '"' do
      local key_end = string_end(walk, at)
      local is_it = canonical(string.sub(walk.text, at, key_end)) == '"' .. name
      at = follows(walk, key_end + 1, ':')
      local last = value_end(walk, at)
      if is_it then return canonical(string.sub(walk.text, at, last)) end
      at = follows(walk, last + 1, ',')
    end
  end

  local function in_msgpack(text, key)
    if #text > LARGEST_MSGPACK then error('unreadable') end
    local value = cmsgpack.unpack(text)[key]
    if type(value) == 'string' then return '"' .. value end
    if type(value) ~= 'number' then return tostring(value) end
    if value > LARGEST_EXACT or value < -LARGEST_EXACT then error('unreadable') end
    return value % 1 == 0 and clock.text(value) or tostring(value)
  end

  local function look_up(args, kwargs, codec, position, name)
    local is_json = not codec or codec == '' or string.find(codec, '^json')
    if not is_json and not string.find(codec, '^msgpack') then error('unreadable') end
    local found
    if position then
      if is_json then
        found = in_array({ text = args, steps = MAX_STEPS }, position)
      else
        found = in_msgpack(args, position + 1)
      end
    end
    if found or not name or not kwargs or kwargs == '' then return found end
    if is_json then return in_object({ text = kwargs, steps = MAX_STEPS }, name) end
    return in_msgpack(kwargs, name)
  end

  local function find(args, kwargs, codec, position, name)
    return pcall(look_up, args or '[]', kwargs, codec, position, name)
  end

  return find, canonical
end

return M
