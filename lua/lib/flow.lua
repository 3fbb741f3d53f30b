-- What follows in a workflow from the end of its members: done in the call that ends them, before that call claims. What is too
-- much for one call is left to heartbeats, as ids that are to be looked at again (`chores`).
local M = {}

-- Followers that one call looks at.
local ADVANCE = 500
-- Members of ended workflows that one call gives their time to live, where it looks at no further one.
local KEPT = 500

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
  local closed, missing, counts, through, is_undoing = {}, {}, {}, {}, group.is_undoing(of)
  for i, one in ipairs(ended) do
    local is_new = not seen[one.name]
    local is_open = open[i] == 1 and is_new
    seen[one.name] = true
    local waits = is_open and of.kind ~= 'map' and not of.abort_requested and (batch.moves or 0) >= ADVANCE
    if waits then
      group.later(batch, one.id)
    elseif is_new and not one.is_group and (is_open or not one.is_open) then
      count_dead(batch, of, one, is_open)
    end
    if is_open then
      if not waits then
        closed[#closed + 1], through[#through + 1] = one.name, one
        if one.state ~= 'complete' then missing[#missing + 1] = one.name end
        if one.name == of.open_map then group.seal(batch, of) end
        local count = group.COUNTS[one.state] or 'failed'
        if not is_undoing then counts[count] = (counts[count] or 0) + 1 end
      end
    end
  end
  if names[1] then bulk.write('SREM', keys.open(base, of.id), closed) end
  bulk.write('SADD', keys.failed(base, of.id), missing)
  if missing[1] and not of.abort_requested and not is_undoing then
    redis.call('HSETNX', keys.task(base, of.id), 'first_missing', missing[1])
  end
  if of.undoing then undo.note(batch, of, through) end
  if of.kind == 'map' then
    if not of.abort_requested then map.make(batch, of) end
  elseif not of.abort_requested and not is_undoing then
    began = edges.follow(batch, of, through)
    counts.unborne, of.unborne = of.unborne, nil
  end
  group.count(base, of.id, counts)
  if of.is_cancelled then
    of.is_cancelled = nil
    stopping.abort(batch, of.id, 'failed')
  end
  if not began then ending.end_if_through(batch, of) end
end

-- Calls of a map have completed: they are counted, and others take their place.
local function settle_completed(batch, of)
  local base, names, results = batch.base, of.completed.names, of.completed.results
  bulk.of_keys('DEL', of.completed.records)
  of.completed = nil
  batches.count(batch, 'completed', #names)
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
  ending.end_if_through(batch, of)
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
    for _, of in ipairs(touched) do ending.end_if_through(batch, of) end
  end
  local dead = batch.dead
  batch.dead = nil
  for root_id, by in pairs(dead or {}) do
    local root = group.read(batch, root_id)
    if root and by ~= 0 then
      local key = keys.task(batch.base, root_id)
      group.count(batch.base, root_id, { dead = by })
      -- What was counted again so far may be otherwise now.
      redis.call('HDEL', key, 'recount')
      local left = number.of(redis.call('HGET', key, 'dead'), 0)
      if left <= 0 and root.state ~= 'blocked' then
        batches.push(batch, 'swept', root)
      end
    end
  end
  while batch.swept do
    local swept = batch.swept
    batch.swept = nil
    for _, root in ipairs(swept) do
      if (batch.kept or 0) >= KEPT then
        group.later(batch, root.id)
      elseif number.of(redis.call('HGET', keys.task(batch.base, root.id), 'dead'), 0) <= 0 then
        batch.kept = (batch.kept or 0) + ending.sweep(batch, root)
      end
    end
  end
end

return M
