-- What follows in a workflow from the end of its members: done in the call that ends them, before that call claims. What is too
-- much for one call is left to heartbeats, as ids that are to be looked at again (`chores`).
local M = {}

-- Followers that one call looks at; members of an unfinished workflow that a heartbeat looks at.
local ADVANCE, LOOK_AT = 500, 10
-- Members that one call aborts.
local CANCEL = 500
local FOLLOWER = { 'state', 'needs', 'broken', 'kind', 'lane', 'buckets', 'delay_ms', 'expire_ms', 'watched_until',
  'unneeded', 'abort_requested' }
-- Edges whose follower does not mind that what it follows did not complete.
local LENIENT = { ignore = true, continue = true, only = true }

-- One more look at an id, by a heartbeat.
local function later(batch, id) redis.call('RPUSH', keys.chores(batch.base), id) end

-- Call with the name of each follower of a member, and the policy of the edge.
local function each_follower(followers, call)
  for name, policy in string.gmatch(followers or '', '([^ ?]+)%??([^ ]*)') do call(name, policy) end
end

-- A group may be through although none of its members ends in this call.
local function touch(batch, of)
  batch.touched = batch.touched or {}
  batch.touched[#batch.touched + 1] = of
  batch.members = batch.members or {}
end

-- blocked -> queued, limited, scheduled for a member that needs nothing more; a map makes its first calls.
function M.begin(batch, of, name, record)
  local id = group.id_of(of.id, name)
  local err
  if record.abort_requested then
    -- Of a version that does not know what waits for others, and could only note the wish.
    move.abort_waiting(batch, id, record, number.of(of.result_ttl_ms, 0))
  elseif record.kind == 'map' then
    local own = group.read(batch, id)
    err = own and group.damage(batch, own)
    if own and not err and not map.make(batch, own) and own.size == 0 then touch(batch, own) end
  else
    err = move.begin(batch, id, record)
  end
  if err then
    batches.refuse(batch, id, '', err)
    redis.call('HSET', keys.task(batch.base, id), 'needs', '0')
    later(batch, id)
  end
end

-- A workflow of which everything is there runs: the members that need no other begin, which are among these.
function M.start(batch, id, names)
  local of = group.read(batch, id)
  for _, name in ipairs(names) do
    local record = task.read(batch.base, group.id_of(id, name), FOLLOWER)
    local is_first = record and record.state == 'blocked' and number.of(record.needs, 0) <= 0
    if is_first then M.begin(batch, of, name, record) end
  end
end

-- The followers of a member whose record somebody deleted, as `then` had them: by what the others come after.
local function followers_by_others(batch, of, name)
  local found = {}
  local names = redis.pcall('LRANGE', keys.nodes(batch.base, of.id), 0, -1)
  for _, other in ipairs(errors.of(names) and {} or names) do
    local record = task.read(batch.base, group.id_of(of.id, other), { 'after' })
    each_follower(record and record.after, function(before, policy)
      if before == name then found[#found + 1] = other .. (policy ~= '' and '?' .. policy or '') end
    end)
  end
  return table.concat(found, ' ')
end

-- What the ends of some members mean for those that follow: by name, how many of the needed ones were met, how many broke it and
-- by whom, whether it begins now, and whether it is not needed.
local function gather_effects(batch, of, ended)
  local effects, order = {}, {}
  local function effect(name)
    if not effects[name] then
      effects[name] = { met = 0, broken = 0 }
      order[#order + 1] = name
    end
    return effects[name]
  end
  for _, one in ipairs(ended) do
    local key = keys.task(batch.base, one.id)
    local record, err = one.record
    if not record then record, err = task.read(batch.base, one.id, { 'state', 'then', 'spent', 'unneeded' }) end
    local is_gone = err or not record.state
    if is_gone then record = { ['then'] = followers_by_others(batch, of, one.name) } end
    local is_spent, followers, lenient = record.spent, 0, 0
    local completed, is_unneeded = one.state == 'complete', one.state == 'skipped' and record.unneeded
    each_follower(record['then'], function(name, policy)
      local on, is_lenient = effect(name), LENIENT[policy]
      followers, lenient = followers + 1, lenient + (is_lenient and 1 or 0)
      if completed or is_unneeded then
        if policy == 'only' or not completed and not is_lenient then
          if not (is_lenient and is_spent) then on.is_unneeded = true end
        elseif not (is_lenient and is_spent) then
          on.met = on.met + 1
        end
      elseif not is_lenient then
        on.broken, on.by = on.broken + 1, one
        if policy == 'cancel' then of.is_cancelled = true end
      elseif not is_spent then
        on.met = on.met + 1
        if policy == 'continue' then on.begins = true end
      end
    end)
    batch.moves = (batch.moves or 0) + followers
    if not completed and lenient > 0 and not is_spent and not is_gone then redis.call('HSET', key, 'spent', '1') end
    -- A failure is borne where all that follows can do without.
    if not completed and one.state ~= 'skipped' and (followers == 0 or lenient < followers) then
      if not is_gone then redis.call('HSET', key, 'unborne', '1') end
      of.unborne = (of.unborne or 0) + 1
    end
  end
  return effects, order
end

-- blocked -> queued, limited, scheduled, skipped for those that follow. Replies whether one began.
local function apply(batch, of, effects, order)
  local began = false
  for _, name in ipairs(order) do
    local on, id = effects[name], group.id_of(of.id, name)
    local record = task.read(batch.base, id, FOLLOWER)
    if record and record.state then
      local key = keys.task(batch.base, id)
      local needs = number.of(record.needs, 0) - on.met
      local broken = number.of(record.broken, 0) + on.broken
      if on.begins then needs = math.min(needs, 0) end
      local begins = needs <= 0 and broken == 0 and not record.kind and record.state == 'blocked'
      if (on.met > 0 or on.begins) and not begins then redis.call('HSET', key, 'needs', clock.text(needs)) end
      if on.broken > 0 then redis.call('HSET', key, 'broken', clock.text(broken)) end
      -- A map that has begun is blocked, too, and needs nothing more.
      local waits = record.state == 'blocked' and number.of(record.needs, 0) > 0
      -- It stays so, should what broke it before run again.
      if on.is_unneeded and (waits or record.state == 'skipped') then redis.call('HSET', key, 'unneeded', '1') end
      if waits and on.is_unneeded then
        move.skip(batch, id, 'skipped: not needed')
      elseif waits and on.broken > 0 then
        move.skip(batch, id, 'skipped: ' .. on.by.name .. ' ' .. on.by.state)
      elseif waits and needs <= 0 then
        M.begin(batch, of, name, record)
        began = began or not record.kind
      end
    end
  end
  return began
end

-- Stop everything in a group that has not ended, a portion a call: what waits is aborted, what runs is asked to.
local function cancel(batch, of)
  local base, key = batch.base, keys.task(batch.base, of.id)
  local cursor = redis.call('HGET', key, 'cancelled_to') or '0'
  local page = redis.call('SSCAN', keys.open(base, of.id), cursor, 'COUNT', CANCEL)
  for _, name in ipairs(page[2]) do
    local id = group.id_of(of.id, name)
    local record = task.read(base, id, { 'state', 'kind', 'lane', 'worker', 'pause', 'needs', 'abort_requested' })
    if record and record.kind and record.state == 'blocked' and number.of(record.needs, 0) <= 0 then
      local err = M.abort(batch, id)
      if err then batches.refuse(batch, id, '', err) end
    elseif record and (task.is_waiting(record.state) or record.state == 'blocked') then
      local err = move.in_the_way(batch, record)
      if err then
        batches.refuse(batch, id, '', err)
      else
        move.abort_waiting(batch, id, record, number.of(of.result_ttl_ms, 0))
      end
    elseif record and record.state == 'running' and not record.abort_requested then
      local ok, err = pcall(member.ask_abort, base, id, record.worker)
      if not ok then batches.refuse(batch, id, '', err.err) end
    elseif not record or not record.state or task.is_finished(record.state) then
      group.note(batch, of, name, record and record.state or 'discarded', record and record.kind)
    end
  end
  if page[1] ~= '0' then
    redis.call('HSET', key, 'cancelled_to', page[1])
    later(batch, of.id)
  else
    redis.call('HDEL', key, 'cancelled_to')
  end
end

-- blocked -> blocked, aborted: a workflow, or a map that has begun, is to stop. `why`: `1`, or, where nobody asked for it,
-- `failed`, `timeout` or `unfinished`. Replies an error text where a key is damaged.
function M.abort(batch, group_id, why)
  local of = group.read(batch, group_id)
  if not of or of.state ~= 'blocked' or of.abort_requested then return nil end
  local obstacle = group.damage(batch, of)
  if obstacle then return obstacle end
  of.abort_requested = why or '1'
  redis.call('HSET', keys.task(batch.base, group_id), 'abort_requested', of.abort_requested)
  if of.kind == 'map' then redis.call('DEL', keys.items(batch.base, group_id)) end
  cancel(batch, of)
  touch(batch, of)
end

-- How long the records of a workflow that has ended are kept: from now on as its own.
local function sweep(batch, root)
  local base, ttl_ms = batch.base, number.of(root.result_ttl_ms, 0)
  if ttl_ms < 0 then return end
  local keep
  if ttl_ms > 0 then
    local text = clock.text(ttl_ms)
    keep = function(key) redis.call('PEXPIRE', key, text) end
  else
    batch.removed = batch.removed or {}
    keep = function(key) batch.removed[#batch.removed + 1] = key end
  end
  local function keep_group(id)
    for _, name in ipairs({ 'open', 'items', 'failed', 'results', 'nodes' }) do keep(keys[name](base, id)) end
  end
  local names = redis.pcall('LRANGE', keys.nodes(base, root.id), 0, -1)
  for _, name in ipairs(errors.of(names) and {} or names) do
    local id = group.id_of(root.id, name)
    local record = task.read(base, id, { 'kind', 'needs' })
    -- An earlier version may have put a task there that is no part of it.
    if record and record.needs then keep(keys.task(base, id)) end
    if record and record.kind then keep_group(id) end
  end
  keep_group(root.id)
  keep(keys.task(base, root.id))
end

-- The error of a group: how many did not complete, and one of them.
local function reason(batch, of, missing, total)
  local text = clock.text(missing) .. ' of ' .. clock.text(total) .. ' tasks did not complete'
  local names, name = keys.failed(batch.base, of.id), redis.call('HGET', keys.task(batch.base, of.id), 'first_missing')
  -- It may have run again since.
  if not name or redis.call('SISMEMBER', names, name) == 0 then name = redis.call('SRANDMEMBER', names) end
  if not name then return text end
  local id = group.id_of(of.id, name)
  local record = task.read(batch.base, id, { 'state', 'error' }) or {}
  return text .. ', first ' .. id .. ': ' .. history.short(record.error or record.state or 'its record is gone')
end

-- What a group ended as, and what else its record gets.
local function outcome(batch, of, counts)
  local missing = counts.failed + counts.skipped + counts.aborted
  local why = of.abort_requested
  if why == 'timeout' then
    return 'aborted', { 'error', 'timed out after ' .. clock.text(number.of(of.timeout_ms, 0)) .. ' ms' }
  elseif why == 'unfinished' then
    return 'aborted', { 'error', 'its client never sent the rest of it' }
  elseif why and why ~= 'failed' then
    return 'aborted', { 'error', 'aborted' }
  end
  if of.kind == 'map' then
    if missing <= number.of(of.tolerate, 0) then return 'complete', {} end
    return 'failed', { 'error', reason(batch, of, missing, of.size) }
  end
  local total = counts.complete + missing
  if counts.unborne > 0 then return 'failed', { 'error', reason(batch, of, missing, total) } end
  local name = redis.call('HGET', keys.task(batch.base, of.id), 'output')
  if not name then return 'complete', { 'result', 'null' } end
  local found = task.read(batch.base, group.id_of(of.id, name), { 'state', 'result', 'result_codec' })
  if not found or found.state ~= 'complete' then
    return 'failed', { 'error', 'its result, ' .. name .. ', did not complete' }
  end
  local fields = { 'result', found.result or 'null' }
  if found.result_codec then fields[3], fields[4] = 'result_codec', found.result_codec end
  return 'complete', fields
end

-- blocked -> complete, failed, aborted for a group of which nothing is open.
local function end_group(batch, of, counts)
  local base, key = batch.base, keys.task(batch.base, of.id)
  local state, fields = outcome(batch, of, counts)
  of.state = state
  redis.call('HSET', key, 'state', state, 'finished_at', batch.now_text, unpack(fields))
  batches.ended(batch, of.id)
  local parent_id, name = group.split(of.id)
  local parent = parent_id and group.read(batch, parent_id)
  if parent then
    group.note(batch, parent, name, state, true)
  elseif not parent_id then
    redis.call('ZREM', keys.workflows(base), of.id)
    if of.building or of.timeout_ms then redis.call('ZREM', keys.deadlines(base), of.id) end
    batch.swept = batch.swept or {}
    batch.swept[#batch.swept + 1] = of
  end
end

local COUNTS = { 'complete', 'failed', 'skipped', 'aborted', 'unborne' }

-- A group ends when nothing of it is open, and no item waits to become a task. Where fewer have ended than there are, somebody
-- deleted what was open: it stays, and fsck finds it.
local function end_if_through(batch, of)
  if of.state ~= 'blocked' or redis.call('EXISTS', keys.open(batch.base, of.id)) == 1 then return end
  if of.kind == 'map' and redis.call('EXISTS', keys.items(batch.base, of.id)) == 1 then return end
  local found = redis.call('HMGET', keys.task(batch.base, of.id), 'tasks', unpack(COUNTS))
  local counts = {}
  for i, name in ipairs(COUNTS) do counts[name] = number.of(found[i + 1], 0) end
  local expected = of.kind == 'map' and of.made or number.of(found[1], 0)
  local through = counts.complete + counts.failed + counts.skipped + counts.aborted
  if through < expected and not of.abort_requested then return end
  end_group(batch, of, counts)
end

-- Dead letters of a workflow are those that may run again, or do so to no effect: all of it is kept for them.
local function count_dead(batch, of, one, is_open)
  if is_open then
    if one.state == 'failed' then group.count_dead(batch, of.id, 1) end
  elseif one.state ~= 'failed' and redis.call('SISMEMBER', keys.failed(batch.base, of.id), one.name) == 1 then
    group.count_dead(batch, of.id, -1)
  end
end

-- Members of one group have ended: those that were open are counted, once, and what follows is done.
local function settle(batch, of, ended)
  local base, names, seen, began = batch.base, {}, {}, false
  local obstacle = group.damage(batch, of)
  if obstacle then
    for _, one in ipairs(ended) do batches.refuse(batch, one.id, '', obstacle) end
    return
  end
  local open
  if #ended == 1 and (batch.moves or 0) < ADVANCE then
    open = { redis.call('SREM', keys.open(base, of.id), ended[1].name) }
  else
    for i, one in ipairs(ended) do names[i] = one.name end
    open = bulk.read('SMISMEMBER', keys.open(base, of.id), names)
  end
  local closed, missing, counts, through = {}, {}, {}, {}
  for i, one in ipairs(ended) do
    local is_new = not seen[one.name]
    local is_open = open[i] == 1 and is_new
    seen[one.name] = true
    local waits = is_open and of.kind ~= 'map' and not of.abort_requested and (batch.moves or 0) >= ADVANCE
    if waits then
      later(batch, one.id)
    elseif is_new and not one.is_group then
      count_dead(batch, of, one, is_open)
    end
    if is_open then
      if not waits then
        closed[#closed + 1], through[#through + 1] = one.name, one
        if one.state ~= 'complete' then missing[#missing + 1] = one.name end
        local count = group.COUNTS[one.state] or 'failed'
        counts[count] = (counts[count] or 0) + 1
      end
    end
  end
  if names[1] then bulk.write('SREM', keys.open(base, of.id), closed) end
  bulk.write('SADD', keys.failed(base, of.id), missing)
  if missing[1] and not of.abort_requested then
    redis.call('HSETNX', keys.task(base, of.id), 'first_missing', missing[1])
  end
  if of.kind == 'map' then
    if not of.abort_requested then map.make(batch, of) end
  elseif not of.abort_requested then
    began = apply(batch, of, gather_effects(batch, of, through))
    counts.unborne, of.unborne = of.unborne, nil
  end
  group.count(base, of.id, counts)
  if of.is_cancelled then
    of.is_cancelled = nil
    M.abort(batch, of.id, 'failed')
  end
  if not began then end_if_through(batch, of) end
end

-- Calls of a map have completed: they are counted, and others take their place.
local function settle_completed(batch, of)
  local base, names, results = batch.base, of.completed, of.results
  of.completed, of.results = nil, nil
  if results then bulk.write('HSET', keys.results(base, of.id), results) end
  local open_key, closed = keys.open(base, of.id), 0
  for from = 1, #names, 1000 do
    closed = closed + redis.call('SREM', open_key, unpack(names, from, math.min(from + 999, #names)))
  end
  -- One that was not open ran again to no effect, of a map that is being aborted.
  for i = 1, closed < #names and #names or 0 do
    count_dead(batch, of, { name = names[i], state = 'complete' }, false)
  end
  if closed > 0 then group.count(base, of.id, { complete = closed }) end
  if not of.abort_requested then map.make(batch, of) end
  end_if_through(batch, of)
end

-- What follows from all ends of this call; and from those that follow from these.
function M.advance(batch)
  while batch.members do
    local maps = batch.maps
    batch.maps = nil
    for _, of in ipairs(maps or {}) do settle_completed(batch, of) end
    local by_group, order, touched = {}, {}, batch.touched or {}
    for _, one in ipairs(batch.members) do
      local of = one.group
      if not by_group[of.id] then
        by_group[of.id], order[#order + 1] = {}, of
      end
      local list = by_group[of.id]
      list[#list + 1] = one
    end
    batch.members, batch.touched = false, nil
    for _, of in ipairs(order) do settle(batch, of, by_group[of.id]) end
    for _, of in ipairs(touched) do end_if_through(batch, of) end
  end
  local dead = batch.dead
  batch.dead = nil
  for root_id, by in pairs(dead or {}) do
    local root = group.read(batch, root_id)
    if root and by ~= 0 then
      group.count(batch.base, root_id, { dead = by })
      local left = number.of(redis.call('HGET', keys.task(batch.base, root_id), 'dead'), 0)
      if left <= 0 and root.state ~= 'blocked' then
        batch.swept = batch.swept or {}
        batch.swept[#batch.swept + 1] = root
      end
    end
  end
  local swept = batch.swept
  batch.swept = nil
  for _, root in ipairs(swept or {}) do
    if number.of(redis.call('HGET', keys.task(batch.base, root.id), 'dead'), 0) <= 0 then sweep(batch, root) end
  end
end

-- skipped -> blocked, queued, limited, scheduled: what followed from the failure of a member that runs again.
local function reopen_followers(batch, of, id)
  local followers = redis.call('HGET', keys.task(batch.base, id), 'then')
  each_follower(followers or nil, function(name, policy)
    if LENIENT[policy] then return end
    local follower = group.id_of(of.id, name)
    local record = task.read(batch.base, follower, FOLLOWER)
    if not record or not record.state then return end
    local key, broken = keys.task(batch.base, follower), math.max(number.of(record.broken, 0) - 1, 0)
    redis.call('HSET', key, 'broken', clock.text(broken))
    if record.state ~= 'skipped' or record.unneeded or broken > 0 then return end
    M.reopen_member(batch, of, name, 'skipped')
    redis.call('HSET', key, 'state', 'blocked')
    redis.call('HDEL', key, 'error', 'finished_at')
    reopen_followers(batch, of, follower)
    record.state = 'blocked'
    if number.of(record.needs, 0) <= 0 then M.begin(batch, of, name, record) end
  end)
end

-- complete, failed -> blocked for the groups of a member that has not ended any more. `count`: what it was counted as.
function M.reopen_member(batch, of, name, count)
  local base, key, id = batch.base, keys.task(batch.base, of.id), group.id_of(of.id, name)
  redis.call('SREM', keys.failed(base, of.id), name)
  redis.call('SADD', keys.open(base, of.id), name)
  group.count(base, of.id, { [count] = -1 })
  if redis.call('HDEL', keys.task(base, id), 'unborne') == 1 then group.count(base, of.id, { unborne = -1 }) end
  if of.state == 'blocked' then return end
  of.state = 'blocked'
  redis.call('HSET', key, 'state', 'blocked')
  redis.call('HDEL', key, 'error', 'finished_at')
  local parent_id, own_name = group.split(of.id)
  local parent = parent_id and group.read(batch, parent_id)
  if parent then
    M.reopen_member(batch, parent, own_name, 'failed')
    reopen_followers(batch, parent, of.id)
  elseif not parent_id then
    local created_at = number.of(redis.call('HGET', key, 'enqueued_at'), batch.now)
    redis.call('ZADD', keys.workflows(base), clock.text(created_at), of.id)
  end
end

-- Whether a group, and what that is in, goes on as long as a member does.
local function goes_on(batch, of)
  while of do
    if of.state ~= 'blocked' and of.state ~= 'failed' or of.abort_requested then return false end
    local parent_id = group.split(of.id)
    of = parent_id and group.read(batch, parent_id)
  end
  return true
end

-- A dead letter runs again: what its failure ended or skipped is open again. A group that ended in another way than by failures
-- stays as it is.
function M.reopen(batch, id)
  if not string.find(id, '~', 1, true) then return end
  local of, name = group.of(batch, id)
  if not of then return end
  if not goes_on(batch, of) or redis.call('SISMEMBER', keys.failed(batch.base, of.id), name) == 0 then return end
  group.count_dead(batch, id, -1)
  batch.members = batch.members or {}
  M.reopen_member(batch, of, name, 'failed')
  if of.kind ~= 'map' then reopen_followers(batch, of, id) end
end

-- What is open to do for one id, by its record: that it ended is not known to its group, it could begin, its group could end, or it
-- is being aborted.
function M.look(batch, id)
  local record = task.read(batch.base, id, FOLLOWER)
  local own = record and record.kind and group.read(batch, id)
  local parent_id, name = group.split(id)
  local of = parent_id and group.read(batch, parent_id)
  if of and of.building and not of.abort_requested then return end
  if own and own.state == 'blocked' and number.of(record.needs, 0) <= 0 then
    if group.damage(batch, own) then return end
    if own.abort_requested then
      cancel(batch, own)
    elseif own.kind == 'map' then
      map.make(batch, own)
    end
    return touch(batch, own)
  end
  if not of or redis.pcall('SISMEMBER', keys.open(batch.base, of.id), name) ~= 1 then return end
  if not record or not record.state then
    group.note(batch, of, name, 'discarded')
  elseif task.is_finished(record.state) then
    group.note(batch, of, name, record.state, record.kind)
  elseif record.state == 'blocked' and number.of(record.needs, 0) <= 0 and number.of(record.broken, 0) <= 0
    and not of.abort_requested then
    M.begin(batch, of, name, record)
  end
end

-- What took too long, or what its client left unfinished.
local function stop_overdue(batch)
  local deadlines = keys.deadlines(batch.base)
  local overdue = redis.pcall('ZRANGEBYSCORE', deadlines, '-inf', batch.now_text, 'LIMIT', 0, LOOK_AT)
  for _, id in ipairs(errors.of(overdue) and {} or overdue) do
    local of = group.read(batch, id)
    local err = of and M.abort(batch, id, of.building and 'unfinished' or 'timeout')
    if err then
      batches.refuse(batch, id, '', err)
      redis.call('ZADD', deadlines, clock.text(batch.now + batches.STUCK_MS), id)
    else
      redis.call('ZREM', deadlines, id)
    end
    M.advance(batch)
  end
end

-- Look at what earlier calls left, up to a bound; and at some members of some workflow, which a call of an earlier version may
-- have ended, or somebody deleted. Replies whether more is left.
function M.go_on(batch)
  local base = batch.base
  local chores = keys.chores(base)
  if errors.of(redis.pcall('LLEN', chores)) then return false end
  if errors.of(redis.pcall('ZCARD', keys.workflows(base))) then return false end
  M.advance(batch)
  -- Not what these looks leave in turn.
  local left = redis.call('LLEN', chores)
  while left > 0 and (batch.moves or 0) < ADVANCE do
    batch.moves, left = (batch.moves or 0) + 1, left - 1
    M.look(batch, redis.call('LPOP', chores))
    M.advance(batch)
  end
  if left > 0 then return true end
  stop_overdue(batch)
  local some = redis.call('ZRANDMEMBER', keys.workflows(base))
  if some then
    local names = redis.pcall('SRANDMEMBER', keys.open(base, some), LOOK_AT)
    for _, name in ipairs(errors.of(names) and {} or names) do
      local id = group.id_of(some, name)
      M.look(batch, id)
      local inner = redis.pcall('SRANDMEMBER', keys.open(base, id), LOOK_AT)
      for _, index in ipairs(errors.of(inner) and {} or inner) do M.look(batch, group.id_of(id, index)) end
    end
    M.look(batch, some)
    M.advance(batch)
  end
  return false
end

return M
