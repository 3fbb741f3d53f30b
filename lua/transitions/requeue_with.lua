-- requeue_with: failed, skipped -> queued, limited, blocked, away. A dead letter runs again with other arguments: same id, a fresh retry budget.
-- args: id, args, kwargs, codec, headers
-- reply: `queued` or `not_dead`
return function(base, args)
  errors.read('ZCARD', keys.dead(base))
  local record, err = task.read(base, args.id, { 'state', 'lane', 'buckets', 'kind', 'queue', 'home' })
  if err then return { err = err } end
  if record.state ~= 'failed' or record.kind or record.home then return 'not_dead' end
  local batch = batches.open(base, clock.read())
  if not record.queue then
    local lane_name = record.lane or task.DEFAULT_LANE
    lane.check(base, lane_name)
    err = record.buckets and line.damage(base, lane_name, record.buckets)
    if err then return err end
  end
  err = group.damage_above(batch, args.id) or record.queue and outbox.damage(batch)
  if err then return { err = err } end
  -- What it kept belongs to other arguments.
  memos.drop(batch, args.id)
  redis.call('HDEL', keys.task(base, args.id), 'steps')
  move.requeue(batch, args.id, record, args)
  replay.reopen(batch, args.id)
  calls.close(batch)
  return 'queued'
end
