-- workflow_start: blocked -> queued, limited, scheduled, complete, away. All parts of a workflow are there: those of its tasks that need no other begin.
-- args: id
-- reply: `started`, `accepted` (before, or it is aborted) or `not_found`
return function(base, args)
  local id = args.id
  local root, err = task.read(base, id, { 'state', 'building', 'kind', 'abort_requested', 'timeout_ms' })
  if err then return { err = err } end
  if root.kind ~= 'workflow' then return 'not_found' end
  if not root.building or root.state ~= 'blocked' or root.abort_requested then return 'accepted' end
  errors.read('ZCARD', keys.deadlines(base))
  errors.read('ZCARD', keys.scheduled(base))
  errors.read('LLEN', keys.nodes(base, id))
  local batch = batches.open(base, clock.read())
  err = group.damage(batch, group.read(batch, id))
  if err then return { err = err } end
  redis.call('HDEL', keys.task(base, id), 'building')
  group.read(batch, id).building = nil
  if root.timeout_ms then
    local due_at = batch.now + number.of(root.timeout_ms, 0)
    redis.call('ZADD', keys.deadlines(base), clock.text(due_at), id)
  else
    redis.call('ZREM', keys.deadlines(base), id)
  end
  edges.start(batch, id, redis.call('LRANGE', keys.nodes(base, id), 0, -1))
  calls.close(batch)
  return 'started'
end
