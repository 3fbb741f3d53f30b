-- How an attempt ends: a worker settles what it has claimed, hands it back, or is gone.
local M = {}

local FIELDS = { 'state', 'lane', 'tries', 'lost', 'abort_requested', 'worker', 'enqueued_at', 'history',
  'watched_until', 'name', 'unknown_since', 'result_ttl_ms', 'buckets', 'started_at', 'waited_ms' }
-- What a record loses with its claim, and with a settled attempt.
local CLAIMED = { 'worker', 'started_at' }
local SETTLED = { 'worker', 'started_at', 'lost', 'unknown_since' }
-- How long a task rests that its worker did not know, by how long it has waited for one that does.
local RESTS_MS = { { waited = 600000, rest = 300000 }, { waited = 60000, rest = 60000 },
  { waited = 10000, rest = 10000 }, { waited = 0, rest = 1000 } }

-- A limit that is used up elsewhere is shut for so long (ms) at least: `Retry-After: 0` asks for no calls without a pause.
local LEAST_SHUT_MS = 100

-- The outcomes an attempt can be settled with.
M.OUTCOMES = { complete = true, failed = true, retry = true, snooze = true, limited = true, unknown = true,
  aborted = true, release = true, suspend = true }

-- running -> aborted.
local function abort(batch, id, record, ttl_ms)
  return move.finish(batch, id, 'aborted', { 'error', 'aborted' }, task.kept_ms(record, ttl_ms))
end

-- The history of a record with the attempt that just ended.
local function attempted(batch, record, run_ms, error_text)
  return history.add(record.history, number.of(record.tries, 1), batch.now, run_ms, record.worker, error_text)
end

-- running -> failed: a dead letter.
local function fail(batch, id, error_text, traceback, more_fields)
  local obstacle = batches.obstacle(batch, 'ZCARD', keys.dead(batch.base))
  if obstacle then return obstacle, true end
  local fields = more_fields or {}
  fields[#fields + 1], fields[#fields + 2] = 'error', error_text
  if traceback and traceback ~= '' then fields[#fields + 1], fields[#fields + 2] = 'traceback', traceback end
  return move.finish(batch, id, 'failed', fields, -1)
end

-- running -> queued, limited, aborted, failed: a worker no longer has the task. `lost`: it died with it. Replies an error text
-- or nil, whether the task stays where it is because of a damaged key, and the state it got into where that is another
-- one than what was asked for.
function M.hand_back(batch, id, ttl_ms, lost, max_lost)
  local record, err = task.read(batch.base, id, FIELDS)
  if err then return err end
  if record.state ~= 'running' then
    batches.count(batch, 'ghosts')
    return 'not_found'
  end
  local key = keys.task(batch.base, id)
  local times = number.of(record.lost, 0) + (lost and 1 or 0)
  local fields = { 'tries', math.max(number.of(record.tries, 1) - 1, 0) }
  if times > 0 then fields[3], fields[4] = 'lost', times end
  if lost then
    fields[5], fields[6] = 'history', attempted(batch, record, nil, 'its worker died')
  end
  local stays
  if record.abort_requested then
    redis.call('HDEL', key, 'worker', 'started_at')
    return abort(batch, id, record, ttl_ms), nil, 'aborted'
  elseif lost and times > max_lost then
    fields[2] = number.of(record.tries, 0)
    err, stays = fail(batch, id, 'poison: ' .. times .. ' workers died while holding this task', nil, fields)
    if not err then redis.call('HDEL', key, 'worker', 'started_at') end
  elseif times >= 2 then
    err = batches.obstacle(batch, 'ZCARD', keys.quarantined(batch.base))
    stays = err and true
    if not err then
      redis.call('HDEL', key, 'worker', 'started_at')
      redis.call('HSET', key, 'state', 'queued', unpack(fields))
      redis.call('ZADD', keys.quarantined(batch.base), batch.now, id)
      local name = record.lane or task.DEFAULT_LANE
      batches.quarantine(batch, name)
      waiters.changed(batch.base, batch.now, id, record.watched_until)
    end
  else
    err, stays = move.make_ready(batch, id, record, fields, CLAIMED, 'front')
  end
  if not err then batches.count(batch, lost and 'lost' or 'released') end
  return err, stays
end

-- running -> complete.
local function complete(batch, id, run_ms, result, codec, ttl_ms)
  if not batch.is_plain and string.find(id, '~', 1, true) then
    local of, name = group.of(batch, id)
    -- One that runs again although its map is through has a result of its own.
    if of and of.kind == 'map' and of.state == 'blocked' then return map.complete(batch, of, name, codec, result) end
  end
  local key, now_text, fields = keys.task(batch.base, id), batch.now_text, 4
  local started_at = run_ms == 0 and now_text or clock.text(batch.now - run_ms)
  local written
  if codec and codec ~= '' then
    fields = 5
    written = redis.pcall('HSET', key, 'state', 'complete', 'started_at', started_at, 'finished_at', now_text,
      'result', result, 'result_codec', codec)
  else
    written = redis.pcall('HSET', key, 'state', 'complete', 'started_at', started_at, 'finished_at', now_text,
      'result', result)
  end
  -- All of them new fields: somebody deleted the record. Half of one must not come back.
  if written == fields then
    redis.call('DEL', key)
    batches.count(batch, 'ghosts')
    return 'not_found'
  end
  return move.ended(batch, id, key, 'completed', written, ttl_ms)
end

-- running -> scheduled. What is in its way, as `hand_back` replies it.
local function put_off(batch, id, record, fields, delay_ms, counter)
  local err = batches.obstacle(batch, 'ZCARD', keys.scheduled(batch.base))
  if err then return err, true end
  local key, due_at = keys.task(batch.base, id), batch.now + delay_ms
  redis.call('HDEL', key, unpack(SETTLED))
  redis.call('HSET', key, 'state', 'scheduled', 'due_at', due_at, unpack(fields))
  move.schedule(batch, id, record.lane or task.DEFAULT_LANE, due_at)
  waiters.changed(batch.base, batch.now, id, record.watched_until)
  batches.count(batch, counter)
end

-- running -> failed where the next attempt would come later than `max_age_ms` allows. Replies as `hand_back`.
local function too_old(batch, ended, record, fields)
  local age_ms = batch.now + ended.delay_ms - number.of(record.enqueued_at, batch.now) - number.of(record.waited_ms, 0)
  if (ended.max_age_ms or 0) <= 0 or age_ms <= ended.max_age_ms then return nil end
  local text = ended.value .. ' (older than its max_age of ' .. clock.text(ended.max_age_ms) .. ' ms)'
  local err, stays = fail(batch, ended.id, text, nil, fields)
  return err, stays, 'failed'
end

-- running -> limited: a task waits in front of its line, while nothing of these buckets starts for a time.
local function wait_in_front(batch, ended, record, fields, buckets)
  local err, stays = move.make_ready(batch, ended.id, record, fields, SETTLED, 'front')
  if err then return err, stays end
  for _, bucket in ipairs(buckets) do limits.shut(batch, bucket, batch.now + ended.delay_ms) end
end

-- running -> scheduled, queued, limited, aborted; failed where the next attempt would come later than `max_age_ms` allows. A
-- snooze is no failure: it spends no try and is no part of the history.
local function try_again(batch, ended, record, ttl_ms)
  if record.abort_requested then return abort(batch, ended.id, record, ttl_ms), nil, 'aborted' end
  local snoozed, delay_ms = ended.outcome ~= 'retry', ended.delay_ms
  local fields, err, stays
  if snoozed then
    fields = { 'tries', math.max(number.of(record.tries, 1) - 1, 0) }
  else
    fields = { 'error', ended.value, 'history', attempted(batch, record, ended.run_ms, ended.value) }
    if ended.traceback and ended.traceback ~= '' then fields[5], fields[6] = 'traceback', ended.traceback end
  end
  local instead
  err, stays, instead = too_old(batch, ended, record, fields)
  if instead then return err, stays, instead end
  local counter = snoozed and 'snoozed' or 'retried'
  local ordered = record.buckets and limits.ordered(batch, record.buckets) or {}
  -- What is put off waits from then on, wherever it does so.
  if snoozed and (#ordered > 0 or delay_ms == 0) then
    fields[#fields + 1], fields[#fields + 2] = 'due_at', clock.text(batch.now + delay_ms)
  end
  if #ordered > 0 then
    err, stays = wait_in_front(batch, ended, record, fields, ordered)
    if not err then batches.count(batch, counter) end
    return err, stays
  elseif delay_ms == 0 then
    err, stays = move.make_ready(batch, ended.id, record, fields, SETTLED)
    if not err then batches.count(batch, counter) end
    return err, stays
  end
  return put_off(batch, ended.id, record, fields, delay_ms, counter)
end

-- Nothing starts for a time of what an outcome `limited` is about: one of the task's limits, with its own key or another one.
-- Replies whether that is in the task's way.
local function close_told(batch, record, ended)
  local is_in_its_way = false
  for _, bucket in ipairs(record.buckets and limits.parse(record.buckets) or {}) do
    if limits.name(bucket) == ended.limit then
      local told = ended.key and limits.bucket(ended.limit, ended.key) or bucket
      limits.shut(batch, told, batch.now + ended.delay_ms)
      adaptive.slow(batch.buckets[told], batch.now, number.of(record.started_at, 0), batch.now + ended.delay_ms)
      is_in_its_way = is_in_its_way or told == bucket
    end
  end
  return is_in_its_way
end

-- running -> limited, scheduled, queued, aborted; failed where it would be too old by then. A limit is used up elsewhere: nothing
-- of its bucket starts for a time, whatever becomes of the task, which waits for that at the front of its line. No try is
-- charged. What is not in its way puts it off all the same: it has just seen that the time has not come.
local function limit_reached(batch, ended, record, ttl_ms)
  ended.delay_ms = math.max(ended.delay_ms, LEAST_SHUT_MS)
  local is_in_its_way = close_told(batch, record, ended)
  if record.abort_requested then return abort(batch, ended.id, record, ttl_ms), nil, 'aborted' end
  local err, stays, instead = too_old(batch, ended, record, {})
  if instead then return err, stays, instead end
  if not is_in_its_way then return try_again(batch, ended, record, ttl_ms) end
  local due_at = clock.text(batch.now + ended.delay_ms)
  local fields = { 'tries', math.max(number.of(record.tries, 1) - 1, 0), 'due_at', due_at }
  err, stays = move.make_ready(batch, ended.id, record, fields, SETTLED, 'front')
  if not err then batches.count(batch, 'snoozed') end
  return err, stays
end

-- running -> scheduled, aborted; failed once it has waited for `max_age_ms`. The worker has no task of that name: it is
-- left for one that has, and no try is charged.
local function leave_to_others(batch, ended, record, ttl_ms)
  if record.abort_requested then return abort(batch, ended.id, record, ttl_ms), nil, 'aborted' end
  local since = number.of(record.unknown_since, batch.now)
  local fields = { 'tries', math.max(number.of(record.tries, 1) - 1, 0), 'unknown_since', clock.text(since) }
  if record.name then
    batch.unknown = batch.unknown or {}
    batch.unknown[record.name] = true
  end
  if (ended.max_age_ms or 0) > 0 and batch.now - since >= ended.max_age_ms then
    local text = ended.value .. ' (no worker knew it for ' .. clock.text(ended.max_age_ms) .. ' ms)'
    local err, stays = fail(batch, ended.id, text, nil, fields)
    return err, stays, 'failed'
  end
  fields[5], fields[6] = 'error', ended.value
  for _, step in ipairs(RESTS_MS) do
    if batch.now - since >= step.waited then return put_off(batch, ended.id, record, fields, step.rest, 'unknown') end
  end
end

-- running -> scheduled, queued, limited, aborted: a task waits for what one of its memos says, and has no slot meanwhile. No try
-- is charged. Where it need not wait any longer, it is next.
local function suspend(batch, ended, record, ttl_ms)
  local id = ended.id
  if record.abort_requested then return abort(batch, id, record, ttl_ms), nil, 'aborted' end
  local left_ms, err = memos.left_ms(batch, id, ended.wait or '')
  if err then return err, true end
  local fields, stays = { 'tries', math.max(number.of(record.tries, 1) - 1, 0) }
  if left_ms then
    fields[3], fields[4], fields[5], fields[6] = 'waits_for', ended.wait, 'waits_since', batch.now_text
    err, stays = put_off(batch, id, record, fields, left_ms, 'snoozed')
  else
    fields[3], fields[4] = 'due_at', batch.now_text
    err, stays = move.make_ready(batch, id, record, fields, SETTLED, 'front')
    if not err then batches.count(batch, 'snoozed') end
  end
  -- It did start in time.
  if not err then redis.call('HDEL', keys.task(batch.base, id), 'expires_at') end
  return err, stays
end

-- An outcome other than `complete` of an attempt that is known to be the current one. Replies as `hand_back`.
local function settle(batch, ended, ttl_ms)
  if ended.outcome == 'release' then return M.hand_back(batch, ended.id, ttl_ms, false) end
  local record, err = task.read(batch.base, ended.id, FIELDS)
  if err then return err end
  if record.state ~= 'running' then
    batches.count(batch, 'ghosts')
    return 'not_found'
  end
  if ended.outcome == 'retry' or ended.outcome == 'snooze' then
    return try_again(batch, ended, record, ttl_ms)
  elseif ended.outcome == 'limited' then
    return limit_reached(batch, ended, record, ttl_ms)
  elseif ended.outcome == 'suspend' then
    return suspend(batch, ended, record, ttl_ms)
  elseif ended.outcome == 'unknown' then
    return leave_to_others(batch, ended, record, ttl_ms)
  elseif ended.outcome == 'failed' then
    return fail(batch, ended.id, ended.value, ended.traceback,
      { 'started_at', batch.now - ended.run_ms, 'history', attempted(batch, record, ended.run_ms, ended.value) })
  end
  return abort(batch, ended.id, record, ttl_ms)
end

-- Outcomes are a flat list: id, token, outcome, run_ms, value and details (a table: codec, traceback, delay_ms, max_age_ms)
-- of each in turn.
local WIDTH = 6

-- The lease tokens that the worker has for these outcomes, and `is_plain`: none can be a member of a workflow. To be asked before
-- anything is written.
function M.tokens(base, worker, outcomes)
  local running, ids = keys.running(base, worker), {}
  for at = 1, #outcomes, WIDTH do ids[#ids + 1] = outcomes[at] end
  if #ids == 0 then return errors.read('HLEN', running) end
  local tokens = errors.read('HMGET', running, unpack(ids))
  tokens.is_plain = not string.find(table.concat(ids, ' '), '~', 1, true)
  return tokens
end

-- Settle attempts of one worker, which holds them under `tokens`. Refused are those that it does not hold (`stale`), those
-- whose record was deleted (`not_found`), and those whose record or new place is damaged. Where a task got into another
-- state than was asked for, the refusal is that state. Replies how many it no longer holds.
function M.settle(batch, worker, outcomes, tokens, ttl_ms)
  local settled, seen = {}, {}
  batch.is_plain = #outcomes > 0 and tokens.is_plain
  for i = 1, #outcomes / WIDTH do
    local at, current, kept_ms, has_key, line_name = (i - 1) * WIDTH + 1, tokens[i], ttl_ms, false, nil
    local id, token, outcome = outcomes[at], outcomes[at + 1], outcomes[at + 2]
    local run_ms, value, details = outcomes[at + 3], outcomes[at + 4], outcomes[at + 5]
    if current ~= token then current, kept_ms, has_key, line_name = member.token(current, ttl_ms, token) end
    if current == token and not seen[id] then
      seen[id] = true
      local err, stays, instead
      if outcome == 'complete' then
        -- The only one that does not read the record first: it is by far the most frequent.
        err, stays = complete(batch, id, run_ms, value, details.codec, kept_ms)
        if has_key and not err then unique.free(batch.base, id) end
      else
        err, stays, instead = settle(batch, { id = id, outcome = outcome, run_ms = run_ms, value = value,
          traceback = details.traceback, delay_ms = math.max(math.floor(details.delay_ms or 0), 0),
          max_age_ms = details.max_age_ms, limit = details.limit, key = details.key, wait = details.wait }, kept_ms)
      end
      if err or instead then batches.refuse(batch, id, token, err or instead) end
      if not stays then
        settled[#settled + 1] = id
        if line_name then limits.free(batch, line_name) end
      end
    else
      batches.refuse(batch, id, token, 'stale')
    end
  end
  batch.is_plain = false
  if #settled > 0 then
    batches.change_load(batch, worker, -redis.call('HDEL', keys.running(batch.base, worker), unpack(settled)))
  end
  return #settled
end

-- One outcome by its own transition. Replies `ok`, `stale` or the state that it got into instead.
function M.settle_one(base, args, outcome, value, details)
  member.require(base, args.worker)
  local outcomes = { args.id, args.token, outcome, args.run_ms or 0, value, details or {} }
  local tokens, batch = M.tokens(base, args.worker, outcomes), batches.open(base, clock.read())
  batch.worker = args.worker
  local settled = M.settle(batch, args.worker, outcomes, tokens, args.result_ttl_ms)
  local refusal = batch.refusals and batch.refusals[3]
  calls.close(batch)
  if refusal and refusal ~= 'stale' and settled == 0 then return { err = refusal } end
  return refusal or 'ok'
end

-- running -> queued, limited, aborted, failed for up to `limit` tasks of a worker that is gone. Replies how many were moved,
-- whether any is left, and whether any of those was not tried yet. The whole hash is read: it is bounded by what one
-- worker can claim. What a damaged key keeps from a lost one goes behind the rest, with minus the time as its token.
-- What a later version claimed is left to it.
function M.take_from(batch, worker, limit, ttl_ms, lost, max_lost)
  -- Each portion goes to the front of the lane, so the newest claims come first, and within it the oldest.
  local running, claims, moved, stuck = keys.running(batch.base, worker), member.claims(batch.base, worker), {}, {}
  for i = math.max(#claims - limit + 1, 1), #claims do
    if not claims[i].is_foreign then
      local _, stays = M.hand_back(batch, claims[i].id, ttl_ms, lost, max_lost)
      if stays then
        local line_name = claims[i].line
        stuck[#stuck + 1] = claims[i].id
        stuck[#stuck + 1] = clock.text(-batch.now) .. (line_name and ' ' .. line_name or '')
      else
        moved[#moved + 1] = claims[i].id
        if claims[i].line then limits.free(batch, claims[i].line) end
      end
    end
  end
  if lost and #stuck > 0 then redis.call('HSET', running, unpack(stuck)) end
  if #moved > 0 then batches.change_load(batch, worker, -redis.call('HDEL', running, unpack(moved))) end
  local next_one = claims[#claims - limit]
  return #moved, #moved < #claims, next_one and next_one.token > 0
end

return M
