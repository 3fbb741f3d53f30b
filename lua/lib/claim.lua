-- What a claim does with a task that is ready: a worker gets it, or it has expired, or a pause holds it, or it has to wait for
-- its limits.
local M = {}

-- What a worker is told of a claim.
local CLAIM = { 'state', 'name', 'args', 'kwargs', 'codec', 'headers', 'lane', 'tries', 'enqueued_at', 'inputs',
  'due_at' }
local TOLD = #CLAIM - 2

-- What few tasks have. A record without `tries`, or whose `tries` are `task.BARE`, has none of it: it is a task without such
-- options, never claimed and never watched, as most are, and each field that is asked for costs.
local UNCOMMON =
  { 'codec', 'headers', 'expires_at', 'watched_until', 'result_ttl_ms', 'needs_version', 'unique', 'buckets', 'inputs',
    'due_at' }
-- The same of one that waits in a line. A wish to abort is of a version that does not know lines, and could not do it.
local OF_LINES =
  { 'state', 'name', 'args', 'kwargs', 'enqueued_at', 'tries', 'needs_version', 'buckets', 'abort_requested' }
local UNCOMMON_OF_LINES =
  { 'codec', 'headers', 'expires_at', 'watched_until', 'result_ttl_ms', 'unique', 'weight', 'inputs', 'due_at' }

-- Since when a task has been ready, for its worker: one that was put off has waited only since it was due.
local function ready_since(enqueued_at, due_at)
  return due_at and number.of(due_at, 0) > number.of(enqueued_at, 0) and due_at or enqueued_at or '0'
end

-- queued, limited -> held under a pause, where it is not looked at again until that ends, or for a later version, which takes it
-- from there.
local function hold(batch, id, key, lane_name, line_name, pause_id, watched_until)
  local obstacle = batches.obstacle(batch, 'ZCARD', keys.held(batch.base, pause_id))
  if not obstacle then
    redis.call('HSET', key, 'state', 'held', 'pause', pause_id)
    -- Without it the version before, where that gives it back, does not ask whether it may claim it.
    if line_name then redis.call('HSETNX', key, 'tries', '0') end
    batches.add(batch, 'held', pause_id, id)
    waiters.changed(batch.base, batch.now, id, watched_until)
    return batches.count(batch, 'held')
  end
  -- Where it cannot be held it goes to the end of its lane or line, and nobody is woken for it.
  if not batch.is_stuck then batches.refuse(batch, id, '', obstacle) end
  batch.is_stuck = true
  if line_name then
    batches.add_to_line(batch, lane_name, line_name, id, 'RPUSH')
  else
    redis.pcall('RPUSH', keys.ready(batch.base, lane_name), id)
  end
end

-- A task of this version that another one made ready waits in its line from now on.
local function to_line(batch, id, key, lane_name, line_name)
  local err = line.damage(batch.base, lane_name, line_name)
  if err then
    batches.refuse(batch, id, '', err.err)
    batch.is_stuck = true
    redis.pcall('RPUSH', keys.ready(batch.base, lane_name), id)
  else
    redis.call('HSET', key, 'state', 'limited')
    batches.add_to_line(batch, lane_name, line_name, id, 'RPUSH')
  end
end

-- The id of the pause that a task falls under, or nil; and whether its arguments could not be read to say so.
local function pause_of(batch, id, name, args, kwargs, codec)
  local rules = batch.pauses
  local of_workflow = rules.workflows and rules.workflows[group.root_of(id)]
  if of_workflow and group.of(batch, id) then return of_workflow end
  return pause_rules.match(rules, name, args, kwargs, codec)
end

-- queued, limited -> running, expired, held, aborted for one id of a lane, or of one of its lines (`line_name`), or a quarantined
-- one, whose line it is then, too. Appends a claim to `claims`, with its line, or nothing, in the place of its token until it
-- gets one. Replies its weight, or false where it does not start.
local function start(batch, id, lane_name, line_name, worker, ttl_ms, claims, is_quarantined)
  local key = keys.task(batch.base, id)
  local r
  if line_name then
    r = redis.pcall('HMGET', key, unpack(OF_LINES))
  else
    r = redis.pcall('HMGET', key, 'state', 'name', 'args', 'kwargs', 'enqueued_at', 'tries')
  end
  if r.err then
    batches.refuse(batch, id, '', errors.wrong_type(key).err)
    return false
  end
  local is_ghost = r[1] ~= 'queued'
  if line_name then is_ghost = r[8] ~= line_name or r[1] ~= (is_quarantined and 'queued' or 'limited') end
  if is_ghost then
    batches.count(batch, 'ghosts')
    return false
  end
  local before = r[6]
  if before == task.BARE and not line_name then before = nil end
  -- The first try of most.
  local tries = before and before ~= '0' and clock.text(number.of(before, 0) + 1) or '1'
  local codec, headers, expires_at, watched_until, own_ttl_ms, needs_version, has_key, its_line
  local weight, needed, due_at
  if line_name then
    needs_version = r[7]
    if before then
      codec, headers, expires_at, watched_until, own_ttl_ms, has_key, weight, needed, due_at =
        unpack(redis.call('HMGET', key, unpack(UNCOMMON_OF_LINES)))
    end
    if r[9] then
      move.finish(batch, id, 'aborted', { 'error', 'aborted' }, number.of(own_ttl_ms, ttl_ms))
      return false
    end
  elseif before then
    codec, headers, expires_at, watched_until, own_ttl_ms, needs_version, has_key, its_line, needed, due_at =
      unpack(redis.call('HMGET', key, unpack(UNCOMMON)))
  end
  -- The one place that asks whether a task may start now.
  local has_more = line_name or before
  if has_more then
    if expires_at and number.of(expires_at, batch.now + 1) <= batch.now then
      move.finish(batch, id, 'expired', { 'error', 'expired' }, number.of(own_ttl_ms, ttl_ms))
      return false
    end
    if needs_version and needs_version ~= task.VERSION_TEXT and number.of(needs_version, math.huge) > task.VERSION then
      hold(batch, id, key, lane_name, line_name, pause_rules.NEWER, watched_until)
      return false
    end
    if its_line then
      to_line(batch, id, key, lane_name, its_line)
      return false
    end
  end
  if batch.pauses then
    local pause_id, unreadable = pause_of(batch, id, r[2], r[3], r[4], codec)
    if unreadable then batches.count(batch, 'unreadable') end
    if pause_id then
      hold(batch, id, key, lane_name, line_name, pause_id, watched_until)
      return false
    end
  end
  redis.call('HSET', key, 'state', 'running', 'worker', worker, 'started_at', batch.now_text, 'tries', tries)
  local args = r[3] or ''
  if has_more then
    if watched_until then waiters.changed(batch.base, batch.now, id, watched_until) end
    if has_key then own_ttl_ms = member.with_key(own_ttl_ms) end
    if own_ttl_ms then
      batch.own_ttls = batch.own_ttls or {}
      batch.own_ttls[id] = own_ttl_ms
    end
    if needed then args, codec = inputs.resolve(batch, id, args, codec, needed) end
  end
  -- One by one, in order: several at once are assigned from the last, and a list grows cheaply only at its end.
  local n = claims.n
  claims[n + 1] = id
  claims[n + 2] = line_name or ''
  claims[n + 3] = r[2] or ''
  claims[n + 4] = args
  claims[n + 5] = r[4] or ''
  claims[n + 6] = codec or ''
  claims[n + 7] = headers or ''
  claims[n + 8] = lane_name
  claims[n + 9] = tries
  claims[n + 10] = due_at and ready_since(r[5], due_at) or r[5] or '0'
  claims.n = n + 10
  return weight and number.of(weight, 1) or 1
end

-- Whether a quarantined task falls under a pause. It stays where it is, so that it is in quarantine still when that ends.
local function is_paused(batch, id)
  local record = batch.pauses and task.read(batch.base, id, { 'name', 'args', 'kwargs', 'codec' })
  return record and pause_of(batch, id, record.name, record.args, record.kwargs, record.codec)
end

-- A quarantined task, which killed workers before, is handed out alone among its like, so that the guilty one shows itself.
-- `last_id`: the quarantined task this worker was handed last. Replies how many were claimed: 0 or 1.
local function start_quarantined(batch, worker, lanes, last_id, ttl_ms, claims)
  local quarantined = keys.quarantined(batch.base)
  local waiting = redis.pcall('ZRANGE', quarantined, 0, 7)
  if errors.of(waiting) or #waiting == 0 then return 0 end
  if last_id and redis.call('HEXISTS', keys.running(batch.base, worker), last_id) == 1 then return 0 end
  local served = {}
  for _, name in ipairs(lanes) do served[name] = not (lanes.limits and lanes.limits[name] == 0) end
  for _, id in ipairs(waiting) do
    local record = task.read(batch.base, id, { 'lane', 'buckets' }) or {}
    local name, line_name = record.lane, record.buckets
    local has_room = not line_name or not batch.is_hand_off and turn.has_room(batch, line_name)
    if not name or served[name] and not is_paused(batch, id) and has_room then
      redis.call('ZREM', quarantined, id)
      if start(batch, id, name or task.DEFAULT_LANE, line_name, worker, ttl_ms, claims, true) then
        if line_name then
          turn.charge(batch, line_name)
          batch.has_claimed_lines = true
        end
        redis.call('HSET', keys.worker(batch.base, worker), 'quarantined', id)
        if name and lanes.limits and lanes.limits[name] then lanes.limits[name] = lanes.limits[name] - 1 end
        return 1
      end
    else
      -- To the end, so that those which nobody may take do not hide the others.
      redis.call('ZADD', quarantined, batch.now, id)
    end
  end
  return 0
end

-- One that has to wait for its limits lies in no line, where these would wake somebody for it: heartbeats do.
function M.wake_for_quarantined(base)
  local waiting = redis.pcall('ZRANGE', keys.quarantined(base), 0, 7)
  if errors.of(waiting) then return end
  for _, id in ipairs(waiting) do
    local record = task.read(base, id, { 'lane', 'buckets' })
    if record and record.lane and record.buckets and redis.pcall('LLEN', keys.wake(base, record.lane)) == 0 then
      lane.wake(base, record.lane, 1, 0)
    end
  end
end

-- Refuse a claim while nothing is written yet: what it writes last must be writable. Replies what is paused, or nil; until
-- when somebody may wait for a task, as `meta` has it; and whether tasks wait in lines.
function M.check(base)
  local meta = errors.read('HMGET', keys.meta(base), 'token', 'paused', 'waited_until', 'limited')
  if meta[1] and not number.of(meta[1]) then errors.raise(errors.wrong_type(keys.meta(base))) end
  return pause_rules.load(base, meta[2]), meta[3] or '0', meta[4] and true
end

-- queued -> running for up to `want` tasks of the lanes: in their order, or shared by their weights, with what the row
-- of the worker (`row`: quarantined, passes) says of earlier claims. To `claims`, a list of `n` entries, flat records are added.
-- A batch counts as one; the tokens of all in it but the first have a `+` in front. Replies how many, the first of their tokens
-- (they are consecutive), and 1 if ready work is left, else 0.
function M.take(batch, worker, lanes, want, row, ttl_ms, claims)
  local base, taken, first_token, from = batch.base, 0, '', claims.n
  if batch.pauses and batch.pauses.whole then return 0, '', 0 end
  local budget, limits_of, is_empty = 4 * want + 100, lanes.limits or {}, {}

  -- Up to `count` of a ready list; replies how many, and whether there is no more to be had.
  local function take_ready(name, count)
    local got = 0
    while got < count and budget > 0 do
      local asked = math.min(count - got, budget)
      local ids, looked, err = lane.pop(base, name, asked)
      if err then batches.refuse(batch, '', '', err) end
      budget = budget - looked
      for i = 1, #ids do
        if start(batch, ids[i], name, nil, worker, ttl_ms, claims) then got = got + 1 end
      end
      if looked < asked then
        is_empty[name] = not err and not batch.is_stuck
        return got, true
      end
    end
    return got, got < count
  end

  -- The same of a lane, where its lines and its ready list take turns.
  local function take_turns(name, count)
    local function claim_some(ids, line_name, score)
      local started, began = 0, score
      for i = 1, #ids do
        local weight = start(batch, ids[i], name, line_name, worker, ttl_ms, claims)
        if weight then
          started, began = started + 1, score
          score = score + 1 / weight
        end
      end
      if started > 0 then batch.has_claimed_lines = true end
      return started, score, began
    end
    local function claim_batch(ids, line_name, most)
      local turns, bytes = 0, 0
      for i = 1, #ids do
        local weight = start(batch, ids[i], name, line_name, worker, ttl_ms, claims)
        if weight then
          bytes = bytes + #claims[claims.n - 6] + #claims[claims.n - 5]
          batch.has_claimed_lines = true
          if turns == 0 then turns = 1 / weight else claims[claims.n - 8] = gather.FOLLOWS end
        end
        if bytes >= most then return turns, bytes, i end
      end
      return turns, bytes, #ids
    end
    local got, is_dry, looked, err = turn.take(batch, name, count, budget, claim_some, claim_batch,
      function(portion) return take_ready(name, portion) end)
    budget = budget - looked
    if err then
      batches.refuse(batch, '', '', err.err)
      batch.is_stuck = true
    end
    return got, is_dry
  end

  -- Up to `count` tasks of one lane; replies how many, and whether there is no more to be had.
  local function take(name, count)
    local limit = math.min(count, limits_of[name] or count)
    local got, is_dry = (batch.has_lines and not batch.is_hand_off and take_turns or take_ready)(name, limit)
    if limits_of[name] then limits_of[name] = limits_of[name] - got end
    return got, is_dry or got < count
  end

  if want > 0 then
    taken = start_quarantined(batch, worker, lanes, row.quarantined, ttl_ms, claims)
    if lanes.weights then
      local passes = share.read(row.passes, lanes)
      taken = taken + share.claim(lanes, passes, want - taken, take)
      redis.call('HSET', keys.worker(base, worker), 'passes', cjson.encode(passes))
    else
      for _, name in ipairs(lanes) do
        if taken >= want then break end
        taken = taken + take(name, want - taken)
      end
    end
  end
  if taken > 0 then
    -- More than that where there are batches.
    local count = (claims.n - from) / 10
    first_token = redis.call('HINCRBY', keys.meta(base), 'token', count) - count + 1
    local leases, own_ttls, has_lines = {}, batch.own_ttls, batch.has_claimed_lines
    for i = 1, count do
      local at, lease = from + 10 * (i - 1), clock.text(first_token + i - 1)
      local id, token, line_name = claims[at + 1], lease, has_lines and claims[at + 2]
      if own_ttls and own_ttls[id] then lease = lease .. '/' .. own_ttls[id] end
      if line_name and line_name ~= '' then
        lease = lease .. ' ' .. line_name
        if line_name == gather.FOLLOWS then token = gather.FOLLOWS .. token end
      end
      claims[at + 2] = token
      leases[2 * i - 1], leases[2 * i] = id, lease
    end
    local _, added = bulk.write('HSET', keys.running(base, worker), leases)
    batches.change_load(batch, worker, added)
  end
  if taken == 0 and batch.is_stuck then return 0, '', 0 end
  return taken, first_token, lane.settle_tokens(base, lanes, is_empty, batch.has_lines)
end

-- The claims of an earlier step again, after its reply was lost: what the worker has claimed from `first_token` on.
function M.since(base, worker, first_token, reply)
  local holder = { base = base }
  for _, one in ipairs(member.claims(base, worker)) do
    local r = one.token >= first_token and task.read(base, one.id, CLAIM)
    if r and r.state == 'running' then
      local at = #reply
      if r.inputs then r.args, r.codec = inputs.resolve(holder, one.id, r.args or '', r.codec, r.inputs) end
      reply[at + 1], reply[at + 2] = one.id, (one.follows and gather.FOLLOWS or '') .. clock.text(one.token)
      r.enqueued_at = ready_since(r.enqueued_at, r.due_at)
      for i = 2, TOLD do reply[at + i + 1] = r[CLAIM[i]] or '' end
    end
  end
end

return M
