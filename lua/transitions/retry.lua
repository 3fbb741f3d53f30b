-- retry: running -> scheduled, queued, failed, aborted. The attempt's holder asks for another try after delay_ms; a stale attempt changes nothing.
-- args: worker, id, token, run_ms int, delay_ms int, max_age_ms int, error, traceback, result_ttl_ms int
-- reply: `ok`, `stale` (the token is not the one the worker holds: nothing changed) or what became of it instead
return function(base, args)
  return attempt.settle_one(base, args,
    { outcome = 'retry', value = args.error, traceback = args.traceback, delay_ms = args.delay_ms,
      max_age_ms = args.max_age_ms })
end
