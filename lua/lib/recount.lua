-- Dead letters of a workflow that has ended, counted again, a portion a call: its record may say more than there are where an
-- earlier version discarded one, or somebody deleted it. fsck compares, repair sets it right.
local M = {}

-- Members that one call looks at.
local PORTION = 1000

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

return M
