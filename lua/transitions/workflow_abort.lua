-- workflow_abort: queued, blocked -> aborted, queued, skipped. Stops a workflow, and undoes what completed of it: its compensations run, one after the other, what completed last first.
-- args: id
-- reply: `aborted` (now or before), `requested` (something of it runs, or its compensations do), `finished` (another way) or `not_found`
return function(base, args)
  local record, err = task.read(base, args.id, { 'state', 'kind' })
  if err then return { err = err } end
  if record.kind ~= 'workflow' then return 'not_found' end
  if record.state == 'aborted' then return 'aborted' end
  if task.is_finished(record.state) then return 'finished' end
  local batch = batches.open(base, clock.read())
  err = stopping.abort(batch, args.id, 'undo')
  if err then return { err = err } end
  calls.close(batch)
  return group.read(batch, args.id).state == 'blocked' and 'requested' or 'aborted'
end
