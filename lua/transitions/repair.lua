-- repair: scheduled, running, held, blocked, skipped -> queued, limited, aborted, failed, skipped, blocked. Repairs what fsck found; each finding is checked again first, and what is sound by now is left alone.
-- args: result_ttl_ms int; findings: (kind, id, detail)…
-- reply: one string per finding: `mended`, `sound` (nothing is wrong by now) or `by_hand` (left to a person)
local TTL_MS = 3600000

-- The name of a key in parts, `log:t1`.
local function parts(name) return string.match(name, '^([a-z_]+):(.*)$') end

-- How each kind is mended: it is given the batch, the finding and the task's record, and replies nil for done, else why
-- it was not.
local MEND = {}

-- Whatever its record says of where it is, its place does not know it: it is put there, and what runs nowhere is queued
-- again (what a pause should hold, too: it will be held), aborted where that was asked for. Replies an error text when
-- the place is damaged.
local function put_in_place(batch, id, ttl_ms)
  local record, err = task.read(batch.base, id, { 'state', 'lane', 'lost', 'due_at', 'finished_at',
    'watched_until', 'buckets' })
  if err then return err end
  if record.state == 'running' then return (attempt.hand_back(batch, id, ttl_ms, false)) end
  if record.state == 'held' then return (move.make_ready(batch, id, record, {}, { 'pause' }, 'front')) end
  local key = record.state == 'scheduled' and keys.scheduled or record.state == 'failed' and keys.dead
    or place.FITS.quarantined(record) and keys.quarantined
  if not key then return 'by_hand' end
  err = batches.obstacle(batch, 'ZCARD', key(batch.base))
  if err then return err end
  local lane_name = record.lane or task.DEFAULT_LANE
  if record.state == 'scheduled' then
    move.schedule(batch, id, lane_name, number.of(record.due_at, batch.now))
  else
    redis.call('ZADD', key(batch.base), record.finished_at or batch.now_text, id)
    if record.state == 'queued' then batches.quarantine(batch, lane_name) end
  end
end

-- A task that its own record says to be somewhere, and is not.
local function put_back(batch, finding, record, ttl_ms)
  if place.misplaced(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
  return put_in_place(batch, finding.id, ttl_ms) and 'by_hand' or nil
end

MEND.not_in_scheduled, MEND.not_in_running = put_back, put_back
MEND.not_in_dead, MEND.not_in_quarantined, MEND.not_in_held = put_back, put_back, put_back

-- Ready again, unless it is seen to lie there. In the middle of a long list it may lie unseen: a second entry is
-- harmless, for a claim passes over what is not queued.
local function make_ready(batch, id, record)
  if not place.FITS.ready(record, record.lane or '') then return 'sound' end
  if batches.obstacle(batch, 'LLEN', keys.ready(batch.base, record.lane)) then return 'by_hand' end
  if place.is_near_an_end(place.list(batch.base, record), id) then return 'sound' end
  batches.add(batch, 'back', record.lane, id)
end

function MEND.not_in_ready(batch, finding, record) return make_ready(batch, finding.id, record) end

-- In its line again, likewise.
function MEND.not_in_line(batch, finding, record)
  local id, lane_name, line_name = finding.id, record.lane, record.buckets
  if record.state ~= 'limited' or not lane_name or not line_name then return 'sound' end
  if line.damage(batch.base, lane_name, line_name) then return 'by_hand' end
  if place.is_near_an_end(place.list(batch.base, record), id) then return 'sound' end
  batches.add_to_line(batch, lane_name, line_name, id, 'RPUSH')
end

-- A line without a place has its turn again.
function MEND.not_in_turn(batch, finding)
  local kind, rest = parts(finding.id)
  if kind ~= 'line' or redis.call('EXISTS', batch.base .. finding.id) == 0 then return 'sound' end
  local lane_name, name = line.split(rest)
  if not name or line.damage(batch.base, lane_name, name) then return 'by_hand' end
  if line.has_place(batch.base, rest) then return 'sound' end
  line.place(batch, rest)
end

-- What runs of a bucket is counted anew.
function MEND.wrong_busy(batch, finding)
  local bucket = finding.id
  if limits.look(batch, { bucket }) then return 'by_hand' end
  batch.counted = batch.counted or limits.count_busy(batch.base)
  local counted = batch.counted[bucket] or 0
  if batch.buckets[bucket].busy == counted then return 'sound' end
  batch.freed = batch.freed or {}
  batch.freed[bucket] = batch.buckets[bucket].busy - counted
end

-- An entry whose record says otherwise is dropped, and the task put where its record says, should it be nowhere else.
-- In a ready list an entry stays: a claim drops it when it gets there.
local function drop_ghosts(kind, command)
  MEND['ghost_in_' .. kind] = function(batch, finding, record, ttl_ms)
    local id, of = finding.id, finding.detail
    if place.FITS[kind](record, of) then return 'sound' end
    local lease = kind == 'running' and redis.pcall('HGET', keys.running(batch.base, of), id)
    local dropped = redis.pcall(command, keys[kind](batch.base, of), id)
    if errors.of(dropped) then return 'by_hand' end
    if dropped == 0 then return 'sound' end
    if kind == 'running' then
      local _, _, _, line_name = member.token(type(lease) == 'string' and lease)
      if line_name then limits.free(batch, line_name) end
      member.count_load(batch.base, of)
    end
    if record.state and place.misplaced(batch.base, id, record) then
      put_in_place(batch, id, ttl_ms)
    else
      make_ready(batch, id, record)
    end
  end
end

drop_ghosts('scheduled', 'ZREM')
drop_ghosts('dead', 'ZREM')
drop_ghosts('quarantined', 'ZREM')
drop_ghosts('held', 'ZREM')
drop_ghosts('running', 'HDEL')
drop_ghosts('tombstones', 'SREM')

-- What of a workflow has not ended is known to it again.
function MEND.not_open(batch, finding, record)
  if place.disconnected(batch.base, finding.id, record) ~= 'not_open' then return 'sound' end
  local of, name = group.of(batch, finding.id)
  if group.damage_above(batch, finding.id) then return 'by_hand' end
  if redis.call('SISMEMBER', keys.failed(batch.base, of.id), name) == 1 then
    -- A dead letter that a version gave back which knows of no workflows.
    return replay.reopen(batch, finding.id)
  end
  redis.call('SADD', keys.open(batch.base, of.id), name)
end

function MEND.not_in_workflows(batch, finding, record)
  if place.misplaced(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
  if batches.obstacle(batch, 'ZCARD', keys.workflows(batch.base)) then return 'by_hand' end
  local created_at = number.of(redis.call('HGET', keys.task(batch.base, finding.id), 'enqueued_at'), batch.now)
  redis.call('ZADD', keys.workflows(batch.base), clock.text(created_at), finding.id)
end

function MEND.ghost_in_workflows(batch, finding, record)
  if place.FITS.workflows(record) then return 'sound' end
  local dropped = redis.pcall('ZREM', keys.workflows(batch.base), finding.id)
  if errors.of(dropped) then return 'by_hand' end
  return dropped == 0 and 'sound' or nil
end

-- With a workflow its pause ends; what it holds is given back by heartbeats.
function MEND.ghost_in_pauses(batch, finding)
  if batches.obstacle(batch, 'HLEN', keys.pauses(batch.base)) then return 'by_hand' end
  local rule = pause_rules.read(batch.base, finding.id)
  if not place.outlives_its_workflow(batch.base, rule) then return 'sound' end
  pause_rules.end_of_workflow(batch.base, rule.workflow)
end

-- What follows from its end is done now; without a record it counts as failed.
local function end_open(batch, finding, record)
  local of, name = group.split(finding.id)
  local own = of and group.read(batch, of)
  if not own or place.lacks('SISMEMBER', keys.open(batch.base, of), name) then return 'sound' end
  if place.is_over(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
  if group.damage(batch, own) then return 'by_hand' end
  chores.look(batch, finding.id)
end

MEND.open_but_ended, MEND.open_without_record = end_open, end_open

-- What its workflow knew of it is known again.
local function list_again(kind, key, command, mend)
  MEND['not_in_' .. kind] = function(batch, finding, record)
    if place.lost(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
    local of, name = group.split(finding.id)
    if batches.obstacle(batch, command, key(batch.base, of)) then return 'by_hand' end
    mend(batch, key(batch.base, of), name or finding.id, record, group.root_of(finding.id))
  end
end

list_again('nodes', keys.nodes, 'LLEN', function(_, key, name) redis.call('RPUSH', key, name) end)
list_again('failed', keys.failed, 'SCARD', function(batch, key, name, _, root_id)
  redis.call('SADD', key, name)
  batch.listed = batch.listed or {}
  batch.listed[root_id] = true
end)
-- Its time begins again.
list_again('deadlines', keys.deadlines, 'ZCARD', function(batch, key, id, record)
  local is_unfinished = record.building or record.open_map
  local left_ms = is_unfinished and group.UNFINISHED_MS or number.of(record.timeout_ms, 0)
  redis.call('ZADD', key, clock.text(batch.now + left_ms), id)
end)

-- What ended while its group did not know that it was open counts now.
function MEND.lost_ends(batch, finding, record)
  if place.lost(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
  local of = group.read(batch, finding.id)
  if group.damage_above(batch, finding.id) or group.damage(batch, of) then return 'by_hand' end
  return not recount.settle(batch, of) and 'by_hand' or nil
end

-- It goes on, or ends, where it can.
function MEND.stuck_group(batch, finding, record)
  if place.disconnected(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
  chores.look(batch, finding.id)
  calls.flush(batch)
  local after = task.read(batch.base, finding.id, place.FIELDS)
  if after and place.disconnected(batch.base, finding.id, after) then return 'by_hand' end
end

-- Its dead letters are counted again, at once or by heartbeats; without any it is kept no longer than its time.
function MEND.wrong_dead(batch, finding)
  local root = group.read(batch, finding.id)
  if not root or root.kind ~= 'workflow' or not task.is_finished(root.state) then return 'sound' end
  if group.damage(batch, root) then return 'by_hand' end
  if batches.obstacle(batch, 'LLEN', keys.nodes(batch.base, root.id)) then return 'by_hand' end
  return recount.go_on(batch, root, true)
end

-- A member that would stay is kept as long as its workflow; without that for an hour.
local function keep_member(batch, id)
  local record = task.read(batch.base, id, place.FIELDS)
  if not place.stays(batch.base, id, record) then return 'sound' end
  local left_ms = redis.call('PTTL', keys.task(batch.base, group.root_of(id)))
  ending.keep_member(batch, id, left_ms > 0 and left_ms or TTL_MS)
end

-- A key of a workflow that is gone is dropped. A task of one, or of one that has ended, which waits for others, is aborted; a
-- compensation is not needed.
function MEND.no_such_group(batch, finding, record, ttl_ms)
  local kind, of = parts(finding.id)
  if kind and place.OF_GROUPS[kind] then
    if not place.lacks('HEXISTS', keys.task(batch.base, of), 'kind') then return 'sound' end
    return redis.call('DEL', batch.base .. finding.id) == 0 and 'sound' or nil
  end
  if place.disconnected(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
  if group.damage_above(batch, finding.id) then return 'by_hand' end
  if group.is_compensation(record) then
    move.skip(batch, finding.id, 'skipped: not needed')
  else
    move.abort_waiting(batch, finding.id, record, ttl_ms)
  end
  keep_member(batch, finding.id)
end

-- Its queue is told again, and begins it where it is not there.
function MEND.away_without_outbox(batch, finding, record)
  if not outbox.is_silent(batch.base, finding.id, record, batch.now) then return 'sound' end
  if outbox.damage(batch) then return 'by_hand' end
  outbox.say_again(batch, finding.id, record)
end

-- Its home is told how it has ended.
function MEND.ended_without_outbox(batch, finding, record)
  if place.untold(batch.base, finding.id, record) ~= finding.kind then return 'sound' end
  if outbox.damage(batch) then return 'by_hand' end
  outbox.add(batch, outbox.entry('ended', finding.id))
end

-- What is kept for a task that is gone.
function MEND.no_such_task(batch, finding)
  local kind, id = parts(finding.id)
  if not place.OF_TASKS[kind] or not place.is_forgotten(batch.base, id) then return 'sound' end
  return redis.call('DEL', batch.base .. finding.id) == 0 and 'sound' or nil
end

-- A task waits for what is there: it goes on.
function MEND.not_woken(batch, finding, record)
  if not place.oversleeps(batch.base, finding.id, record) then return 'sound' end
  local fields = { 'state', 'lane', 'buckets', 'watched_until', 'waits_since' }
  return move.wake(batch, finding.id, task.read(batch.base, finding.id, fields)) and 'by_hand' or nil
end

-- A time without its schedule. One without its time is for a person: when it falls due only clients can tell.
function MEND.ghost_in_schedule_due(batch, finding)
  if batches.obstacle(batch, 'HLEN', keys.schedules(batch.base)) then return 'by_hand' end
  if not place.lacks('HEXISTS', keys.schedules(batch.base), finding.id) then return 'sound' end
  local dropped = redis.pcall('ZREM', keys.schedule_due(batch.base), finding.id)
  if errors.of(dropped) then return 'by_hand' end
  return dropped == 0 and 'sound' or nil
end

-- A worker without its row is refused from now on, and what it has claimed is given to others.
function MEND.no_row(batch, finding)
  local expiry = redis.pcall('ZSCORE', keys.workers(batch.base), finding.id)
  if errors.of(expiry) then return 'by_hand' end
  if not expiry or tonumber(expiry) <= 0 then return 'sound' end
  if redis.call('EXISTS', keys.worker(batch.base, finding.id)) == 1 then return 'sound' end
  redis.call('ZADD', keys.workers(batch.base), 0, finding.id)
end

-- What a worker left behind: if tasks are among it, as if it had just been lost, so that others reap it.
function MEND.no_such_worker(batch, finding)
  local kind, worker = parts(finding.id)
  if not place.OF_WORKERS[kind] or redis.call('EXISTS', keys[kind](batch.base, worker)) == 0 then return 'sound' end
  if batches.obstacle(batch, 'ZCARD', keys.workers(batch.base)) then return 'by_hand' end
  if redis.call('ZSCORE', keys.workers(batch.base), worker) then return 'sound' end
  if redis.call('EXISTS', keys.running(batch.base, worker)) == 1 then
    redis.call('ZADD', keys.workers(batch.base), 0, worker)
  else
    member.remove(batch.base, worker)
  end
end

function MEND.wrong_load(batch, finding)
  if batches.obstacle(batch, 'ZCARD', keys.loads(batch.base)) then return 'by_hand' end
  return not member.count_load(batch.base, finding.id) and 'sound' or nil
end

function MEND.no_ttl(batch, finding)
  local kind, rest = parts(finding.id)
  if kind == 'task' then
    if string.find(rest, '~', 1, true) then return keep_member(batch, rest) end
    local root = group.read(batch, rest)
    if not root or not place.stays(batch.base, rest, task.read(batch.base, rest, place.FIELDS)) then return 'sound' end
    batch.members = batch.members or {}
    return batches.push(batch, 'swept', root)
  end
  if not place.WITH_TTL[kind] then return 'sound' end
  local key = keys[place.WITH_TTL[kind]](batch.base, rest)
  if redis.call('PTTL', key) ~= -1 then return 'sound' end
  redis.call('PEXPIRE', key, TTL_MS)
end

return function(base, args)
  local batch, answers = batches.open(base, clock.read()), {}
  local findings = args.findings
  for at = 1, #findings, 3 do
    local finding = { kind = findings[at], id = findings[at + 1], detail = findings[at + 2] }
    local mend = MEND[finding.kind]
    -- All leases are read once for findings in a row.
    if finding.kind ~= 'wrong_busy' then batch.counted = nil end
    local record, err = task.read(base, finding.id, place.FIELDS)
    local answer = (not mend or err) and 'by_hand' or mend(batch, finding, record, args.result_ttl_ms) or 'mended'
    answers[#answers + 1] = answer
    -- The next finding may be about the same task, and is to see it where it lies by now.
    calls.flush(batch)
  end
  for root_id in pairs(batch.listed or {}) do recount.at_least(batch, root_id) end
  calls.close(batch)
  return answers
end
