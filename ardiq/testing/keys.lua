-- Keys in memory: what they hold as Redis types it, and when they end by themselves. The types are 'hash' and 'set' (an
-- ordered map), 'list', 'zset' and 'string'.
local M = {}

local floor, find, format, match, tonumber, type = math.floor, string.find, string.format, string.match, tonumber, type
local MOST_INTEGER = 2 ^ 63
local MOST_DIGITS = '9223372036854775807'

function M.refuse(text) error({ err = text }, 0) end

-- A word of a command as the server takes it.
function M.text(word)
  if type(word) == 'number' then return format('%.17g', word) end
  return word
end

-- A whole number, written as a server takes it.
function M.integer(text, otherwise)
  if type(text) == 'number' then return text end
  local digits = match(text, '^-?(%d+)$')
  if not digits or (string.sub(digits, 1, 1) == '0' and text ~= '0') or #digits > #MOST_DIGITS
    or (#digits == #MOST_DIGITS and digits > MOST_DIGITS) then
    M.refuse(otherwise or 'ERR value is not an integer or out of range')
  end
  return tonumber(text)
end

function M.sum(one, other)
  local sum = one + other
  if math.abs(sum) >= MOST_INTEGER then M.refuse('ERR increment or decrement would overflow') end
  return sum
end

-- A score.
function M.number(text, otherwise)
  if type(text) == 'number' then return text end
  local value = find(text, '^%S+$') and tonumber(text)
  if not value or value ~= value then M.refuse(otherwise or 'ERR value is not a valid float') end
  return value
end

-- A number as the server writes it.
function M.shown(number)
  if number % 1 == 0 and math.abs(number) < 1e17 then return format('%.0f', number) end
  return format('%.17g', number)
end

-- A map that keeps the order in which it was filled. Places that became free are false, until most of them are.
local function tidy_map(map)
  local names, values, last = {}, {}, 0
  for i = 1, map.last do
    local name = map.names[i]
    if name then
      last = last + 1
      names[last], values[last], map.at[name] = name, map.values[i], last
    end
  end
  map.names, map.values, map.last = names, values, last
end

-- Whether it is new.
function M.put(map, name, value)
  local at = map.at[name]
  if at then
    map.values[at] = value
    return false
  end
  local last = map.last + 1
  map.last, map.size = last, map.size + 1
  map.at[name], map.names[last], map.values[last] = last, name, value
  return true
end

-- Whether it was there.
function M.take(map, name)
  local at = map.at[name]
  if not at then return false end
  map.at[name], map.names[at], map.values[at], map.size = nil, false, false, map.size - 1
  if map.last > 32 and map.last > 2 * map.size then tidy_map(map) end
  return true
end

function M.get(map, name)
  local at = map.at[name]
  return at and map.values[at]
end

-- The names, or each followed by its value.
function M.all(map, with_values)
  local found, n = {}, 0
  for i = 1, map.last do
    local name = map.names[i]
    if name then
      n = n + 1
      found[n] = name
      if with_values then
        n = n + 1
        found[n] = map.values[i]
      end
    end
  end
  return found
end

-- A list: items from `first` to `last`. Some of them, as a server counts, with the first and last one's index.
function M.slice(list, from, to)
  local size = list.last - list.first + 1
  from, to = M.integer(from), M.integer(to)
  if from < 0 then from = math.max(0, from + size) end
  if to < 0 then to = to + size end
  local some, start = {}, list.first
  for i = from, math.min(to, size - 1) do some[#some + 1] = list.items[start + i] end
  return some
end

-- A sorted set: members by score, and among those of one score by rank. Where a place is, or would be; without a rank,
-- before all of that score, or after them.
function M.rank(zset, score, rank, is_after)
  local order, low, high = zset.order, 1, #zset.order + 1
  while low < high do
    local middle = floor((low + high) / 2)
    local place = order[middle]
    if place.score < score or (place.score == score and (is_after or rank and place.rank < rank)) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- Whether it was there.
function M.remove(zset, member)
  local place = zset.places[member]
  if not place then return false end
  zset.places[member] = nil
  table.remove(zset.order, M.rank(zset, place.score, place.rank))
  return true
end

-- Add the member, or move it.
function M.place(keys, zset, member, score)
  M.remove(zset, member)
  local rank = member
  if keys.stands_still then
    keys.placed = keys.placed + 1
    rank = keys.placed
  end
  local place = { score = score, rank = rank, member = member }
  zset.places[member] = place
  table.insert(zset.order, M.rank(zset, score, rank), place)
end

-- Those with scores between two bounds, which `(` excludes: the first and last place.
function M.between(zset, least, most)
  local function bound(text)
    local is_outside = string.sub(text, 1, 1) == '('
    return M.number(string.sub(text, is_outside and 2 or 1), 'ERR min or max is not a float'), is_outside
  end
  local low, without_low = bound(least)
  local high, without_high = bound(most)
  return M.rank(zset, low, nil, without_low), M.rank(zset, high, nil, not without_high) - 1
end

local NEW = {
  hash = function() return { kind = 'hash', at = {}, names = {}, values = {}, last = 0, size = 0 } end,
  set = function() return { kind = 'set', at = {}, names = {}, values = {}, last = 0, size = 0 } end,
  string = function() return { kind = 'string', text = '' } end,
  list = function() return { kind = 'list', items = {}, first = 1, last = 0 } end,
  zset = function() return { kind = 'zset', places = {}, order = {} } end,
}

-- Keys of one server. Of a clock that stands still, or leaps (`stands_still`): keys do not end by themselves, and members
-- of one score come in the order in which they were put, since many have the same time.
function M.new(stands_still)
  return { held = {}, ends_at = {}, now_us = 0, stands_still = stands_still, placed = 0 }
end

function M.now_ms(keys) return floor(keys.now_us / 1000) end

-- Whether there was one.
function M.drop(keys, key)
  local was = keys.held[key]
  keys.held[key], keys.ends_at[key] = nil, nil
  return was ~= nil
end

-- What the key holds, of whatever type.
function M.find(keys, key)
  local value = keys.held[key]
  if value and not keys.stands_still and (keys.ends_at[key] or math.huge) < M.now_ms(keys) then
    M.drop(keys, key)
    return nil
  end
  return value
end

function M.read(keys, key, kind)
  local value = keys.held[key]
  if not keys.stands_still then value = M.find(keys, key) end
  if value and value.kind ~= kind then
    M.refuse('WRONGTYPE Operation against a key holding the wrong kind of value')
  end
  return value
end

-- The same, made where there is none.
function M.write(keys, key, kind)
  local value = M.read(keys, key, kind)
  if not value then
    value = NEW[kind]()
    keys.held[key] = value
  end
  return value
end

function M.size(value)
  if value.kind == 'list' then return value.last - value.first + 1 end
  return value.order and #value.order or value.size
end

-- Nothing that is empty stays.
function M.tidy(keys, key, value)
  if M.size(value) == 0 then M.drop(keys, key) end
end

-- All that there are.
function M.names(keys)
  local names = {}
  for key in pairs(keys.held) do names[#names + 1] = key end
  for i = #names, 1, -1 do
    if not M.find(keys, names[i]) then table.remove(names, i) end
  end
  return names
end

return M
