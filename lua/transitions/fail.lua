-- fail: running, blocked, queued -> failed, skipped, aborted, limited, queued, scheduled. The attempt's worker gives up: the task fails and is kept as a dead letter.
-- args: worker, id, token, run_ms int, error, traceback, result_ttl_ms int
-- reply: `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead
return function(base, args)
  return attempt.settle_one(base, args, 'failed', args.error, { traceback = args.traceback })
end
