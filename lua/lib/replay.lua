-- A dead letter of a workflow runs again: what followed from its failure is taken back.
local M = {}

-- skipped -> blocked, queued, limited, scheduled: what followed from the failure of a member that runs again.
local function reopen_followers(batch, of, id)
  local followers = redis.call('HGET', keys.task(batch.base, id), 'then')
  edges.each_follower(followers or nil, function(name, policy)
    if edges.LENIENT[policy] then return end
    local follower = group.id_of(of.id, name)
    local record = task.read(batch.base, follower, edges.FIELDS)
    if not record or not record.state then return end
    local key, broken = keys.task(batch.base, follower), math.max(number.of(record.broken, 0) - 1, 0)
    redis.call('HSET', key, 'broken', clock.text(broken))
    if record.state ~= 'skipped' or record.unneeded or broken > 0 then return end
    -- What its own end means may be one of the chores yet: nothing of that is done, and so nothing to be taken back.
    local is_settled = redis.call('SISMEMBER', keys.failed(batch.base, of.id), name) == 1
    if is_settled then M.reopen_member(batch, of, name, 'skipped') end
    redis.call('HSET', key, 'state', 'blocked')
    redis.call('HDEL', key, 'error', 'finished_at')
    if is_settled then reopen_followers(batch, of, follower) end
    record.state = 'blocked'
    if number.of(record.needs, 0) <= 0 then edges.begin(batch, of, name, record) end
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
  -- Somebody wants children to run although their task has ended.
  if of.parent then redis.call('HSET', key, 'reopened', '1') end
  redis.call('HDEL', key, 'error', 'finished_at')
  local parent_id, own_name = group.split(of.id)
  local parent = parent_id and group.read(batch, parent_id)
  if parent then
    -- Likewise.
    if redis.call('SISMEMBER', keys.failed(base, parent_id), own_name) == 1 then
      M.reopen_member(batch, parent, own_name, 'failed')
      reopen_followers(batch, parent, of.id)
    end
  elseif not parent_id then
    local created_at = number.of(redis.call('HGET', key, 'enqueued_at'), batch.now)
    redis.call('ZADD', keys.workflows(base), clock.text(created_at), of.id)
    if of.timeout_ms then
      local stops_at = clock.text(batch.now + number.of(of.timeout_ms, 0))
      redis.call('ZADD', keys.deadlines(base), stops_at, of.id)
    end
  end
end

-- Whether a group, and what that is in, goes on as long as a member does.
local function goes_on(batch, of)
  while of do
    if of.state ~= 'blocked' and of.state ~= 'failed' then return false end
    if of.abort_requested or group.is_undoing(of) then return false end
    local parent_id = group.split(of.id)
    of = parent_id and group.read(batch, parent_id)
  end
  return true
end

-- A dead letter runs again: what its failure ended or skipped is open again. A group that ended in another way than by failures,
-- or is undone, stays as it is; of what undoes it the one that the others wait for goes on.
function M.reopen(batch, id)
  if not string.find(id, '~', 1, true) then return end
  local of, name = group.of(batch, id)
  if not of then return end
  if undo.is_awaited(batch, of, name) then
    -- What its end means may be one of the chores yet, and then it does not count.
    if redis.call('SREM', keys.failed(batch.base, of.id), name) == 1 then group.count_dead(batch, id, -1) end
    batch.members = batch.members or {}
    redis.call('SADD', keys.open(batch.base, of.id), name)
    return
  end
  if not goes_on(batch, of) or redis.call('SISMEMBER', keys.failed(batch.base, of.id), name) == 0 then
    -- Its group does not wait for it: in another queue nobody would look after it.
    if redis.call('HGET', keys.task(batch.base, id), 'state') == 'away' then group.later(batch, id) end
    return
  end
  group.count_dead(batch, id, -1)
  batch.members = batch.members or {}
  M.reopen_member(batch, of, name, 'failed')
  if of.kind ~= 'map' then reopen_followers(batch, of, id) end
end

return M
