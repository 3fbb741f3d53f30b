-- abort: scheduled, queued, limited, held, running, blocked -> aborted, running, queued, skipped. Stops a task: at once if it waits, by request if it runs.
-- args: id, result_ttl_ms int
-- reply: `aborted` (now or before), `requested` (its worker is told; in a state of a later version, the record says so), `finished` (another way) or `not_found`
return function(base, args)
  local id = args.id
  local record, err = task.read(base, id, { 'state', 'lane', 'worker', 'pause', 'result_ttl_ms', 'kind', 'needs' })
  if err then return { err = err } end
  if not record.state then return 'not_found' end
  if record.state == 'aborted' then return 'aborted' end
  if task.is_finished(record.state) then return 'finished' end
  if record.state == 'blocked' and record.kind and number.of(record.needs, 0) <= 0 then
    local batch = batches.open(base, clock.read())
    err = stopping.abort(batch, id)
    if err then return { err = err } end
    calls.close(batch)
    return group.read(batch, id).state == 'blocked' and 'requested' or 'aborted'
  end
  -- In a state of a later version, whose functions know what follows from its end: they find the wish in the record.
  if not (task.is_waiting(record.state) or record.state == 'blocked') then
    member.ask_abort(base, id, record.worker)
    return 'requested'
  end
  local batch = batches.open(base, clock.read())
  move.abort_waiting(batch, id, record, args.result_ttl_ms)
  calls.close(batch)
  return 'aborted'
end
