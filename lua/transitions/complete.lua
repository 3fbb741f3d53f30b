-- complete: running, blocked, skipped -> complete, queued, blocked, failed, skipped. The attempt's worker finishes the task with a result; a stale attempt changes nothing.
-- args: worker, id, token, run_ms int, result, codec, result_ttl_ms int
-- reply: `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead
return function(base, args)
  return attempt.settle_one(base, args, 'complete', args.result, { codec = args.codec })
end
