-- abort: scheduled, queued, held, running -> aborted, running. Stops a task: at once if it waits, by request if it runs.
-- args: id, result_ttl_ms int
-- reply: `aborted` (now or before), `requested` (its worker is told), `finished` (another way) or `not_found`
return function(base, args)
  local id = args.id
  local record, err = task.read(base, id, { 'state', 'lane', 'worker', 'pause', 'result_ttl_ms' })
  if err then return { err = err } end
  if not record.state then return 'not_found' end
  if record.state == 'aborted' then return 'aborted' end
  if task.is_finished(record.state) then return 'finished' end
  if record.state == 'running' then
    attempt.ask_abort(base, id, record.worker)
    return 'requested'
  end
  local batch = batches.open(base, clock.now())
  move.abort_waiting(batch, id, record, args.result_ttl_ms)
  batches.close(batch)
  return 'aborted'
end
