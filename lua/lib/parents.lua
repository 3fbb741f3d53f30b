-- What becomes of a task when its children have ended, and of them when it has (children.lua).
local M = {}

-- They have ended: their task keeps what they came to, and goes on if it waits for that. Of those that were aborted because it had
-- ended it knows nothing more: should it run again, it begins them again.
function M.tell(batch, root)
  local name, id = children.of(root)
  if not name then return end
  local base, memo = batch.base, children.MEMO .. name
  local steps = keys.steps(base, id)
  local obstacle = batches.obstacle(batch, 'HLEN', steps)
  if not obstacle and not memos.pending(redis.call('HGET', steps, memo) or nil) then return end
  local record, err = task.read(base, id, { 'state', 'lane', 'buckets', 'watched_until', 'waits_for', 'waits_since' })
  obstacle = obstacle or err
  if not obstacle and record.state == 'scheduled' and record.waits_for == memo then
    obstacle = move.wake(batch, id, record)
  end
  if obstacle then
    batches.refuse(batch, root.id, '', obstacle)
    group.later(batch, root.id)
  elseif children.is_forsaken(root) then
    redis.call('HDEL', steps, memo)
  else
    redis.call('HSET', steps, memo, memos.pack('ended', '', root.state))
  end
end

-- A task has ended, or begins again: those of its children that go on are aborted. `is_over`: it will not go on from what it kept,
-- which goes, and their results are kept no longer than those of others. What a damaged key keeps from that heartbeats come upon.
function M.forsake(batch, id, is_over)
  local roots = children.roots(batch, id)
  if is_over then redis.call('DEL', keys.steps(batch.base, id), keys.signals(batch.base, id)) end
  for _, root in ipairs(roots) do
    if root.state == 'blocked' then
      local err = stopping.abort(batch, root.id, children.FORSAKEN)
      if err then
        batches.refuse(batch, root.id, '', err)
        local own = is_over and task.read(batch.base, id, { 'state' })
        -- By one that begins again nobody sees that they are to stop.
        if own and own.state and not task.is_finished(own.state) then
          redis.call('HSET', keys.task(batch.base, root.id), 'abort_requested', children.FORSAKEN)
        end
      elseif not is_over then
        -- Somebody may have run them again, after they had ended: should the task run again, it waits for new ones.
        local memo = children.MEMO .. children.of(root)
        redis.call('HSET', keys.steps(batch.base, id), memo, memos.pack('until', '', ''))
      end
    elseif is_over then
      children.release(batch, root)
    end
  end
end

return M
