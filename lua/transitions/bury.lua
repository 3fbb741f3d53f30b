-- bury: running -> failed. The attempt's holder gives up: the task fails and is kept as a dead letter.
-- args: worker, id, token, run_ms int, error, traceback, result_ttl_ms int
-- reply: `ok`, `stale` (the token is not the one the worker holds: nothing changed) or what became of it instead
return function(base, args)
  return attempt.settle_one(base, args, { outcome = 'failed', value = args.error, traceback = args.traceback })
end
