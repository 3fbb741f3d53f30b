-- The commands of a server that the library uses, answered as Redis does: a string, a number, false for nothing, a list
-- of these, or `{ ok = … }`. The fixtures compare them with real servers; see tests/scripts/emulated.
local store = ...
local M = {}

local read, write, tidy, integer, text = store.read, store.write, store.tidy, store.integer, store.text
local get, put = store.get, store.put

local function each(reply_of, ...)
  local count = 0
  for i = 1, select('#', ...) do
    if reply_of((select(i, ...))) then count = count + 1 end
  end
  return count
end

local function named(...)
  local words, found = { ... }, {}
  for i = 1, #words, 2 do found[words[i]] = words[i + 1] end
  return found
end

-- Any key

function M.TIME(keys)
  local seconds = math.floor(keys.now_us / 1000000)
  return { string.format('%.0f', seconds), string.format('%.0f', keys.now_us - seconds * 1000000) }
end

function M.EXISTS(keys, ...)
  return each(function(key) return store.find(keys, key) end, ...)
end

function M.DEL(keys, ...)
  return each(function(key) return store.find(keys, key) and store.drop(keys, key) end, ...)
end

function M.TYPE(keys, key)
  local value = store.find(keys, key)
  return { ok = value and value.kind or 'none' }
end

local function expire(keys, key, lasts_ms)
  if not store.find(keys, key) then return 0 end
  if lasts_ms <= 0 then
    store.drop(keys, key)
  else
    keys.ends_at[key] = store.now_ms(keys) + lasts_ms
  end
  return 1
end

function M.PEXPIRE(keys, key, ttl_ms) return expire(keys, key, integer(ttl_ms)) end

function M.PERSIST(keys, key)
  local had = store.find(keys, key) and keys.ends_at[key]
  keys.ends_at[key] = nil
  return had and 1 or 0
end

function M.EXPIRE(keys, key, ttl_s) return expire(keys, key, integer(ttl_s) * 1000) end

function M.PTTL(keys, key)
  if not store.find(keys, key) then return -2 end
  local at_ms = keys.ends_at[key]
  return at_ms and math.max(0, at_ms - store.now_ms(keys)) or -1
end

-- All on one page. Of patterns, only those that end with a star and have none before.
function M.SCAN(keys, _, ...)
  local start, found = string.gsub(string.sub(named(...).MATCH or '*', 1, -2), '\\', ''), {}
  for _, key in ipairs(store.names(keys)) do
    if string.sub(key, 1, #start) == start then found[#found + 1] = key end
  end
  return { '0', found }
end

-- Hashes

function M.HSET(keys, key, ...)
  local hash, added, pairs_ = write(keys, key, 'hash'), 0, { ... }
  for i = 1, #pairs_, 2 do
    if put(hash, text(pairs_[i]), text(pairs_[i + 1])) then added = added + 1 end
  end
  return added
end

function M.HGET(keys, key, field)
  local hash = read(keys, key, 'hash')
  return hash and get(hash, field) or false
end

function M.HMGET(keys, key, ...)
  local hash, found = read(keys, key, 'hash'), { ... }
  for i = 1, #found do found[i] = hash and get(hash, found[i]) or false end
  return found
end

function M.HGETALL(keys, key)
  local hash = read(keys, key, 'hash')
  return hash and store.all(hash, true) or {}
end

function M.HKEYS(keys, key)
  local hash = read(keys, key, 'hash')
  return hash and store.all(hash) or {}
end

function M.HVALS(keys, key)
  local hash, found = read(keys, key, 'hash'), {}
  local flat = hash and store.all(hash, true) or {}
  for i = 2, #flat, 2 do found[#found + 1] = flat[i] end
  return found
end

local function size_of(kind)
  return function(keys, key)
    local value = read(keys, key, kind)
    return value and store.size(value) or 0
  end
end

function M.HSETNX(keys, key, field, value)
  local hash = read(keys, key, 'hash')
  return hash and get(hash, field) and 0 or M.HSET(keys, key, field, value)
end

-- The first ones.
function M.HRANDFIELD(keys, key, count, _)
  local all, found = M.HGETALL(keys, key), {}
  for i = 1, math.min(2 * integer(count), #all) do found[i] = all[i] end
  return found
end

M.HLEN = size_of('hash')

function M.HSTRLEN(keys, key, field)
  local hash = read(keys, key, 'hash')
  return hash and #(get(hash, field) or '') or 0
end

function M.HEXISTS(keys, key, field)
  local hash = read(keys, key, 'hash')
  return hash and hash.at[field] and 1 or 0
end

local function take(kind)
  return function(keys, key, ...)
    local map = read(keys, key, kind)
    if not map then return 0 end
    local taken = each(function(name) return store.take(map, name) end, ...)
    tidy(keys, key, map)
    return taken
  end
end

M.HDEL = take('hash')

function M.HINCRBY(keys, key, field, by)
  local increment, hash = integer(by), read(keys, key, 'hash')
  local before = integer(hash and get(hash, field) or '0', 'ERR hash value is not an integer')
  local value = store.sum(before, increment)
  put(write(keys, key, 'hash'), field, string.format('%.0f', value))
  return value
end

function M.HSCAN(keys, key) return { '0', M.HGETALL(keys, key) } end

-- Strings

function M.GET(keys, key)
  local value = read(keys, key, 'string')
  return value and value.text or false
end

function M.MGET(keys, ...)
  local found = { ... }
  for i = 1, #found do
    local value = store.find(keys, found[i])
    found[i] = value and value.kind == 'string' and value.text or false
  end
  return found
end

function M.SET(keys, key, value, _, ttl_ms, is_new)
  if is_new and store.find(keys, key) then return false end
  store.drop(keys, key)
  write(keys, key, 'string').text = text(value)
  expire(keys, key, integer(ttl_ms))
  return { ok = 'OK' }
end

-- Lists

M.LLEN = size_of('list')

function M.RPUSH(keys, key, ...)
  local list, items = write(keys, key, 'list'), { ... }
  for i = 1, #items do list.items[list.last + i] = text(items[i]) end
  list.last = list.last + #items
  return store.size(list)
end

function M.LPUSH(keys, key, ...)
  local list, items = write(keys, key, 'list'), { ... }
  for i = 1, #items do list.items[list.first - i] = text(items[i]) end
  list.first = list.first - #items
  return store.size(list)
end

function M.LPOP(keys, key, count)
  local list = read(keys, key, 'list')
  if not list then return false end
  local taken = {}
  for i = 1, math.min(count and integer(count) or 1, store.size(list)) do
    taken[i], list.items[list.first] = list.items[list.first], nil
    list.first = list.first + 1
  end
  tidy(keys, key, list)
  return count and taken or taken[1]
end

function M.LRANGE(keys, key, first, last)
  local list = read(keys, key, 'list')
  return list and store.slice(list, first, last) or {}
end

function M.LTRIM(keys, key, first, last)
  local list = read(keys, key, 'list')
  if list then
    local kept = store.slice(list, first, last)
    list.items, list.first, list.last = kept, 1, #kept
    tidy(keys, key, list)
  end
  return { ok = 'OK' }
end

function M.LREM(keys, key, count, item)
  local list, most = read(keys, key, 'list'), integer(count)
  local removed, size, kept = 0, list and store.size(list) or 0, {}
  for i = 0, size - 1 do
    local at = most >= 0 and list.first + i or list.last - i
    if list.items[at] == item and (most == 0 or removed < math.abs(most)) then
      removed = removed + 1
    else
      table.insert(kept, most >= 0 and #kept + 1 or 1, list.items[at])
    end
  end
  if removed > 0 then
    list.items, list.first, list.last = kept, 1, #kept
    tidy(keys, key, list)
  end
  return removed
end

function M.LPOS(keys, key, item, ...)
  local list, options = read(keys, key, 'list'), named(...)
  if not list then return false end
  local rank, size = integer(options.RANK or '1'), store.size(list)
  local most, found = integer(options.MAXLEN or '0'), 0
  for i = 0, (most == 0 and size or math.min(most, size)) - 1 do
    local at = rank > 0 and i or size - 1 - i
    if list.items[list.first + at] == item then
      found = found + 1
      if found == math.abs(rank) then return at end
    end
  end
  return false
end

-- Sets

function M.SADD(keys, key, ...)
  local set = write(keys, key, 'set')
  return each(function(member) return put(set, text(member), true) end, ...)
end

M.SREM = take('set')
M.SCARD = size_of('set')

function M.SISMEMBER(keys, key, member)
  local set = read(keys, key, 'set')
  return set and set.at[member] and 1 or 0
end

function M.SMISMEMBER(keys, key, ...)
  local set, found = read(keys, key, 'set'), { ... }
  for i = 1, #found do found[i] = set and set.at[found[i]] and 1 or 0 end
  return found
end

function M.SMEMBERS(keys, key)
  local set = read(keys, key, 'set')
  return set and store.all(set) or {}
end

function M.SRANDMEMBER(keys, key, count)
  local members, chosen = M.SMEMBERS(keys, key), {}
  if not count then return #members > 0 and members[math.random(#members)] or false end
  for i = 1, math.min(integer(count), #members) do chosen[i] = table.remove(members, math.random(#members)) end
  return chosen
end

function M.SSCAN(keys, key) return { '0', M.SMEMBERS(keys, key) } end

-- Sorted sets

local FLAGS = { CH = true, XX = true, NX = true, LT = true, INCR = true }

function M.ZADD(keys, key, ...)
  local words, flags, first = { ... }, {}, 1
  while FLAGS[words[first]] do
    flags[words[first]] = true
    first = first + 1
  end
  for i = first, #words, 2 do words[i] = store.number(words[i]) end
  local zset = read(keys, key, 'zset')
  if not zset and flags.XX then return not flags.INCR and 0 end
  local added, changed, new = 0, 0, nil
  zset = write(keys, key, 'zset')
  for i = first, #words, 2 do
    local score, member = words[i], text(words[i + 1])
    local before = zset.places[member]
    local stays = before and (flags.NX or flags.LT and score >= before.score)
    if not stays and (before or not flags.XX) then
      if flags.INCR and before then score = score + before.score end
      if not before then added = added + 1 end
      if not before or before.score ~= score then
        if before then changed = changed + 1 end
        store.place(keys, zset, member, score)
      end
      new = score
    end
  end
  if flags.INCR then return new and store.shown(new) or false end
  return flags.CH and added + changed or added
end

local function remove(keys, key, zset, members)
  local removed = 0
  for _, member in ipairs(members) do
    if store.remove(zset, member) then removed = removed + 1 end
  end
  tidy(keys, key, zset)
  return removed
end

function M.ZREM(keys, key, ...)
  local zset = read(keys, key, 'zset')
  return zset and remove(keys, key, zset, { ... }) or 0
end

M.ZCARD = size_of('zset')

function M.ZSCORE(keys, key, member)
  local zset = read(keys, key, 'zset')
  local place = zset and zset.places[member]
  return place and store.shown(place.score) or false
end

function M.ZMSCORE(keys, key, ...)
  local found = { ... }
  for i = 1, #found do found[i] = M.ZSCORE(keys, key, found[i]) end
  return found
end

function M.ZRANK(keys, key, member)
  local zset = read(keys, key, 'zset')
  local place = zset and zset.places[member]
  return place and store.rank(zset, place.score, place.rank) - 1 or false
end

function M.ZREVRANK(keys, key, member)
  local rank = M.ZRANK(keys, key, member)
  return rank and M.ZCARD(keys, key) - 1 - rank
end

function M.ZCOUNT(keys, key, least, most)
  local zset = read(keys, key, 'zset')
  if not zset then return 0 end
  local first, last = store.between(zset, least, most)
  return math.max(0, last - first + 1)
end

-- Members from one place to another, of options `WITHSCORES` and `LIMIT offset count`.
local function rows(zset, first, last, is_reversed, ...)
  local options, found, scores = { ... }, {}, false
  for i = 1, #options do
    if options[i] == 'WITHSCORES' then scores = true end
    if options[i] == 'LIMIT' then
      local offset, count = integer(options[i + 1]), integer(options[i + 2])
      if offset < 0 then return {} end
      if is_reversed then
        last = last - offset
        if count >= 0 then first = math.max(first, last - count + 1) end
      else
        first = first + offset
        if count >= 0 then last = math.min(last, first + count - 1) end
      end
    end
  end
  for i = is_reversed and last or first, is_reversed and first or last, is_reversed and -1 or 1 do
    local place = zset.order[i]
    found[#found + 1] = place.member
    if scores then found[#found + 1] = store.shown(place.score) end
  end
  return found
end

local function by_rank(is_reversed)
  return function(keys, key, first, last, ...)
    local zset = read(keys, key, 'zset')
    if not zset then return {} end
    local size = #zset.order
    first, last = integer(first), integer(last)
    if first < 0 then first = math.max(0, first + size) end
    if last < 0 then last = last + size end
    last = math.min(last, size - 1)
    if is_reversed then return rows(zset, size - last, size - first, true, ...) end
    return rows(zset, first + 1, last + 1, false, ...)
  end
end

M.ZRANGE, M.ZREVRANGE = by_rank(false), by_rank(true)

function M.ZREMRANGEBYRANK(keys, key, first, last)
  local zset = read(keys, key, 'zset')
  return zset and remove(keys, key, zset, M.ZRANGE(keys, key, first, last)) or 0
end

function M.ZRANGEBYSCORE(keys, key, least, most, ...)
  local zset = read(keys, key, 'zset')
  if not zset then return {} end
  local first, last = store.between(zset, least, most)
  return rows(zset, first, last, false, ...)
end

function M.ZREVRANGEBYSCORE(keys, key, most, least, ...)
  local zset = read(keys, key, 'zset')
  if not zset then return {} end
  local first, last = store.between(zset, least, most)
  return rows(zset, first, last, true, ...)
end

function M.ZPOPMIN(keys, key, count)
  local found = M.ZRANGE(keys, key, '0', string.format('%d', integer(count) - 1), 'WITHSCORES')
  for i = 1, #found, 2 do M.ZREM(keys, key, found[i]) end
  return found
end

function M.ZRANDMEMBER(keys, key)
  local members = M.ZRANGE(keys, key, '0', '-1')
  return #members > 0 and members[math.random(#members)] or false
end

function M.ZSCAN(keys, key) return { '0', M.ZRANGE(keys, key, '0', '-1', 'WITHSCORES') } end

return M
