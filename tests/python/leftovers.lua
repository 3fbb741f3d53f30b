-- Keys of one queue that nobody would ever take away: no owner, no time to live. Then the queue is deleted.
-- KEYS: the queue's base. ARGV: kind of key -> owner as JSON; 1 where finished records are kept for ever.
local base, owners, for_ever = KEYS[1], cjson.decode(ARGV[1]), ARGV[2] == '1'
local found, ready, all = {}, {}, {}

local ENDED = { complete = true, failed = true, aborted = true, expired = true, skipped = true, discarded = true }

local function lacks(command, key, member) return not redis.call(command, key, member) end

-- Whether the ready list of a lane holds an id.
local function is_ready(lane, id)
  if not ready[lane] then
    ready[lane] = {}
    for _, entry in ipairs(redis.call('LRANGE', base .. 'ready:' .. lane, 0, -1)) do ready[lane][entry] = true end
  end
  return ready[lane][id]
end

local function exists(kind, name) return redis.call('EXISTS', base .. kind .. ':' .. name) == 1 end

-- Whether a lane has lines.
local function has_lines(lane)
  for key in pairs(all) do
    if string.sub(key, 1, #base + #lane + 6) == base .. 'line:' .. lane .. ':' then return true end
  end
  return false
end

-- Of limits: what waits in lines, and what stands for the lines.
local OF_LINES = {
  line = function(_, place)
    local lane, line = string.match(place, '^(.*):([^:]*)$')
    if redis.call('ZSCORE', base .. 'ring:' .. lane, line) then return false end
    for _, bucket in ipairs(redis.call('HKEYS', base .. 'blocked_lanes')) do
      if redis.call('ZSCORE', base .. 'blocked:' .. lane .. ':' .. bucket, line) then return false end
    end
    return 'never has its turn'
  end,
  ring = function(key, lane)
    for _, line in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if not exists('line', lane .. ':' .. line) then return line .. ' is empty' end
    end
  end,
  blocked = function(key, place)
    local lane, bucket = string.match(place, '^(.*):([^:]*)$')
    -- One that is empty goes when it is looked at again.
    local is_seen = redis.call('ZSCORE', base .. 'opens', bucket) or redis.call('HGET', base .. 'busy', bucket)
    for _, line in ipairs(is_seen and {} or redis.call('ZRANGE', key, 0, -1)) do
      if not exists('line', lane .. ':' .. line) then return line .. ' is empty' end
    end
    return lacks('HGET', base .. 'blocked_lanes', bucket) and 'nobody gives it back'
  end,
  blocked_lanes = function(key)
    for _, bucket in ipairs(redis.call('HKEYS', key)) do
      for _, lane in ipairs(cjson.decode(redis.call('HGET', key, bucket))) do
        if not exists('blocked', lane .. ':' .. bucket) then return 'nothing waits for ' .. bucket .. ' in ' .. lane end
      end
    end
  end,
  turns = function(key)
    for _, lane in ipairs(redis.call('HKEYS', key)) do
      if not has_lines(lane) and not exists('ring', lane) then return lane .. ' has no lines' end
    end
  end,
  busy = function()
    for key in pairs(all) do
      if string.sub(key, 1, #base + 8) == base .. 'running:' then return false end
    end
    return 'nothing runs'
  end,
  opens = function(key)
    for _, bucket in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if lacks('HGET', base .. 'blocked_lanes', bucket) then return 'nothing waits for ' .. bucket end
    end
  end,
  -- Trimmed when others are added.
  rates = function() return false end,
}
OF_LINES.limited = OF_LINES.turns

-- The workflow that an id is of, or its own, as long as there is any of it to be kept: it runs, or has dead letters.
local function keeps(id)
  local workflow = redis.call('HMGET', base .. 'task:' .. string.match(id, '^[^~]*'), 'kind', 'state', 'dead')
  return workflow[1] == 'workflow' and (workflow[2] == 'blocked' or tonumber(workflow[3] or 0) > 0)
end

-- Of workflows: what has not ended, and what stands for it.
local OF_WORKFLOWS = {
  open = function(key, group)
    if not exists('task', group) then return 'its group is gone' end
    for _, name in ipairs(redis.call('SMEMBERS', key)) do
      local state = redis.call('HGET', base .. 'task:' .. group .. '~' .. name, 'state')
      if not state or ENDED[state] then return name .. ' has ended' end
    end
  end,
  items = function(key, map)
    local is_over = redis.call('HGET', base .. 'task:' .. map, 'state') ~= 'blocked'
    return is_over and redis.call('PTTL', key) == -1 and 'its map has ended'
  end,
  undo = function(_, workflow)
    local is_over = redis.call('HGET', base .. 'task:' .. workflow, 'state') ~= 'blocked'
    return is_over and 'its workflow has ended'
  end,
  chores = function() return false end,
  outbox = function() return false end,
}

local CHECKS = {
  ttl = function(key) return redis.call('PTTL', key) == -1 and 'has no time to live' end,
  worker = function(_, worker) return lacks('ZSCORE', base .. 'workers', worker) and 'its worker is gone' end,
  queue = function() return false end,
  limit = function() return false end,
  record = function(key, id)
    local record = redis.call('HMGET', key, 'state', 'lane', 'worker', 'pause', 'result_ttl_ms', 'buckets', 'kind')
    local state, lane, worker, pause, ttl_ms, line, is_group = unpack(record)
    if state == 'queued' then
      return not is_ready(lane, id) and lacks('ZSCORE', base .. 'quarantined', id) and 'is queued nowhere'
    elseif state == 'limited' then
      return not redis.call('LPOS', base .. 'line:' .. lane .. ':' .. line, id) and 'is in no line'
    elseif state == 'running' then
      return lacks('HGET', base .. 'running:' .. worker, id) and 'no worker holds it'
    elseif state == 'held' then
      return lacks('ZSCORE', base .. 'held:' .. pause, id) and 'no pause holds it'
    elseif state == 'scheduled' then
      return lacks('ZSCORE', base .. 'scheduled', id) and 'is not scheduled'
    elseif state == 'failed' and not is_group then
      return lacks('ZSCORE', base .. 'dead', id) and 'is no dead letter'
    end
    if state == 'blocked' or state and keeps(id) then return not keeps(id) and 'waits for nothing' end
    return not state and 'has no state' or not (for_ever or tonumber(ttl_ms or 0) < 0) and redis.call('PTTL', key) == -1 and 'has no time to live'
  end,
  -- What is gone when it is empty: each member must have something to stand for.
  members = function(key, lane, kind)
    if OF_LINES[kind] then return OF_LINES[kind](key, lane) end
    if OF_WORKFLOWS[kind] then return OF_WORKFLOWS[kind](key, lane) end
    if kind == 'tombstones' then return redis.call('EXISTS', base .. 'ready:' .. lane) == 0 and 'marks no entry' end
    if kind == 'wake' then
      local work = redis.call('EXISTS', base .. 'ready:' .. lane, base .. 'ring:' .. lane, base .. 'quarantined', base .. 'scheduled',
        base .. 'opens')
      return work == 0 and 'there is no work to wake anybody for'
    end
    if kind == 'unique' then
      local holders = redis.call('HVALS', key)
      for _, id in ipairs(holders) do
        local state = redis.call('HGET', base .. 'task:' .. id, 'state')
        if not state or ENDED[state] then return id .. ' has ended' end
      end
      return false
    end
    local list = kind == 'ready'
    local other = (kind == 'workers' or kind == 'loads' or kind == 'idle') and 'worker:' or 'task:'
    for _, member in ipairs(redis.call(list and 'LRANGE' or 'ZRANGE', key, 0, -1)) do
      local is_tombstone = list and redis.call('SISMEMBER', base .. 'tombstones:' .. lane, member) == 1
      if not is_tombstone and redis.call('EXISTS', base .. other .. member) == 0 then return member .. ' is nothing' end
    end
    return false
  end,
  pause = function(_, pause, kind)
    if kind == 'pauses' then return lacks('HGET', base .. 'meta', 'paused') and 'no claim looks at it' end
    return lacks('HGET', base .. 'pauses', pause) and 'its pause has ended'
  end,
  task = function(_, id)
    local state = redis.call('HGET', base .. 'task:' .. id, 'state')
    return (not state or ENDED[state] and state ~= 'failed' and state ~= 'skipped') and 'its task has ended'
  end,
  workflow = function(key, group)
    return not for_ever and redis.call('PTTL', key) == -1 and not keeps(group) and 'has no time to live'
  end,
  schedule = function(key, _, kind)
    local names = redis.call(kind == 'schedules' and 'HKEYS' or 'ZRANGE', key, unpack(kind == 'schedules' and {} or { 0, -1 }))
    for _, name in ipairs(names) do
      local command, other = 'HGET', base .. 'schedules'
      if kind == 'schedules' then command, other = 'ZSCORE', base .. 'schedule_due' end
      if lacks(command, other, name) then return name .. ' is half a schedule' end
    end
    return false
  end,
}

local cursor = '0'
repeat
  local pattern = string.gsub(base, '[%[%]%*%?\\]', '\\%0') .. '*'
  local page = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do all[key] = true end
until cursor == '0'
for key in pairs(all) do
  local kind, rest = string.match(string.sub(key, #base + 1), '^([a-z_]+):?(.*)$')
  if kind == 'stats' and rest ~= '' then kind = 'stats_minute' end
  local check = CHECKS[owners[kind] or '']
  local why
  if check then why = check(key, rest, kind) else why = 'is of no kind that the protocol names' end
  if why then found[#found + 1] = key .. ' ' .. why end
end
for key in pairs(all) do redis.call('UNLINK', key) end
table.sort(found)
return found
