-- Lanes: the ready lists, the marks for entries that must be skipped, and the wake-up tokens.
local M = {}

-- `unpack` is bounded by Lua's stack.
local MAX_AT_ONCE = 1000
-- Of an entry of the lanes argument.
local FIELDS = { lane = 'string', weight = 'number', limit = 'number' }
-- Up to so many lanes are remembered although they are empty. Beyond that, samples of them are looked at.
local REMEMBERED, LOOK_AT, MAX_LOOKS = 100, 20, 10

-- Refuse the call while nothing is written yet if a key of this lane has another type.
function M.check(base, lane)
  errors.read('LLEN', keys.ready(base, lane))
  errors.read('SCARD', keys.lanes(base))
  errors.read('SCARD', keys.tombstones(base, lane))
  errors.read('LLEN', keys.wake(base, lane))
end

-- The same where tasks are added, and what `push` must know, in as few commands as this takes: how many entries are `ready`,
-- whether the lane `is_new`, how many wake-up `tokens` there are for so many `workers`. How many entries are `marked` is
-- for the caller to ask, where the lane has tombstones.
function M.look(base, lane, workers)
  local ready = errors.read('LLEN', keys.ready(base, lane))
  return {
    ready = ready,
    -- One with entries is known.
    is_new = ready == 0 and errors.read('SISMEMBER', keys.lanes(base), lane) == 0,
    marked = 0,
    tokens = workers > 0 and errors.read('LLEN', keys.wake(base, lane)) or 0,
    workers = workers,
  }
end

local function misfit(command, key)
  return errors.of(redis.pcall(command, key)) and errors.wrong_type(key)
end

-- The error of a lane one of whose keys has another type, or nil.
function M.damage(base, lane)
  return misfit('LLEN', keys.ready(base, lane)) or misfit('LLEN', keys.wake(base, lane))
    or misfit('SCARD', keys.tombstones(base, lane)) or misfit('SCARD', keys.lanes(base))
end

-- How many workers there are; of a damaged key it is taken that there are none: nobody can be woken.
function M.count_workers(base)
  local workers = redis.pcall('ZCARD', keys.workers(base))
  return errors.of(workers) and 0 or workers
end

-- Push up to `added` wake-up tokens, never more in all than there are workers. `waiting`, `workers`: how many there are,
-- if known.
function M.wake(base, lane, added, waiting, workers)
  workers = workers or M.count_workers(base)
  if workers == 0 then return end
  waiting = waiting or redis.pcall('LLEN', keys.wake(base, lane))
  if errors.of(waiting) then return end
  local missing = math.min(added, workers - waiting)
  while missing > 0 do
    local tokens = {}
    for i = 1, math.min(missing, MAX_AT_ONCE) do tokens[i] = '1' end
    redis.call('RPUSH', keys.wake(base, lane), unpack(tokens))
    missing = missing - #tokens
  end
end

-- An id whose tombstone still lies in the list takes that entry's place instead of a second one.
local function without_tombstones(base, lane, ids, marked)
  local tombstones = keys.tombstones(base, lane)
  marked = marked or redis.pcall('SCARD', tombstones)
  if errors.of(marked) or marked == 0 then return ids end
  if redis.call('EXISTS', keys.ready(base, lane)) == 0 then
    -- Somebody deleted the list: marks without entries would swallow these.
    redis.call('DEL', tombstones)
    return ids
  end
  local rest = {}
  for _, id in ipairs(ids) do
    if redis.call('SREM', tombstones, id) == 0 then rest[#rest + 1] = id end
  end
  return rest
end

-- Make ids ready. `command`: RPUSH for the end of the lane, LPUSH for its front (last one first); `seen`: what `look`
-- replied, if nothing was pushed since; where it says `is_offered`, nobody is woken here.
function M.push(base, lane, ids, command, seen)
  local rest = without_tombstones(base, lane, ids, seen and seen.marked)
  if #rest > 0 and bulk.write(command, keys.ready(base, lane), rest) == #rest and not seen then
    -- It was empty, and may have been forgotten.
    redis.pcall('SADD', keys.lanes(base), lane)
  end
  if not seen then
    M.wake(base, lane, #ids)
  elseif not seen.is_offered then
    M.wake(base, lane, #ids, seen.tokens, seen.workers)
  end
end

-- Forget empty lanes where there are very many, so that who asks for all of them asks for what is there.
function M.remove_empty(base)
  local key = keys.lanes(base)
  for _ = 1, MAX_LOOKS do
    local count = redis.pcall('SCARD', key)
    if errors.of(count) or count <= REMEMBERED then return end
    local names, empty = redis.call('SRANDMEMBER', key, LOOK_AT), {}
    for _, name in ipairs(names) do
      local is_empty = redis.call('EXISTS', keys.ready(base, name), keys.tombstones(base, name)) == 0
      if is_empty and redis.pcall('HEXISTS', keys.limited(base), name) == 0 then empty[#empty + 1] = name end
    end
    if #empty > 0 then redis.call('SREM', key, unpack(empty)) end
    if #empty < #names then return end
  end
end

-- Take up to `count` ids off the front. Replies the live ones, how many entries were looked at (0: empty), and an
-- error text when the lane is damaged.
function M.pop(base, lane, count)
  local ids = redis.pcall('LPOP', keys.ready(base, lane), count)
  if not ids then return {}, 0 end
  if ids.err then return {}, 0, errors.wrong_type(keys.ready(base, lane)).err end
  local tombstones = keys.tombstones(base, lane)
  local marked = redis.pcall('SCARD', tombstones)
  if errors.of(marked) or marked == 0 then return ids, #ids end
  local is_tombstone, live, skipped = redis.call('SMISMEMBER', tombstones, unpack(ids)), {}, {}
  for i, id in ipairs(ids) do
    local list = is_tombstone[i] == 1 and skipped or live
    list[#list + 1] = id
  end
  if #skipped > 0 then redis.call('SREM', tombstones, unpack(skipped)) end
  return live, #ids
end

-- After a claim: one more worker is woken for what is left behind; an emptied lane needs no tokens.
-- `is_empty`: the ready lists known to be, by name; `has_lines`: lines may have their turn, too. Replies 1 if ready work is
-- left in any of the lanes.
function M.settle_tokens(base, lanes, is_empty, has_lines)
  local more = 0
  for _, lane in ipairs(lanes) do
    local left = is_empty[lane] and 0 or redis.pcall('LLEN', keys.ready(base, lane))
    if has_lines and left == 0 then left = redis.pcall('ZCARD', keys.ring(base, lane)) end
    if not errors.of(left) then
      if left > 0 then
        -- One that is at its limit here is for others.
        if not (lanes.limits and lanes.limits[lane] == 0) then more = 1 end
        M.wake(base, lane, 1)
      else
        redis.call('DEL', keys.wake(base, lane))
      end
    end
  end
  return more
end

-- The lanes argument: a non-empty JSON array, highest priority first, of lane names or objects: `lane`, its `weight` in
-- sharing claims (for none or for all), and `limit`, how many of it to claim now. Replies the names; `weights` and `limit`
-- by name are fields of the list, where given.
function M.names(value)
  if type(value) ~= 'table' or #value == 0 then
    errors.raise(errors.bad_argument('lanes must be a JSON array of lane names, highest priority first'))
  end
  if #value > MAX_AT_ONCE then
    errors.raise(errors.bad_argument('a worker serves up to ' .. MAX_AT_ONCE .. ' lanes, not ' .. #value))
  end
  local names, weighted = {}, 0
  for i, entry in ipairs(value) do
    local name, limit, weight = entry, nil, nil
    if type(entry) == 'table' then
      object.check(entry, FIELDS, 'lanes')
      name, limit, weight = entry.lane, entry.limit, entry.weight
    end
    if type(name) ~= 'string' or name == '' then
      errors.raise(errors.bad_argument('lanes must hold non-empty strings'))
    end
    if (limit or 0) < 0 or (weight or 1) < 1 then
      errors.raise(errors.bad_argument('in lanes, limit must be a number >= 0, and weight a number >= 1'))
    end
    names[i] = name
    if limit then
      names.limits = names.limits or {}
      names.limits[name] = limit
    end
    if weight then
      names.weights, weighted = names.weights or {}, weighted + 1
      names.weights[name] = weight
    end
  end
  if weighted > 0 and weighted < #names then errors.raise(errors.bad_argument('all lanes need a weight, or none')) end
  return names
end

return M
