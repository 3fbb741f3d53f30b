-- What the fixtures and their harness ask of a server, and the library does not. Called with the keys and commands of
-- `ardiq.testing`, whose calls are counted from then on; replies the counts.
local store, commands = ...
local used, images = {}, {}

for name, run in pairs(commands) do
  commands[name] = function(...)
    used[name] = (used[name] or 0) + 1
    return run(...)
  end
end

local OK = { ok = 'OK' }

local function copy(value)
  if type(value) ~= 'table' then return value end
  local other = {}
  for name, item in pairs(value) do other[copy(name)] = copy(item) end
  return other
end

function commands.FLUSHALL(keys)
  keys.held, keys.ends_at = {}, {}
  return OK
end

function commands.DBSIZE(keys) return #store.names(keys) end

function commands.KEYS(keys) return store.names(keys) end

local set = commands.SET
function commands.SET(keys, key, value, ...)
  if (...) == 'PX' then return set(keys, key, value, ...) end
  if select('#', ...) == 0 then store.drop(keys, key) end
  keys.held[key] = { kind = 'string', text = value }
  return OK
end

function commands.LSET(keys, key, index, value)
  local list = store.read(keys, key, 'list')
  list.items[list.first + store.integer(index)] = value
  return OK
end

function commands.ZINCRBY(keys, key, by, member) return commands.ZADD(keys, key, 'INCR', by, member) end

function commands.PEXPIREAT(keys, key, at_ms)
  if store.integer(at_ms) <= store.now_ms(keys) then return store.drop(keys, key) and 1 or 0 end
  keys.ends_at[key] = store.integer(at_ms)
  return 1
end

function commands.PEXPIRETIME(keys, key)
  return store.find(keys, key) and (keys.ends_at[key] or -1) or -2
end

function commands.PERSIST(keys, key)
  local had = store.find(keys, key) and keys.ends_at[key]
  keys.ends_at[key] = nil
  return had and 1 or 0
end

function commands.DUMP(keys, key)
  images[#images + 1] = copy(store.find(keys, key))
  return tostring(#images)
end

function commands.RESTORE(keys, key, at_ms, image)
  keys.held[key] = copy(images[tonumber(image)])
  keys.ends_at[key] = at_ms ~= '0' and tonumber(at_ms) or nil
  return OK
end

return used
