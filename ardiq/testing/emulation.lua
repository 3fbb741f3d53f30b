-- What Redis gives its Lua besides the language, for the library to run within this process. Called with the keys and
-- commands of their files, the library, and Python functions: what hashes, what unpacks msgpack, and what makes of a
-- reply's items a list, of an error or a status what it is in Python. Replies the entrances.
local store, commands, payload, sha1hex, unpack_msgpack, listed, refused, status = ...
local functions = {}
local keys -- of the call that runs

-- Memory for time: a test keeps what it does for seconds. Nothing here runs long enough to be worth compiling.
collectgarbage('setpause', 400)
if jit then jit.off() end

redis = { sha1hex = sha1hex }

function redis.call(name, ...) return commands[name](keys, ...) end

function redis.pcall(name, ...)
  local ok, reply = pcall(commands[name], keys, ...)
  if not ok and type(reply) ~= 'table' then error(reply, 0) end
  return reply
end

function redis.error_reply(text) return { err = text } end

function redis.status_reply(text) return { ok = text } end

function redis.register_function(entry)
  functions[entry.function_name] = entry.callback
end

-- As much of it as the library packs: a list of texts and whole numbers, the latter all in eight bytes.
local function pack(list)
  local function length(mark, count)
    return string.char(mark, math.floor(count / 16777216), math.floor(count / 65536) % 256,
      math.floor(count / 256) % 256, count % 256)
  end
  local parts = { length(221, #list) }
  for i, value in ipairs(list) do
    if type(value) == 'string' then
      parts[i + 1] = length(219, #value) .. value
    else
      local bytes, rest = {}, value
      for at = 8, 1, -1 do bytes[at], rest = rest % 256, math.floor(rest / 256) end
      parts[i + 1] = string.char(211, unpack(bytes))
    end
  end
  return table.concat(parts)
end

cmsgpack = { unpack = unpack_msgpack, pack = pack }

-- A reply as Python gets it: integers, text, lists, nil for nothing.
local MOST = 4000 -- so many arguments a call may have
local function given(reply)
  local kind = type(reply)
  if kind == 'string' then return reply end
  if kind == 'number' then return reply < 0 and math.ceil(reply) or math.floor(reply) end
  if kind ~= 'table' then return reply and 1 or nil end
  if reply.err then return refused(reply.err) end
  if reply.ok then return status(reply.ok) end
  local items, n = {}, 0
  while reply[n + 1] ~= nil do
    n = n + 1
    items[n] = given(reply[n])
  end
  local list = listed(nil, unpack(items, 1, math.min(n, MOST)))
  for first = MOST + 1, n, MOST do listed(list, unpack(items, first, math.min(n, first + MOST - 1))) end
  return list
end

-- lua-cjson as Redis has it: numbers have 14 digits, a slash is escaped, an empty table is an object.
cjson = { null = newproxy() }

local ESCAPES = { ['"'] = '\\"', ['\\'] = '\\\\', ['/'] = '\\/', ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n',
  ['\r'] = '\\r', ['\t'] = '\\t' }
local CHARACTERS = { b = '\b', f = '\f', n = '\n', r = '\r', t = '\t', ['"'] = '"', ['\\'] = '\\', ['/'] = '/' }
local DEEPEST = 1000

local function quoted(text)
  return '"' .. string.gsub(text, '[%c"\\/\127]', function(letter)
    return ESCAPES[letter] or string.format('\\u%04x', string.byte(letter))
  end) .. '"'
end

local function digits(number)
  if number ~= number or number == math.huge or number == -math.huge then
    error('Cannot serialise number: must not be NaN or Inf', 0)
  end
  return string.format('%.14g', number)
end

-- The last index of an array; 0 for anything else.
local function length(value)
  local most, items = 0, 0
  for key in pairs(value) do
    if type(key) ~= 'number' or key % 1 ~= 0 or key < 1 then return 0 end
    most, items = math.max(most, key), items + 1
  end
  if most > 2 * items and most > 10 then error('Cannot serialise table: excessively sparse array', 0) end
  return most
end

local function encode(value, depth)
  local kind, parts = type(value), {}
  if kind == 'string' then return quoted(value) end
  if kind == 'number' then return digits(value) end
  if kind == 'boolean' then return tostring(value) end
  if value == nil or value == cjson.null then return 'null' end
  if kind ~= 'table' then error('Cannot serialise ' .. kind .. ': type not supported', 0) end
  if depth > DEEPEST then error('Cannot serialise, excessive depth', 0) end
  local last = length(value)
  for i = 1, last do parts[i] = encode(value[i], depth + 1) end
  if last > 0 then return '[' .. table.concat(parts, ',') .. ']' end
  for key, item in pairs(value) do
    local name = type(key) == 'number' and '"' .. digits(key) .. '"' or type(key) == 'string' and quoted(key)
    if not name then error('Cannot serialise table: table key must be a number or string', 0) end
    parts[#parts + 1] = name .. ':' .. encode(item, depth + 1)
  end
  return '{' .. table.concat(parts, ',') .. '}'
end

local function utf8(code)
  if code < 128 then return string.char(code) end
  if code < 2048 then return string.char(192 + math.floor(code / 64), 128 + code % 64) end
  local tail = string.char(128 + math.floor(code / 64) % 64, 128 + code % 64)
  if code < 65536 then return string.char(224 + math.floor(code / 4096)) .. tail end
  return string.char(240 + math.floor(code / 262144), 128 + math.floor(code / 4096) % 64) .. tail
end

local function unexpected(what, at) error('Expected ' .. what .. ' but found invalid token at character ' .. at, 0) end

local function skip(text, at) return string.find(text, '[^ \t\r\n]', at) or #text + 1 end

-- Each reader replies a value and where the text goes on.
local function read_string(text, at)
  local parts, from = {}, at + 1
  while true do
    local stop = string.find(text, '["\\]', from) or unexpected('string', at)
    parts[#parts + 1] = string.sub(text, from, stop - 1)
    if string.sub(text, stop, stop) == '"' then return table.concat(parts), stop + 1 end
    local letter = string.sub(text, stop + 1, stop + 1)
    from = stop + 2
    if letter == 'u' then
      local code = tonumber(string.match(text, '^%x%x%x%x', from) or unexpected('string', at), 16)
      from = from + 4
      local low = code >= 55296 and code < 56320 and tonumber(string.match(text, '^\\u(%x%x%x%x)', from) or '0', 16)
      if low and (low < 56320 or low > 57343) or code >= 56320 and code <= 57343 then unexpected('string', at) end
      if low then code, from = 65536 + (code - 55296) * 1024 + low - 56320, from + 6 end
      parts[#parts + 1] = utf8(code)
    else
      parts[#parts + 1] = CHARACTERS[letter] or unexpected('string', at)
    end
  end
end

local WORDS = { { 'true', true }, { 'false', false }, { 'null', cjson.null } }
local read

local function read_items(text, at, depth, close, add)
  if depth > DEEPEST then error('Found too many nested data structures (' .. depth .. ')', 0) end
  at = skip(text, at + 1)
  if string.sub(text, at, at) == close then return at + 1 end
  while true do
    at = skip(text, add(at))
    local letter = string.sub(text, at, at)
    if letter == close then return at + 1 end
    if letter ~= ',' then unexpected('comma or end', at) end
    at = skip(text, at + 1)
  end
end

function read(text, at, depth)
  local first, items = string.sub(text, at, at), {}
  if first == '"' then return read_string(text, at) end
  if first == '[' then
    return items, read_items(text, at, depth, ']', function(from)
      local item, rest = read(text, from, depth + 1)
      items[#items + 1] = item
      return rest
    end)
  end
  if first == '{' then
    return items, read_items(text, at, depth, '}', function(from)
      if string.sub(text, from, from) ~= '"' then unexpected('object key string', from) end
      local name, colon = read_string(text, from)
      colon = skip(text, colon)
      if string.sub(text, colon, colon) ~= ':' then unexpected('colon', colon) end
      local item, rest = read(text, skip(text, colon + 1), depth + 1)
      items[name] = item
      return rest
    end)
  end
  for _, word in ipairs(WORDS) do
    if string.sub(text, at, at + #word[1] - 1) == word[1] then return word[2], at + #word[1] end
  end
  local found = string.match(text, '^-?%d[%d.eE+-]*', at) or ''
  return tonumber(found) or unexpected('value', at), at + #found
end

function cjson.encode(value) return encode(value, 1) end

function cjson.decode(text)
  local value, rest = read(text, skip(text, 1), 1)
  if skip(text, rest) <= #text then unexpected('the end', rest) end
  return value
end

assert(loadstring((string.gsub(payload, '^#![^\n]*', '')), '@user_function'))()

-- Have a function done on these keys, at this time.
local function enter(on, now_us, what, ...)
  keys, on.now_us = on, now_us
  return given(what(...))
end

return { enter = enter, functions = functions, command = redis.pcall, new = store.new, find = store.find }
