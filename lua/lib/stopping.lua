-- How a workflow, or a map of it, is stopped.
local M = {}

-- Members that one call aborts.
local CANCEL = 500

-- Stop everything in a group that has not ended, a portion a call: what waits is aborted, what runs is asked to.
function M.cancel(batch, of)
  local base, key = batch.base, keys.task(batch.base, of.id)
  -- The wish may be of a version that only noted it.
  if of.kind == 'map' then redis.call('DEL', keys.items(base, of.id)) end
  local cursor = redis.call('HGET', key, 'cancelled_to') or '0'
  local page = redis.call('SSCAN', keys.open(base, of.id), cursor, 'COUNT', CANCEL)
  batch.moves = (batch.moves or 0) + #page[2]
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
    elseif record and record.state == 'away' and not record.abort_requested then
      local err = outbox.ask_abort(batch, id)
      if err then batches.refuse(batch, id, '', err) end
    elseif record and record.state == 'running' and not record.abort_requested then
      local ok, err = pcall(member.ask_abort, base, id, record.worker)
      if not ok then batches.refuse(batch, id, '', err.err) end
    elseif not record or not record.state or task.is_finished(record.state) then
      group.note_open(batch, of, name, record)
    end
  end
  if page[1] ~= '0' then
    redis.call('HSET', key, 'cancelled_to', page[1])
    group.later(batch, of.id)
  else
    redis.call('HDEL', key, 'cancelled_to')
  end
end

-- blocked -> blocked, aborted: a workflow, or a map that has begun, is to stop. `why`: nil, or `undo`: what completed is undone;
-- or, where nobody asked for it, `failed`, `timeout` or `unfinished`. Replies an error text where a key is damaged.
function M.abort(batch, group_id, why)
  local of = group.read(batch, group_id)
  if not of or of.state ~= 'blocked' then return nil end
  -- Who asks for its end alone has no compensations, either.
  local ends_all = of.undoing and not why and of.abort_requested ~= '1'
  if not ends_all and (of.abort_requested or group.is_undoing(of)) then return nil end
  local obstacle = group.damage(batch, of)
  if obstacle then return obstacle end
  of.abort_requested = why or '1'
  redis.call('HSET', keys.task(batch.base, group_id), 'abort_requested', of.abort_requested)
  if (batch.moves or 0) < CANCEL then
    M.cancel(batch, of)
  else
    -- No more calls are made of a map, and the rest is for heartbeats.
    if of.kind == 'map' then redis.call('DEL', keys.items(batch.base, group_id)) end
    group.later(batch, group_id)
  end
  edges.touch(batch, of)
end

return M
