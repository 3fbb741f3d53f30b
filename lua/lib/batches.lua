-- The moves of one call, and what is done once for all of them: pushes, wake-ups, telling waiters, counters.
local M = {}

-- How long what a damaged key held up waits before it is tried again.
M.STUCK_MS = 10000
local MAX_UNKNOWN, UNKNOWN_TTL_MS = 100, 600000

-- `now`, `now_text`: what `clock.read` replies. What a call may gather is made when there is some: a call alone mostly pays
-- for its tables. Named here is what most have.
function M.open(base, now, now_text)
  return { base = base, now = now, now_text = now_text, back = false, finished = false, counters = false, loads = false,
    pauses = false, seen = false, has_lines = false }
end

function M.count(batch, name, by)
  local counters = batch.counters
  if counters then
    counters[name] = (counters[name] or 0) + (by or 1)
  else
    batch.counters = { [name] = by or 1 }
  end
end

-- A worker has claimed so many tasks more, or less. What it settles and what it claims in one call is written once.
function M.change_load(batch, worker, by)
  batch.loads = batch.loads or {}
  batch.loads[worker] = (batch.loads[worker] or 0) + by
end

-- What could not be done for one task (or one key, without an id) while the rest of the call went on; or, of an outcome
-- that was taken, the state that the task got into instead.
function M.refuse(batch, id, token, reason)
  local refusals = batch.refusals or {}
  local at = #refusals
  refusals[at + 1], refusals[at + 2], refusals[at + 3] = id, token, reason
  batch.refusals = refusals
end

-- Why a key cannot be written that a move is about to write (it has another type), or nil; asked once a call.
function M.obstacle(batch, command, key)
  local obstacles = batch.obstacles or {}
  local known = obstacles[key]
  if known == nil then
    known = errors.of(redis.pcall(command, key)) and errors.wrong_type(key).err or false
    batch.obstacles, obstacles[key] = obstacles, known
  end
  return known or nil
end

-- Add to a list of `lists` (name -> list), made when first needed.
function M.push(lists, name, item)
  local list = lists[name]
  if list then list[#list + 1] = item else lists[name] = { item } end
end

-- The same for lists that the batch keeps: `back` and `front` by lane, `held` by pause.
function M.add(batch, place, name, item)
  local lists = batch[place]
  if lists then M.push(lists, name, item) else batch[place] = { [name] = { item } } end
end

-- A task of a lane waits in a line: at its end, or at its front (`LPUSH`).
function M.add_to_line(batch, lane_name, line_name, id, command)
  local lines = batch.lines or {}
  local key = command .. lane_name .. ':' .. line_name
  local one = lines[key]
  if one then
    one.ids[#one.ids + 1] = id
  else
    one = { lane = lane_name, line = line_name, command = command, ids = { id } }
    lines[key], lines[#lines + 1] = one, one
    batch.lines = lines
  end
end

-- How many entries a line has, with what was added in this call.
function M.length_of_line(batch, lane_name, line_name)
  local length = redis.pcall('LLEN', keys.line(batch.base, lane_name, line_name))
  local added = batch.lines and batch.lines['RPUSH' .. lane_name .. ':' .. line_name]
  return (errors.of(length) and 0 or length) + (added and #added.ids or 0)
end

-- A quarantined task of a lane waits: workers are woken for it.
function M.quarantine(batch, lane_name)
  local counts = batch.quarantined or {}
  counts[lane_name], batch.quarantined = (counts[lane_name] or 0) + 1, counts
end

-- Put ids behind those that are held under a pause already.
local function hold(base, id, held)
  local key = keys.held(base, id)
  local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  local score, members = tonumber(last[2] or 0), {}
  for i, member_id in ipairs(held) do
    members[#members + 1], members[#members + 2] = clock.text(score + i), member_id
  end
  bulk.write('ZADD', key, members)
end

-- The last first: each is pushed before the one that is there.
local function reversed(ids)
  local turned = {}
  for i = #ids, 1, -1 do turned[#turned + 1] = ids[i] end
  return turned
end

-- Lines get what was added to them, and what was freed is given to those that waited for it.
local function flush_lines(batch)
  local lines = batch.lines
  batch.lines = nil
  for _, one in ipairs(lines or {}) do
    if one.command == 'LPUSH' then one.ids = reversed(one.ids) end
  end
  if lines then line.push(batch, lines) end
  if batch.freed or batch.freed_lines then opening.reconsider(batch, limits.settle(batch)) end
end

-- Make ready what was moved to `queued` so far; a step does so before it claims.
function M.flush(batch)
  local back, front, quarantined, held = batch.back, batch.front, batch.quarantined, batch.held
  if back then
    for name, ids in pairs(back) do lane.push(batch.base, name, ids, 'RPUSH', batch.seen and batch.seen[name]) end
    batch.back, batch.seen = false, false
  end
  if front then
    for name, ids in pairs(front) do lane.push(batch.base, name, reversed(ids), 'LPUSH') end
    batch.front = false
  end
  if quarantined then
    for name, count in pairs(quarantined) do lane.wake(batch.base, name, count) end
    batch.quarantined = false
  end
  if held then
    for id, ids in pairs(held) do hold(batch.base, id, ids) end
    batch.held = false
  end
  if batch.lines or batch.freed or batch.freed_lines then flush_lines(batch) end
end

-- The one place that asks who was waiting for a task that ended.
local function tell_waiters(batch)
  local finished, places = batch.finished, {}
  local noted = batch.waited_until
  if (noted or #finished > 1) and not mail.is_awaited(batch.base, batch.now, noted) then return end
  for i, id in ipairs(finished) do places[i] = keys.waiters(batch.base, id) end
  if #places > 1 and redis.call('EXISTS', unpack(places)) == 0 then return end
  local letters, some = {}, false
  for i, id in ipairs(finished) do
    local names = redis.pcall('SMEMBERS', places[i])
    if errors.of(names) then
      some = true
    elseif #names > 0 then
      some = true
      local record = task.read(batch.base, id, mail.OUTCOME)
      local letter = mail.finished(id, mail.outcome(record), batch.removed)
      for _, name in ipairs(names) do
        if not schedule.tell(batch.base, name, id, record) then M.push(letters, name, letter) end
      end
    end
  end
  for name, messages in pairs(letters) do mail.post(batch.base, name, messages) end
  if some then redis.call('DEL', unpack(places)) end
end

-- Keep the names of tasks that a worker did not know, for people: the last ones, for somewhat longer than such a task
-- rests. A damaged key costs only that, hence pcall.
local function note_unknown(batch)
  local key = keys.unknown_tasks(batch.base)
  for name in pairs(batch.unknown) do redis.pcall('ZADD', key, batch.now, name) end
  redis.pcall('ZREMRANGEBYRANK', key, 0, -MAX_UNKNOWN - 1)
  redis.pcall('PEXPIRE', key, UNKNOWN_TTL_MS)
end

function M.close(batch)
  M.flush(batch)
  if batch.unknown then note_unknown(batch) end
  if batch.finished then tell_waiters(batch) end
  if batch.buckets then limits.write(batch) end
  if batch.first_due then timer.scheduled(batch) end
  if batch.removed then redis.call('DEL', unpack(batch.removed)) end
  if batch.loads then
    for worker, by in pairs(batch.loads) do
      if by ~= 0 then member.change_load(batch.base, worker, by) end
    end
  end
  if batch.counters then
    for name, count in pairs(batch.counters) do stats.add(batch.base, batch.now, name, count) end
  end
end

return M
