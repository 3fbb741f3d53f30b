-- The moves of one call, and what is done once for all of them: pushes, wake-ups, telling waiters, counters.
local M = {}

-- When what a damaged key held up is tried again.
M.STUCK_MS = 10000
local MAX_UNKNOWN, UNKNOWN_TTL_MS = 100, 600000

function M.open(base, now)
  return { base = base, now = now, now_text = clock.text(now), back = {}, front = {}, quarantined = {}, held = {},
    finished = {}, removed = {}, refusals = {}, counters = {}, obstacles = {}, seen = {} }
end

function M.count(batch, name, by)
  batch.counters[name] = (batch.counters[name] or 0) + (by or 1)
end

-- A worker has claimed so many tasks more, or less. What it settles and what it claims in one call is written once.
function M.change_load(batch, worker, by)
  batch.loads = batch.loads or {}
  batch.loads[worker] = (batch.loads[worker] or 0) + by
end

-- What could not be done for one task (or one key, without an id) while the rest of the call went on; or, of an outcome
-- that was taken, the state that the task got into instead.
function M.refuse(batch, id, token, reason)
  local at = #batch.refusals
  batch.refusals[at + 1], batch.refusals[at + 2], batch.refusals[at + 3] = id, token, reason
end

-- Why a key cannot be written that a move is about to write (it has another type), or nil; asked once a call.
function M.obstacle(batch, command, key)
  local known = batch.obstacles[key]
  if known == nil then
    known = errors.of(redis.pcall(command, key)) and errors.wrong_type(key).err or false
    batch.obstacles[key] = known
  end
  return known or nil
end

-- Add to a list of `lists` (name -> list), made when first needed.
function M.push(lists, name, item)
  local list = lists[name]
  if list then list[#list + 1] = item else lists[name] = { item } end
end

-- Put ids behind those that are held under a pause already.
local function hold(base, id, held)
  local key = keys.held(base, id)
  local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  local score, members = tonumber(last[2] or 0), {}
  for i, member_id in ipairs(held) do
    members[#members + 1], members[#members + 2] = clock.text(score + i), member_id
    -- `unpack` is bounded by Lua's stack.
    if #members == 1000 or i == #held then
      redis.call('ZADD', key, unpack(members))
      members = {}
    end
  end
end

-- Make ready what was moved to `queued` so far; a step does so before it claims.
function M.flush(batch)
  for name, ids in pairs(batch.back) do
    lane.push(batch.base, name, ids, 'RPUSH', batch.seen[name])
    batch.seen[name] = nil
  end
  for name, ids in pairs(batch.front) do
    local reversed = {}
    for i = #ids, 1, -1 do reversed[#reversed + 1] = ids[i] end
    lane.push(batch.base, name, reversed, 'LPUSH')
  end
  for name, count in pairs(batch.quarantined) do lane.wake(batch.base, name, count) end
  for id, ids in pairs(batch.held) do hold(batch.base, id, ids) end
  batch.back, batch.front, batch.quarantined, batch.held = {}, {}, {}, {}
end

-- The one place that asks who was waiting for a task that ended.
local function tell_waiters(batch)
  if #batch.finished == 0 then return end
  if #batch.finished > 1 and not mail.is_awaited(batch.base, batch.now) then return end
  local places = {}
  for i, id in ipairs(batch.finished) do places[i] = keys.waiters(batch.base, id) end
  if #places > 1 and redis.call('EXISTS', unpack(places)) == 0 then return end
  local letters, some = {}, false
  for i, id in ipairs(batch.finished) do
    local names = redis.pcall('SMEMBERS', places[i])
    if errors.of(names) then
      some = true
    elseif #names > 0 then
      some = true
      local record = task.read(batch.base, id, mail.OUTCOME)
      local letter = mail.finished(id, mail.outcome(record), #batch.removed > 0)
      for _, name in ipairs(names) do
        if not schedule.tell(batch.base, name, id, record) then M.push(letters, name, letter) end
      end
    end
  end
  for name, messages in pairs(letters) do mail.post(batch.base, name, messages) end
  if some then redis.call('DEL', unpack(places)) end
end

-- Keep the names of tasks that a worker did not know, for people: the last ones, for a while longer than such a task
-- rests. A damaged key costs nothing else, hence pcall.
local function note_unknown(batch)
  local key = keys.unknown_tasks(batch.base)
  for name in pairs(batch.unknown) do redis.pcall('ZADD', key, batch.now, name) end
  redis.pcall('ZREMRANGEBYRANK', key, 0, -MAX_UNKNOWN - 1)
  redis.pcall('PEXPIRE', key, UNKNOWN_TTL_MS)
end

function M.close(batch)
  M.flush(batch)
  if batch.unknown then note_unknown(batch) end
  tell_waiters(batch)
  timer.scheduled(batch)
  if #batch.removed > 0 then redis.call('DEL', unpack(batch.removed)) end
  for worker, by in pairs(batch.loads or {}) do
    if by ~= 0 then member.change_load(batch.base, worker, by) end
  end
  stats.add(batch.base, batch.now, batch.counters)
end

return M
