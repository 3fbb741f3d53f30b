-- Groups: workflows, and the maps in them. A member's id is the id of its group, `~` and its name, so that by its id alone it is
-- seen whether a task may be part of anything. Whether it is, its group's record says, which is read once a call.
local M = {}

local FIELDS = { 'state', 'kind', 'abort_requested', 'result_ttl_ms', 'building', 'timeout_ms', 'open_map', 'undoing',
  'parent', 'reopened' }
local OF_MAPS = { 'state', 'kind', 'abort_requested', 'result_ttl_ms', 'building', 'name', 'lane', 'kwargs', 'headers',
  'buckets', 'weight', 'size', 'made', 'max_concurrent', 'tolerate', 'keep_results', 'is_open' }
local OF_MEMBERS = { 'needs', 'state', 'then', 'spent', 'unneeded' }

-- What a group counts a member as that has ended in this state.
M.COUNTS = { complete = 'complete', failed = 'failed', expired = 'failed', discarded = 'failed', skipped = 'skipped',
  aborted = 'aborted' }

-- How long a client that creates a workflow by parts may be silent.
M.UNFINISHED_MS = 3600000

function M.id_of(group_id, name) return group_id .. '~' .. name end

-- The group and the name that an id has; nil: it cannot be a member.
function M.split(id) return string.match(id, '^(.+)~([^~]+)$') end

-- The record of a group with its id, or nil where there is none. `holder`: a batch, or a table with its `base`; it remembers
-- what was read.
function M.read(holder, group_id)
  local groups = holder.groups or {}
  holder.groups = groups
  local known = groups[group_id]
  if known == nil then
    local record = task.read(holder.base, group_id, FIELDS)
    known = record and record.kind and record or false
    if known and known.kind == 'map' then
      known = task.read(holder.base, group_id, OF_MAPS)
      known.size, known.made = number.of(known.size, 0), number.of(known.made, 0)
    end
    if known then known.id = group_id end
    groups[group_id] = known
  end
  return known or nil
end

-- The group that a task is a member of, its name there, and, of a workflow, what its record has of its edges; nil: of none.
function M.of(holder, id)
  local group_id, name = M.split(id)
  local found = group_id and M.read(holder, group_id)
  if not found then return nil end
  if found.kind == 'map' then
    local index = string.find(name, '^%d+$') and tonumber(name)
    return index and index < found.made and found or nil, name
  end
  local record = task.read(holder.base, id, OF_MEMBERS)
  return record and record.needs and found or nil, name, record
end

-- The map that has not ended of which a task is a call, and its number there, as text; nil: of none.
function M.of_call(batch, id)
  local group_id, name = string.match(id, '^(.+)~(%d+)$')
  local of = group_id and M.read(batch, group_id)
  if of and of.kind == 'map' and of.state == 'blocked' and tonumber(name) < of.made then return of, name end
end

-- Why a client cannot name a task so, or nil: what is called so is, or may become, a part of a workflow.
function M.reserved(holder, id)
  local group_id = string.find(id, '~', 1, true) and M.split(id)
  if not group_id or not M.read(holder, group_id) then return nil end
  local text = 'the id ' .. id .. ' is a place in workflow ' .. M.root_of(id) .. ': choose another one'
  return errors.bad_argument(text).err
end

-- What a key of a group that is about to be written holds something else than, or nil. Asked once a call.
function M.damage(batch, of)
  if of.is_sound then return nil end
  local base = batch.base
  local obstacle = batches.obstacle(batch, 'SCARD', keys.open(base, of.id))
    or batches.obstacle(batch, 'SCARD', keys.failed(base, of.id))
    or batches.obstacle(batch, 'LLEN', keys.chores(base))
    or batches.obstacle(batch, 'ZCARD', keys.workflows(base))
    or of.undoing and batches.obstacle(batch, 'LLEN', keys.undo(base, of.id))
    or (of.building or of.timeout_ms or of.open_map) and batches.obstacle(batch, 'ZCARD', keys.deadlines(base))
  if not obstacle and of.kind == 'map' then
    obstacle = batches.obstacle(batch, 'LLEN', keys.items(base, of.id))
      or batches.obstacle(batch, 'HLEN', keys.results(base, of.id))
  end
  of.is_sound = not obstacle
  return obstacle or nil
end

-- The same of the group that a task is a member of, and of all that this is in.
function M.damage_above(batch, id)
  local of = string.find(id, '~', 1, true) and M.of(batch, id)
  while of do
    local obstacle = M.damage(batch, of)
    if obstacle then return obstacle end
    local parent_id = M.split(of.id)
    of = parent_id and M.read(batch, parent_id)
  end
end

-- Counts in a group's record, by so much more or less; from nothing, where something else wrote there.
function M.count(base, group_id, changes)
  local key = keys.task(base, group_id)
  for name, by in pairs(changes) do
    -- Somebody may have written something that is no number.
    if errors.of(redis.pcall('HINCRBY', key, name, by)) then redis.call('HSET', key, name, clock.text(by)) end
  end
end

-- Whether a record is that of a compensation (undo.lua), by what it comes after.
function M.is_compensation(record) return string.find(record.after or '', '?undo', 1, true) ~= nil end

-- Whether compensations of a group have begun: what is open is one of them, and there is no way back. `undoing` is `0` before.
function M.is_undoing(of) return of.undoing == '1' end

-- Whether what is open of a group is to stop: its compensations only where that was asked for.
function M.is_stopping(of) return of.abort_requested and (not M.is_undoing(of) or of.abort_requested == '1') end

function M.root_of(id) return string.match(id, '^[^~]*') end

-- A member has ended: what follows is done when the call ends (flow.lua). `is_group`: it cannot be a dead letter. `record`: what is
-- known of its edges.
function M.note(batch, of, name, state, is_group, record)
  local id = M.id_of(of.id, name)
  local ended = { group = of, name = name, id = id, state = state, is_group = is_group, record = record }
  batches.push(batch, 'members', ended)
  return ended
end

-- The same of one that is open although its record says that it has ended, or is gone. This very call may have ended it.
function M.note_open(batch, of, name, record)
  M.note(batch, of, name, record and record.state or 'discarded', record and record.kind).is_open = true
end

-- No client owes calls to the open map of a workflow any more: it was sealed, or has ended. Replies the map, or nil.
function M.seal(batch, of)
  local base, id = batch.base, M.id_of(of.id, of.open_map)
  local own = M.read(batch, id)
  redis.call('HDEL', keys.task(base, of.id), 'open_map')
  redis.call('ZREM', keys.deadlines(base), of.id)
  of.open_map = nil
  if own then
    redis.call('HSET', keys.task(base, id), 'is_open', '0')
    own.is_open = '0'
  end
  return own
end

-- One more look at an id, by a heartbeat; where that cannot be noted, when heartbeats or fsck come upon it.
function M.later(batch, id)
  local obstacle = batches.obstacle(batch, 'LLEN', keys.chores(batch.base))
  if obstacle then return batches.refuse(batch, id, '', obstacle) end
  redis.call('RPUSH', keys.chores(batch.base), id)
end

-- Whether a map cannot go on because of a task that is no part of it, and has the id of its next call.
function M.is_obstructed(base, of)
  local state = redis.pcall('HGET', keys.task(base, M.id_of(of.id, clock.text(of.made))), 'state')
  return errors.of(state) ~= nil or state and not task.is_finished(state)
end

-- A task has ended that is no part of a map, and may have the id of its next call, which waited for that.
function M.note_other(batch, id)
  local group_id, name = M.split(id)
  local of = group_id and M.read(batch, group_id)
  local is_next = of and of.kind == 'map' and of.state == 'blocked' and name == clock.text(of.made)
  -- Heartbeats look at it in any case, later.
  if is_next and not M.damage(batch, of) then M.later(batch, group_id) end
end

-- More or fewer dead letters in a workflow.
function M.count_dead(batch, id, by)
  local dead = batch.dead or {}
  local root = M.root_of(id)
  dead[root], batch.dead = (dead[root] or 0) + by, dead
end

return M
