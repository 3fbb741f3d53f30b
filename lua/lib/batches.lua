-- The moves of one call: what they gather, so that it is done once for all of them when the call ends (calls.lua).
local M = {}

-- How long what a damaged key held up waits before it is tried again.
M.STUCK_MS = 10000

-- `now`, `now_text`: what `clock.read` replies. What a call may gather is made when there is some: a call alone mostly pays
-- for its tables. Named here is what most have.
function M.open(base, now, now_text)
  return { base = base, now = now, now_text = now_text, back = false, finished = false, counters = false, loads = false,
    members = false, is_plain = false, pauses = false, seen = false, has_lines = false }
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

-- Add to a list of `lists` (name -> list, or a batch), made when first needed.
function M.push(lists, name, item)
  local list = lists[name]
  if list then list[#list + 1] = item else lists[name] = { item } end
end

-- The same for lists that the batch keeps: `back` and `front` by lane, `held` by pause.
function M.add(batch, place, name, item)
  local lists = batch[place]
  if lists then M.push(lists, name, item) else batch[place] = { [name] = { item } } end
end

-- A whole list of them, which then is the batch's own.
function M.add_all(batch, place, name, items)
  local lists = batch[place] or {}
  batch[place] = lists
  if not lists[name] then
    lists[name] = items
  else
    for i = 1, #items do M.push(lists, name, items[i]) end
  end
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

-- A task has ended: whoever waits for it is told.
function M.ended(batch, id) M.push(batch, 'finished', id) end

-- A quarantined task of a lane waits: workers are woken for it.
function M.quarantine(batch, lane_name)
  local counts = batch.quarantined or {}
  counts[lane_name], batch.quarantined = (counts[lane_name] or 0) + 1, counts
end

return M
