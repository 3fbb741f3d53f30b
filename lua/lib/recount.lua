-- What is counted of a workflow, counted again. Dead letters of one that has ended, a portion a call: its record may say more than
-- there are where an earlier version discarded one, or somebody deleted it. Ends that it was not told of, because somebody deleted
-- what it knew to be open. fsck compares, repair sets it right.
local M = {}

-- Members that one call looks at; and how many are looked at where that has to be in one.
local PORTION = 1000
local MOST_CALLS = 20000

-- Whether a member that did not complete may run again, or does so to no effect.
local function is_dead(base, id)
  local record = task.read(base, id, { 'state', 'kind' })
  if not record or not record.state or record.kind then return false end
  return record.state == 'failed' or not task.is_finished(record.state)
end

-- Go through about so many members. `from`: what an earlier call replied as `more`, or empty. Replies how many dead letters there
-- are, or nil; where to go on, or nil; and how many were looked at. Neither: a key is damaged.
function M.count(base, root_id, from, most)
  local at, cursor, dead = string.match(from, '^(%d+)-(%d+)-(%d+)$')
  at, cursor, dead = tonumber(at or 0), cursor or '0', tonumber(dead or 0)
  local names, looked = redis.pcall('LRANGE', keys.nodes(base, root_id), 0, -1), 0
  if errors.of(names) then return nil, nil, looked end
  -- The workflow itself, and then each map of it: what is no map has no such set.
  while at <= #names and looked < most do
    local group_id = at == 0 and root_id or group.id_of(root_id, names[at])
    local page = redis.pcall('SSCAN', keys.failed(base, group_id), cursor, 'COUNT', clock.text(most))
    if errors.of(page) then return nil, nil, looked end
    for _, name in ipairs(page[2]) do
      if is_dead(base, group.id_of(group_id, name)) then dead = dead + 1 end
    end
    looked, cursor = looked + #page[2], page[1]
    if cursor == '0' then at = at + 1 end
  end
  if at > #names then return dead, nil, looked end
  return nil, clock.text(at) .. '-' .. cursor .. '-' .. clock.text(dead), looked
end

-- Count a portion of a workflow, where that is under way or `begins`; the rest is for heartbeats. Then its record says how many
-- there are, and it is kept no longer than its time if there are none. Replies nil, or why nothing was changed, as repair does.
function M.go_on(batch, root, begins)
  local key = keys.task(batch.base, root.id)
  local known = redis.call('HMGET', key, 'recount', 'dead')
  if not known[1] and not begins then return 'sound' end
  local dead, more, looked = M.count(batch.base, root.id, known[1] or '', PORTION)
  batch.moves = (batch.moves or 0) + looked
  if more then
    redis.call('HSET', key, 'recount', more)
    return group.later(batch, root.id)
  end
  redis.call('HDEL', key, 'recount')
  if not dead then return 'by_hand' end
  if dead == number.of(known[2], 0) then return 'sound' end
  redis.call('HSET', key, 'dead', clock.text(dead))
  batches.push(batch, 'swept', root)
  batch.members = batch.members or {}
end

-- A workflow has no fewer dead letters than are listed: one that was listed just now may have ended unheard. More than one call looks
-- at are counted again once the workflow has ended.
function M.at_least(batch, root_id)
  local key, dead = keys.task(batch.base, root_id), M.count(batch.base, root_id, '', MOST_CALLS)
  if dead and dead > number.of(redis.call('HGET', key, 'dead'), 0) then
    redis.call('HSET', key, 'dead', clock.text(dead))
  end
end

-- Edges of a member that are not met, and whether it is not needed: by what it comes after, where that is not open any more.
local function unmet(batch, of, record)
  local base, needs, is_unneeded = batch.base, 0, false
  edges.each_follower(record.after, function(name, policy)
    local other = task.read(base, group.id_of(of.id, name), { 'state', 'spent', 'unneeded' }) or {}
    local is_open = redis.call('SISMEMBER', keys.open(base, of.id), name) == 1
    local is_lenient = edges.LENIENT[policy]
    if not is_open and other.state == 'complete' and policy == 'only' and not other.spent then is_unneeded = true end
    local is_met = not is_open and (is_lenient or other.state == 'complete') or is_lenient and other.spent
    if not is_met then needs = needs + 1 end
  end)
  return needs, is_unneeded
end

-- Those that wait for more than what is open begin, or are not needed. One that is skipped may be needed after all, later.
local function tell_followers(batch, of, names)
  for _, name in ipairs(names) do
    local id = group.id_of(of.id, name)
    local key, record = keys.task(batch.base, id), task.read(batch.base, id, { 'after', unpack(edges.FIELDS) }) or {}
    local before, is_blocked = number.of(record.needs, 0), record.state == 'blocked'
    if before > 0 and (is_blocked or record.state == 'skipped') and not group.is_compensation(record) then
      local needs, is_unneeded = unmet(batch, of, record)
      if needs < before then redis.call('HSET', key, 'needs', clock.text(needs)) end
      if is_unneeded then redis.call('HSET', key, 'unneeded', '1') end
      if is_blocked and number.of(record.broken, 0) <= 0 then
        if is_unneeded then
          move.skip(batch, id, 'skipped: not needed')
        elseif needs == 0 then
          edges.begin(batch, of, name, record)
        end
      end
    end
  end
end

-- Members of a group that has not ended, of which some have ended without its hearing of that: those that are open are known to be,
-- ends other than completions count now, and as many have completed as are left. Replies whether that could be done at once.
function M.settle(batch, of)
  local base, names = batch.base, {}
  if of.kind == 'map' then
    if of.made > MOST_CALLS then return false end
    for i = 1, of.made do names[i] = clock.text(i - 1) end
  else
    names = redis.pcall('LRANGE', keys.nodes(base, of.id), 0, -1)
    if errors.of(names) then return false end
  end
  local open, failed = keys.open(base, of.id), keys.failed(base, of.id)
  local is_open, is_missing = bulk.read('SMISMEMBER', open, names), bulk.read('SMISMEMBER', failed, names)
  local opened, complete = {}, 0
  for i, name in ipairs(names) do
    local record = task.read(base, group.id_of(of.id, name), { 'state', 'after', 'kind' }) or {}
    local has_completed = record.state == 'complete' or of.kind == 'map' and not record.state
    local is_known = is_open[i] == 1 or is_missing[i] == 1 or group.is_compensation(record)
    if not is_known and has_completed then
      complete = complete + 1
    elseif not is_known then
      opened[#opened + 1] = name
      if not record.state or task.is_finished(record.state) then group.note_open(batch, of, name, record) end
    end
  end
  bulk.write('SADD', open, opened)
  redis.call('HSET', keys.task(base, of.id), 'complete', clock.text(complete))
  -- What is due is found by what completed.
  if of.undoing == '0' then redis.call('DEL', keys.undo(base, of.id)) end
  -- What is told of ends that count now is told then.
  if of.kind ~= 'map' then tell_followers(batch, of, names) end
  flow.advance(batch)
  if of.kind == 'map' and of.state == 'blocked' then map.make(batch, of) end
  edges.touch(batch, of)
  return true
end

return M
