-- retry: running, blocked -> scheduled, queued, limited, failed, aborted. The attempt's worker asks for another try after delay_ms; a stale attempt changes nothing.
-- args: worker, id, token, run_ms int, delay_ms int, max_age_ms int, error, traceback, result_ttl_ms int
-- reply: `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead
return function(base, args)
  return attempt.settle_one(base, args, 'retry', args.error,
    { traceback = args.traceback, delay_ms = args.delay_ms, max_age_ms = args.max_age_ms })
end
