-- Edges of a workflow: what the end of a member means for those that follow it, and how a member begins.
local M = {}

-- What is asked of a member that may begin.
M.FIELDS = { 'state', 'needs', 'broken', 'kind', 'lane', 'buckets', 'delay_ms', 'expire_ms', 'watched_until',
  'unneeded', 'abort_requested', 'queue' }
-- Edges whose follower does not mind that what it follows did not complete.
M.LENIENT = { ignore = true, continue = true, only = true }

-- Call with the name of each follower of a member, and the policy of the edge. Its compensation is none (undo.lua).
function M.each_follower(followers, call)
  for name, policy in string.gmatch(followers or '', '([^ ?]+)%??([^ ]*)') do
    if policy ~= 'undo' then call(name, policy) end
  end
end

-- A group may be through although none of its members ends in this call.
function M.touch(batch, of)
  batches.push(batch, 'touched', of)
  batch.members = batch.members or {}
end

-- blocked -> queued, limited, scheduled, away for a member that needs nothing more; a map makes its first calls.
function M.begin(batch, of, name, record)
  local id = group.id_of(of.id, name)
  local err
  if record.abort_requested then
    -- Of a version that does not know what waits for others, and could only note the wish.
    move.abort_waiting(batch, id, record, number.of(of.result_ttl_ms, 0))
  elseif record.kind == 'map' then
    local own = group.read(batch, id)
    err = own and group.damage(batch, own)
    -- Nothing is made, and nothing left: it has no calls, or somebody deleted them.
    if own and not err and not map.make(batch, own) and own.made == 0 then M.touch(batch, own) end
  elseif record.queue then
    err = outbox.send(batch, id, record)
  else
    err = move.begin(batch, id, record)
  end
  if err then
    batches.refuse(batch, id, '', err)
    redis.call('HSET', keys.task(batch.base, id), 'needs', '0')
    group.later(batch, id)
  end
end

-- A workflow of which everything is there runs: the members that need no other begin, which are among these.
function M.start(batch, id, names)
  local of = group.read(batch, id)
  for _, name in ipairs(names) do
    local record = task.read(batch.base, group.id_of(id, name), M.FIELDS)
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
    M.each_follower(record and record.after, function(before, policy)
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
    if not record then record, err = task.read(batch.base, one.id, { 'needs', 'then', 'spent', 'unneeded' }) end
    -- Deleted, or what an earlier version left of it when it was discarded.
    local is_gone = err or not record.needs
    if is_gone then record = { ['then'] = followers_by_others(batch, of, one.name) } end
    local is_spent, followers, lenient = record.spent, 0, 0
    local completed, is_unneeded = one.state == 'complete', one.state == 'skipped' and record.unneeded
    M.each_follower(record['then'], function(name, policy)
      local on, is_lenient = effect(name), M.LENIENT[policy]
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

-- blocked -> queued, limited, scheduled, away, skipped for those that follow. Replies whether one began.
local function apply(batch, of, effects, order)
  local began = false
  for _, name in ipairs(order) do
    local on, id = effects[name], group.id_of(of.id, name)
    local record = task.read(batch.base, id, M.FIELDS)
    if record and record.state then
      local key = keys.task(batch.base, id)
      local needs = number.of(record.needs, 0) - on.met
      local broken = number.of(record.broken, 0) + on.broken
      if on.begins then needs = math.min(needs, 0) end
      local begins = needs <= 0 and broken == 0 and not record.kind and record.state == 'blocked' and not of.building
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
      elseif waits and needs <= 0 and not of.building then
        M.begin(batch, of, name, record)
        began = began or not record.kind
      end
    end
  end
  return began
end

-- What follows in a workflow from the ends of some of its members. Replies whether something began.
function M.follow(batch, of, ended)
  return apply(batch, of, gather_effects(batch, of, ended))
end

return M
