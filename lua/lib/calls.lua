-- What a call does once for all of its moves: pushes, wake-ups, what follows in workflows, telling waiters, counters. Its moves
-- gather that in a batch (batches.lua).
local M = {}

local MAX_UNKNOWN, UNKNOWN_TTL_MS = 100, 600000

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
  if batch.members then flow.advance(batch) end
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

-- The one place that asks who was waiting for tasks that ended.
local function tell_waiters(batch, finished)
  local places = {}
  local noted = batch.waited_until
  if (noted or #finished > 1) and not mail.is_awaited(batch.base, batch.now, noted) then return end
  for i, id in ipairs(finished) do places[i] = keys.waiters(batch.base, id) end
  if #places > 1 and bulk.of_keys('EXISTS', places) == 0 then return end
  local letters, mindful, some = {}, {}, false
  for i, id in ipairs(finished) do
    local names = redis.pcall('SMEMBERS', places[i])
    if errors.of(names) then
      some = true
    elseif #names > 0 then
      some = true
      local record = batch.outcomes and batch.outcomes[id] or task.read(batch.base, id, mail.OUTCOME)
      local letter = mail.finished(id, mail.outcome(record), batch.removed)
      for _, name in ipairs(names) do
        if name == memos.WAITER then
          mindful[#mindful + 1] = { id = id, outlives = memos.outlive(record.state) }
        elseif not schedule.tell(batch.base, name, id, record) then
          batches.push(letters, name, letter)
        end
      end
    end
  end
  for name, messages in pairs(letters) do mail.post(batch.base, name, messages) end
  if some then bulk.of_keys('DEL', places) end
  for _, one in ipairs(mindful) do
    if one.outlives then memos.keep(batch.base, batch.now, one.id) end
    parents.forsake(batch, one.id, not one.outlives)
  end
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
  local finished, forsaken = batch.finished, batch.forsaken
  while finished or forsaken do
    batch.finished, batch.forsaken = false, nil
    if finished then tell_waiters(batch, finished) end
    for _, id in ipairs(forsaken or {}) do parents.forsake(batch, id, true) end
    -- With a task end its children.
    if batch.members then M.flush(batch) end
    finished, forsaken = batch.finished, batch.forsaken
  end
  if batch.buckets then limits.write(batch) end
  if batch.first_due then timer.scheduled(batch) end
  if batch.removed then bulk.of_keys('DEL', batch.removed) end
  if batch.is_outbound then outbox.tell(batch) end
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
