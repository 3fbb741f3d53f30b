-- abort: scheduled, queued, limited, held, running, blocked -> aborted, running, queued, skipped. Stops a task: at once if it waits, by request if it runs.
-- args: id, result_ttl_ms int
-- reply: `aborted` (now or before), `requested` (its worker is told; in a state of a later version, the record says so), `finished` (another way) or `not_found`
return function(base, args)
  local record, err = task.read(base, args.id, halt.FIELDS)
  if err then return { err = err } end
  if not record.state then return 'not_found' end
  return halt.stop(base, args.id, record, args.result_ttl_ms)
end
