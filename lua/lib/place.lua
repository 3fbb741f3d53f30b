-- Where a task must lie, by its record: what fsck compares, and repair goes by.
local M = {}

-- Fields that say where a task belongs.
M.FIELDS = { 'state', 'lane', 'worker', 'lost', 'pause', 'buckets', 'kind', 'needs', 'building', 'is_open', 'dead',
  'waits_for', 'after', 'undoing', 'timeout_ms', 'open_map', 'abort_requested', 'result_ttl_ms', 'keep_results',
  'size', 'made', 'tasks', 'complete', 'failed', 'skipped', 'aborted', 'home', 'queue', 'life', 'sent_at' }

-- The type of every key, by the first part of its name.
M.TYPES = {
  task = 'hash', ready = 'list', tombstones = 'set', wake = 'list',
  idle = 'zset', scheduled = 'zset', running = 'hash', held = 'zset',
  quarantined = 'zset', workers = 'zset', loads = 'zset', worker = 'hash', aborts = 'set', mailbox = 'list',
  waiters = 'set', log = 'list', stream = 'list',
  dead = 'zset', unknown_tasks = 'zset', pauses = 'hash', schedules = 'hash',
  schedule_due = 'zset', lanes = 'set', meta = 'hash', stats = 'hash', task_stats = 'hash', replicated = 'string',
  unique = 'hash', window = 'string',
  line = 'list', ring = 'zset', blocked = 'zset', blocked_lanes = 'hash', turns = 'hash', limited = 'hash',
  limits = 'hash', overrides = 'hash', busy = 'hash', rates = 'zset', opens = 'zset',
  slowed = 'string',
  workflows = 'zset', open = 'set', nodes = 'list', items = 'list', results = 'hash', failed = 'set',
  chores = 'list', outbox = 'list', deadlines = 'zset', steps = 'hash', signals = 'hash',
  undo = 'list',
  saving = 'string', audit = 'list',
}
-- Keys that belong to one worker; and those that must end by themselves, by what keys.lua calls them.
M.OF_WORKERS = { running = true, worker = true, aborts = true }
-- Those of one group, of which `task:<group>` is the record.
M.OF_GROUPS = { open = true, nodes = true, items = true, results = true, failed = true, undo = true }
-- Those of one task that has not ended, or may run again.
M.OF_TASKS = { steps = true, signals = true }
M.WITH_TTL = {
  mailbox = 'mailbox', waiters = 'waiters', log = 'log', stream = 'stream',
  stats = 'stats_minute', task_stats = 'task_stats',
  window = 'window', slowed = 'slowed', saving = 'saving',
}

-- How far into a ready list an id is looked for, from either end: a search of the whole would block the server.
local WINDOW = 5000

function M.is_quarantined(record)
  return number.of(record.lost, 0) >= 2
end

-- Whether a place lacks an id. One of another type lacks all.
function M.lacks(command, key, ...)
  local found = redis.pcall(command, key, ...)
  return not found or type(found) == 'table' or found == 0 and command ~= 'LPOS'
end

-- What is wrong with a record whose place can be looked up directly; nil: nothing, or it is for the ready list to say.
function M.misplaced(base, id, record)
  local state = record.state
  if record.kind then
    local is_open = record.kind == 'workflow' and state == 'blocked'
    return is_open and M.lacks('ZSCORE', keys.workflows(base), id) and 'not_in_workflows' or nil
  elseif state == 'scheduled' then
    return M.lacks('ZSCORE', keys.scheduled(base), id) and 'not_in_scheduled'
  elseif state == 'running' then
    return M.lacks('HGET', keys.running(base, record.worker or ''), id) and 'not_in_running'
  elseif state == 'held' then
    return M.lacks('ZSCORE', keys.held(base, record.pause or ''), id) and 'not_in_held'
  elseif state == 'failed' and not record.home then
    return M.lacks('ZSCORE', keys.dead(base), id) and 'not_in_dead'
  elseif state == 'queued' then
    return M.is_quarantined(record) and M.lacks('ZSCORE', keys.quarantined(base), id) and 'not_in_quarantined'
  end
  if state == 'limited' or state == 'blocked' or state == 'away' then return nil end
  return not task.is_finished(state) and 'unknown_state'
end

-- What is wrong with a guest that has ended: its home is not to be told, and knows nothing as long as it is kept for that; nil:
-- nothing.
function M.untold(base, id, record)
  if not record.home or not task.is_finished(record.state) or redis.call('PTTL', keys.task(base, id)) ~= -1 then
    return nil
  end
  return outbox.lacks(base, outbox.entry('ended', id)) and 'ended_without_outbox' or nil
end

-- Whether nobody needs what is kept for a task.
function M.is_forgotten(base, id)
  local record = task.read(base, id, { 'state' })
  return record and (not record.state or task.is_finished(record.state) and not memos.outlive(record.state))
end

-- Whether it is to be looked at by a heartbeat. In a longer list than is looked at it may lie behind, so none is missing there.
function M.is_chore(base, id)
  local length = redis.pcall('LLEN', keys.chores(base))
  if errors.of(length) then return false end
  return length > WINDOW or not M.lacks('LPOS', keys.chores(base), id, 'MAXLEN', WINDOW)
end

-- Whether a task waits although it has what it waits for, or nothing says what that is.
function M.oversleeps(base, id, record)
  if record.state ~= 'scheduled' or not record.waits_for then return false end
  local text = redis.pcall('HGET', keys.steps(base, id), record.waits_for)
  local fields = redis.pcall('HKEYS', keys.signals(base, id))
  if errors.of(text) or errors.of(fields) then return false end
  local asked = memos.pending(text or nil)
  if not asked or memos.oldest(fields, asked) then return true end
  local name = children.named(record.waits_for)
  local root_id = name and children.id_of(id, name)
  local root = root_id and task.read(base, root_id, { 'state' })
  return root and root.state ~= 'blocked' and not M.is_chore(base, root_id) or false
end

-- Whether one of the compensations of a workflow is a dead letter, which has to run again or to be discarded.
local function waits_for_compensation(base, id, record)
  local names = group.is_undoing(record) and redis.pcall('LRANGE', keys.undo(base, id), 0, 0)
  if not names or errors.of(names) or not names[1] then return false end
  local first = task.read(base, group.id_of(id, names[1]), { 'state' })
  return first and first.state == 'failed'
end

-- What is wrong with a part of a workflow, or with a workflow, that has not ended; nil: nothing.
function M.disconnected(base, id, record)
  if task.is_finished(record.state) then return nil end
  local holder = { base = base }
  local of, name = group.of(holder, id)
  local has_begun = record.kind and number.of(record.needs, 0) <= 0
  local is_over = not of or of.state ~= 'blocked' and not has_begun
  if record.state == 'blocked' and record.needs and is_over then return 'no_such_group' end
  local is_compensation = of and group.is_compensation(record)
  -- Its turn has not come.
  if is_compensation and record.state == 'blocked' and number.of(record.needs, 0) > 0 then return nil end
  local goes_on = not of or of.state == 'blocked' and not group.is_stopping(of)
  -- What runs again beside its compensations does so to no effect.
  if of and group.is_undoing(of) and not is_compensation then goes_on = false end
  if of and goes_on and M.lacks('SISMEMBER', keys.open(base, of.id), name) then return 'not_open' end
  if record.state ~= 'blocked' or number.of(record.needs, 0) > 0 then return nil end
  local has_open = record.kind and redis.call('EXISTS', keys.open(base, id)) == 1
  local is_to_come = record.building or record.is_open == '1' or of and of.building
  if has_open or is_to_come or not goes_on or M.is_chore(base, id) then return nil end
  local own = record.kind == 'map' and group.read(holder, id)
  if own and group.is_obstructed(base, own) then return nil end
  return not waits_for_compensation(base, id, record) and 'stuck_group' or nil
end

-- How many entries a key of a group has. Of one of another type that is found to be wrong.
local function size_of(command, key)
  local size = redis.pcall(command, key)
  return errors.of(size) and math.huge or size
end

-- Whether members of a group have ended that it was not told of: they were not known to be open then.
local function has_lost_ends(base, id, record)
  if record.state ~= 'blocked' or record.abort_requested or group.is_undoing(record) then return false end
  local through, expected = 0, number.of(record.kind == 'map' and record.made or record.tasks, 0)
  for _, name in ipairs({ 'complete', 'failed', 'skipped', 'aborted' }) do
    through = through + number.of(record[name], 0)
  end
  return through + size_of('SCARD', keys.open(base, id)) < expected
end

-- What a group has lost of what it alone knows.
local function lost_of_group(base, id, record)
  if has_lost_ends(base, id, record) then return 'lost_ends' end
  local is_over = record.state ~= 'blocked' or record.abort_requested or group.is_undoing(record)
  if record.kind == 'map' then
    local left = number.of(record.size, 0) - number.of(record.made, 0)
    if not is_over and size_of('LLEN', keys.items(base, id)) < left then return 'lost_items' end
    local has_results = record.keep_results == '0' or redis.call('PTTL', keys.task(base, id)) ~= -1
      or size_of('HLEN', keys.results(base, id)) >= number.of(record.complete, 0)
    return not has_results and 'lost_results' or nil
  end
  local has_deadline = record.building or record.timeout_ms or record.open_map
  return has_deadline and not is_over and M.lacks('ZSCORE', keys.deadlines(base), id) and 'not_in_deadlines' or nil
end

-- What a member is missing in that its group keeps for as long as itself.
local function lost_of_member(base, id, record)
  local of, name = group.of({ base = base }, id)
  if not of or redis.call('PTTL', keys.task(base, of.id)) ~= -1 then return nil end
  local own, nodes = task.read(base, of.id, M.FIELDS), keys.nodes(base, of.id)
  -- How many compensations there are nothing says.
  local may_lack = of.kind == 'workflow' and (own.undoing or size_of('LLEN', nodes) < number.of(own.tasks, 0))
  if may_lack and size_of('LLEN', nodes) < math.huge and M.lacks('LPOS', nodes, name) then return 'not_in_nodes' end
  local had_turn = not group.is_compensation(record) or number.of(record.needs, 0) <= 0
  local is_missing = task.is_finished(record.state) and record.state ~= 'complete' and had_turn
  if not is_missing or has_lost_ends(base, of.id, own) then return nil end
  local is_known = not M.lacks('SISMEMBER', keys.failed(base, of.id), name)
    or not M.lacks('SISMEMBER', keys.open(base, of.id), name)
  return not is_known and 'not_in_failed' or nil
end

-- What somebody deleted that tells a workflow of a member, or of itself; nil: nothing.
function M.lost(base, id, record)
  return string.find(id, '~', 1, true) and lost_of_member(base, id, record)
    or record.kind and lost_of_group(base, id, record) or nil
end

-- Whether a workflow that has ended, or a member, would stay: nothing of it may run again, and nobody will give it its time to live.
-- That of a member is its workflow's, which does not know it any more, or is gone.
function M.stays(base, id, record)
  if not (record.kind or record.needs) or not task.is_finished(record.state) then return false end
  if redis.call('PTTL', keys.task(base, id)) ~= -1 then return false end
  if record.kind == 'workflow' then
    return number.of(record.dead, 0) <= 0 and number.of(record.result_ttl_ms, -1) >= 0 and not M.is_chore(base, id)
  end
  local is_dead_letter = record.state == 'failed' and not record.kind
  return not is_dead_letter and redis.call('PTTL', keys.task(base, group.root_of(id))) ~= -1
end

-- Whether a pause is that of a workflow which has ended, or is gone.
function M.outlives_its_workflow(base, rule)
  if not rule or not rule.workflow or rule.resuming then return false end
  local record = task.read(base, rule.workflow, { 'state', 'kind' })
  return not (record and record.kind == 'workflow' and not task.is_finished(record.state))
end

-- What is wrong with an entry of those of a group that have not ended; nil: nothing, or it will be looked at.
function M.is_over(base, id, record)
  if not record.state then return 'open_without_record' end
  return task.is_finished(record.state) and not M.is_chore(base, id) and 'open_but_ended' or nil
end

-- The list that a task waits in by its record: the ready list of its lane, or a line.
function M.list(base, record)
  if record.state == 'limited' then return keys.line(base, record.lane or '', record.buckets or '') end
  return keys.ready(base, record.lane or '')
end

-- Whether an id lies near either end of a list. In a longer one it may lie in between.
function M.is_near_an_end(key, id)
  return (errors.read('LPOS', key, id, 'MAXLEN', WINDOW) or errors.read('LPOS', key, id, 'RANK', -1, 'MAXLEN', WINDOW))
    and true or false
end

local function fits_quarantined(record) return record.state == 'queued' and M.is_quarantined(record) end
local function fits_ready(record, of)
  return record.state == 'queued' and record.lane == of and not M.is_quarantined(record)
end

-- Whether an entry of a place (`of`: its lane or worker) belongs there, by the entry's record.
M.FITS = {
  ready = fits_ready,
  scheduled = function(record) return record.state == 'scheduled' end,
  workflows = function(record) return record.kind == 'workflow' and record.state == 'blocked' end,
  dead = function(record) return record.state == 'failed' and not record.kind end,
  quarantined = fits_quarantined,
  held = function(record, of) return record.state == 'held' and record.pause == of end,
  running = function(record, of) return record.state == 'running' and record.worker == of end,
  -- A mark on a task that is queued in this lane would have it skipped.
  tombstones = function(record, of) return not fits_ready(record, of) end,
}

return M
