-- What can happen to a task that is not running, and how any task ends. A task is moved between states here, in claim.lua,
-- in attempt.lua, and of workflows in map.lua and flow.lua, and nowhere else. Moves happen within a batch (batches.lua),
-- which does once for all of them what need not be done for each.
local M = {}

-- What a record loses when a dead letter starts anew, its notes besides.
local EARLIER_LIFE = { 'lost', 'error', 'traceback', 'history', 'started_at', 'finished_at', 'worker',
  'due_at', 'expires_at', 'abort_requested', 'progress', 'unknown_since', 'streamed', 'waited_ms', 'afresh' }
-- What is left of a record that was discarded.
local OUTLIVES = { 'state', 'name', 'lane', 'idempotency_key', 'tries', 'enqueued_at', 'started_at', 'finished_at',
  'error', 'result_ttl_ms', 'logged', 'streamed', 'needs', 'then', 'after', 'broken', 'spent', 'unborne', 'kind',
  'home', 'life' }

-- A task that ended may be a member of a group, or of one in another queue, which hears of it. Replies whether it is kept until that
-- says so, and else for how long, where it is a member: a call of a map that was aborted or discarded cannot run again.
function M.note_member(batch, id, counter)
  local of, name, record = group.of(batch, id)
  if not of then
    group.note_other(batch, id)
    return outbox.note_end(batch, id)
  end
  local state = counter == 'completed' and 'complete' or counter
  group.note(batch, of, name, state, false, record)
  return of.kind ~= 'map' or state == 'failed', number.of(of.result_ttl_ms, 0)
end

-- What becomes of a record whose last write is `written`: kept for a time, for ever as a dead letter, or not at all.
function M.ended(batch, id, key, counter, written, ttl_ms)
  if type(written) == 'table' then return errors.wrong_type(key).err end
  batches.count(batch, counter)
  local finished = batch.finished
  if finished then finished[#finished + 1] = id else batch.finished = { id } end
  if not batch.is_plain and string.find(id, '~', 1, true) then
    local is_kept, its_ttl_ms = M.note_member(batch, id, counter)
    if is_kept then return end
    ttl_ms = its_ttl_ms or ttl_ms
  end
  if ttl_ms > 0 then
    if ttl_ms ~= batch.ttl_ms then batch.ttl_ms, batch.ttl_text = ttl_ms, clock.text(ttl_ms) end
    redis.call('PEXPIRE', key, batch.ttl_text)
  elseif ttl_ms == 0 then
    batch.removed = batch.removed or {}
    batch.removed[#batch.removed + 1] = key
  end
end

-- any -> failed, aborted, expired, discarded. `fields`: more names and values to write, flat.
function M.finish(batch, id, state, fields, ttl_ms)
  local key = keys.task(batch.base, id)
  unique.free(batch.base, id)
  local written = redis.pcall('HSET', key, 'state', state, 'finished_at', batch.now_text, unpack(fields))
  if state == 'failed' and type(written) == 'number' then
    redis.call('ZADD', keys.dead(batch.base), batch.now_text, id)
  end
  return M.ended(batch, id, key, state, written, ttl_ms)
end

-- blocked -> skipped: something that it needed did not complete.
function M.skip(batch, id, why) return M.finish(batch, id, 'skipped', { 'error', why }, -1) end

-- What a task that waited since then loses when it is ready again.
local WAITED = { 'waits_for', 'waits_since' }

-- What becomes of the record of a task that is ready again, as `make_ready` takes it.
function M.waited(batch, id, since)
  local before = redis.call('HGET', keys.task(batch.base, id), 'waited_ms')
  local waited_ms = number.of(before, 0) + math.max(batch.now - number.of(since, batch.now), 0)
  return { 'waited_ms', clock.text(waited_ms) }, WAITED
end

-- Out of the place of a task that waits. An entry of a ready list cannot be taken out of its middle: it gets a tombstone.
local function take_out(batch, id, record)
  if record.state == 'scheduled' then
    errors.read('ZREM', keys.scheduled(batch.base), id)
    redis.call('HDEL', keys.task(batch.base, id), unpack(WAITED))
  elseif record.state == 'held' then
    errors.read('ZREM', keys.held(batch.base, record.pause or ''), id)
    redis.call('HDEL', keys.task(batch.base, id), 'pause')
  elseif record.state == 'limited' then
    local line_name = redis.call('HGET', keys.task(batch.base, id), 'buckets')
    if line_name then line.take_out(batch, record.lane or task.DEFAULT_LANE, line_name, id) end
  elseif record.state ~= 'blocked' and errors.read('ZREM', keys.quarantined(batch.base), id) == 0 then
    errors.read('SADD', keys.tombstones(batch.base, record.lane or task.DEFAULT_LANE), id)
  end
end

-- Why a task that waits cannot be taken out of its place, or nil.
function M.in_the_way(batch, record)
  local base = batch.base
  if record.state == 'scheduled' then return batches.obstacle(batch, 'ZCARD', keys.scheduled(base)) end
  if record.state == 'held' then return batches.obstacle(batch, 'ZCARD', keys.held(base, record.pause or '')) end
  if record.state ~= 'queued' then return nil end
  return batches.obstacle(batch, 'ZCARD', keys.quarantined(base))
    or batches.obstacle(batch, 'SCARD', keys.tombstones(base, record.lane or task.DEFAULT_LANE))
end

-- queued, limited, scheduled, held, blocked -> aborted.
function M.abort_waiting(batch, id, record, ttl_ms)
  take_out(batch, id, record)
  -- A map that never began; one that is skipped keeps them, since it may be needed after all.
  if record.kind == 'map' then redis.call('DEL', keys.items(batch.base, id)) end
  return M.finish(batch, id, 'aborted', { 'error', 'aborted' }, task.kept_ms(record, ttl_ms))
end

-- queued, scheduled, held -> expired, for a task that somebody asks about before a worker comes upon it. Replies whether.
function M.expire_waiting(batch, id, record, ttl_ms)
  if not (task.is_waiting(record.state) and number.of(record.expires_at, math.huge) <= batch.now) then return false end
  take_out(batch, id, record)
  M.finish(batch, id, 'expired', { 'error', 'expired' }, task.kept_ms(record, ttl_ms))
  return true
end

-- running, scheduled, held, failed -> queued, limited, with what else to write to its record and, first, which fields to drop.
function M.make_ready(batch, id, record, fields, dropped, place)
  local lane_name = record.lane
  if not lane_name then
    lane_name = task.DEFAULT_LANE
    fields[#fields + 1], fields[#fields + 2] = 'lane', lane_name
  end
  local key, line_name = keys.task(batch.base, id), record.buckets
  local obstacle
  if line_name then
    batch.sound = batch.sound or {}
    obstacle = line.damage(batch.base, lane_name, line_name, batch.sound)
    obstacle = obstacle and obstacle.err
  else
    obstacle = batches.obstacle(batch, 'LLEN', keys.ready(batch.base, lane_name))
  end
  if obstacle then return obstacle, true end
  if dropped then redis.call('HDEL', key, unpack(dropped)) end
  redis.call('HSET', key, 'state', line_name and 'limited' or 'queued', unpack(fields))
  if line_name then
    batches.add_to_line(batch, lane_name, line_name, id, place == 'front' and 'LPUSH' or 'RPUSH')
  else
    batches.add(batch, place or 'back', lane_name, id)
  end
  waiters.changed(batch.base, batch.now, id, record.watched_until)
end

-- none, running -> scheduled.
function M.schedule(batch, id, lane_name, due_at)
  redis.call('ZADD', keys.scheduled(batch.base), due_at, id)
  timer.note(batch, lane_name, due_at)
end

-- scheduled -> queued, limited: a task need not wait any longer, and is next in its lane. Replies an error text where it cannot.
function M.wake(batch, id, record)
  local scheduled = keys.scheduled(batch.base)
  local err = batches.obstacle(batch, 'ZCARD', scheduled)
  if err then return err end
  local fields, dropped = M.waited(batch, id, record.waits_since)
  fields[3], fields[4] = 'due_at', batch.now_text
  err = M.make_ready(batch, id, record, fields, dropped, 'front')
  if err then return err end
  redis.call('ZREM', scheduled, id)
end

-- blocked -> queued, limited, scheduled: nothing that it needs is open any more. Its delay, its expiry and its age count from
-- now.
function M.begin(batch, id, record)
  local fields, delay_ms = { 'needs', '0', 'enqueued_at', batch.now_text }, number.of(record.delay_ms, 0)
  if record.expire_ms then
    fields[5], fields[6] = 'expires_at', clock.text(batch.now + number.of(record.expire_ms, 0))
  end
  if delay_ms <= 0 then return M.make_ready(batch, id, record, fields) end
  local err = batches.obstacle(batch, 'ZCARD', keys.scheduled(batch.base))
  if err then return err end
  local due_at = clock.text(batch.now + delay_ms)
  redis.call('HSET', keys.task(batch.base, id), 'state', 'scheduled', 'due_at', due_at, unpack(fields))
  M.schedule(batch, id, record.lane or task.DEFAULT_LANE, tonumber(due_at))
  waiters.changed(batch.base, batch.now, id, record.watched_until)
end

-- none -> queued, limited, scheduled. `plan`: when it falls due, the line of its limits, and what else its record has
-- (`uses.fields`).
function M.create(batch, key, id, name, lane_name, args, kwargs, plan)
  local due_at, more, now_text = plan.due_at, plan.fields, batch.now_text
  local state = due_at and 'scheduled' or plan.line and 'limited' or 'queued'
  if args == '' then args = '[]' end
  -- Most have no more: for them nothing is unpacked.
  if more and kwargs ~= '' then
    redis.call('HSET', key, 'state', state, 'name', name, 'args', args, 'lane', lane_name, 'enqueued_at', now_text,
      'kwargs', kwargs, unpack(more))
  elseif more then
    redis.call('HSET', key, 'state', state, 'name', name, 'args', args, 'lane', lane_name, 'enqueued_at', now_text,
      unpack(more))
  elseif kwargs ~= '' then
    redis.call('HSET', key, 'state', state, 'name', name, 'args', args, 'lane', lane_name, 'enqueued_at', now_text,
      'kwargs', kwargs)
  else
    redis.call('HSET', key, 'state', state, 'name', name, 'args', args, 'lane', lane_name, 'enqueued_at', now_text)
  end
  if due_at then
    M.schedule(batch, id, lane_name, due_at)
  elseif plan.line then
    batches.add_to_line(batch, lane_name, plan.line, id, 'RPUSH')
  else
    batches.add(batch, 'back', lane_name, id)
  end
  return state
end

-- scheduled -> queued, limited for up to `limit` tasks that are due; those whose lane is damaged are put behind the others.
-- Replies whether as many as that were due.
function M.promote(batch, limit)
  local scheduled = keys.scheduled(batch.base)
  local due = redis.pcall('ZRANGEBYSCORE', scheduled, '-inf', batch.now_text, 'LIMIT', 0, limit)
  if due.err then batches.refuse(batch, '', '', errors.wrong_type(scheduled).err) end
  if due.err or #due == 0 then return false end
  local gone, stuck = {}, {}
  for _, id in ipairs(due) do
    local record, err, stays = task.read(batch.base, id, { 'state', 'lane', 'watched_until', 'buckets', 'waits_since' })
    if record and record.state == 'scheduled' then
      local fields, dropped = {}, nil
      if record.waits_since then fields, dropped = M.waited(batch, id, record.waits_since) end
      err, stays = M.make_ready(batch, id, record, fields, dropped)
    elseif record then
      batches.count(batch, 'ghosts')
    end
    if err then batches.refuse(batch, id, '', err) end
    if stays then
      stuck[#stuck + 1], stuck[#stuck + 2] = batch.now + batches.STUCK_MS, id
    else
      gone[#gone + 1] = id
    end
  end
  if #stuck > 0 then redis.call('ZADD', scheduled, unpack(stuck)) end
  if #gone > 0 then redis.call('ZREM', scheduled, unpack(gone)) end
  return #due == limit
end

-- held -> queued, limited for up to `limit` tasks of a pause, to the front of their lanes: each portion in its order, the last
-- ones first, so that all lie in their order when the last portion is through. Replies how many were moved, and whether
-- any is left.
function M.give_back(batch, pause_id, limit)
  local place, moved = keys.held(batch.base, pause_id), {}
  local ids = redis.pcall('ZREVRANGE', place, 0, limit - 1)
  if errors.of(ids) then return 0, true end
  for i = #ids, 1, -1 do
    local id = ids[i]
    local record, err, stays = task.read(batch.base, id, { 'state', 'lane', 'pause', 'watched_until', 'buckets' })
    if record and record.state == 'held' and record.pause == pause_id then
      err, stays = M.make_ready(batch, id, record, {}, { 'pause' }, 'front')
    elseif record then
      batches.count(batch, 'ghosts')
    end
    if err then batches.refuse(batch, id, '', err) end
    if not stays then moved[#moved + 1] = id end
  end
  if #moved > 0 then redis.call('ZREM', place, unpack(moved)) end
  return #moved, redis.call('EXISTS', place) == 1
end

-- held -> limited: what an earlier version held because it could not claim it. Replies whether there may be more.
function M.take_over(batch, limit)
  local place, gone = keys.held(batch.base, pause_rules.NEWER), {}
  local ids = redis.pcall('ZRANGE', place, 0, limit - 1)
  if errors.of(ids) then return false end
  for _, id in ipairs(ids) do
    local record = task.read(batch.base, id, { 'state', 'lane', 'pause', 'watched_until', 'buckets', 'needs_version' })
    if not record or record.state ~= 'held' or record.pause ~= pause_rules.NEWER then
      gone[#gone + 1] = id
    elseif number.of(record.needs_version, 0) <= task.VERSION then
      local _, stays = M.make_ready(batch, id, record, {}, { 'pause' }, 'back')
      if not stays then gone[#gone + 1] = id end
    end
  end
  if #gone > 0 then redis.call('ZREM', place, unpack(gone)) end
  return #gone > 0 and #ids == limit
end

-- queued, scheduled, held, failed -> discarded: taken out of its place already. The record shrinks to its outcome, which for a
-- dead letter stays what it was, and is kept as long as a result.
function M.discard(batch, id, state, ttl_ms)
  local record = task.read(batch.base, id, OUTLIVES)
  if not record or record.state ~= state or record.kind then
    batches.count(batch, 'ghosts')
    return false
  end
  record.state, record.error = 'discarded', state == 'failed' and record.error or 'discarded'
  record.finished_at = state == 'failed' and record.finished_at or batch.now_text
  local key, fields = keys.task(batch.base, id), {}
  for _, name in ipairs(OUTLIVES) do
    if record[name] then fields[#fields + 1], fields[#fields + 2] = name, record[name] end
  end
  unique.free(batch.base, id)
  redis.call('DEL', key)
  -- Once those who wait for it are told, and what it kept is looked at for that.
  batches.push(batch, 'removed', keys.steps(batch.base, id))
  batches.push(batch, 'removed', keys.signals(batch.base, id))
  local written = redis.call('HSET', key, unpack(fields))
  M.ended(batch, id, key, 'discarded', written, task.kept_ms(record, ttl_ms))
  return true
end

-- failed -> queued, limited, away: a dead letter runs again as if new; `call`: with these args, kwargs and codec instead of its own.
function M.requeue(batch, id, record, call)
  local fields, dropped = { 'enqueued_at', batch.now_text, 'tries', '0' }, task.note_fields(batch.base, id)
  for _, name in ipairs(EARLIER_LIFE) do dropped[#dropped + 1] = name end
  redis.call('ZREM', keys.dead(batch.base), id)
  if call then
    -- Its key is that of other arguments; and results of other tasks are no longer among these.
    redis.call('HDEL', keys.task(batch.base, id), 'kwargs', 'codec', 'unique', 'replaced_by', 'inputs')
    for _, name in ipairs({ 'args', 'kwargs', 'codec', 'headers' }) do
      if call[name] ~= '' then fields[#fields + 1], fields[#fields + 2] = name, call[name] end
    end
  end
  unique.take_back(batch.base, id)
  batches.count(batch, 'requeued')
  if record.queue then
    if call then fields[#fields + 1], fields[#fields + 2] = 'afresh', '1' end
    redis.call('HDEL', keys.task(batch.base, id), unpack(dropped))
    redis.call('HSET', keys.task(batch.base, id), unpack(fields))
    outbox.send(batch, id, record)
  else
    M.make_ready(batch, id, record, fields, dropped)
  end
end

-- A finished record makes room for a new task under its id, with what it told.
function M.remove(batch, id)
  local base = batch.base
  redis.call('DEL', keys.task(base, id), keys.log(base, id), keys.stream(base, id))
  redis.call('ZREM', keys.dead(base), id)
  memos.drop(batch, id)
end

return M
