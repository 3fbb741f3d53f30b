-- ack: running -> complete. The attempt's holder finishes the task with a result; a stale attempt changes nothing.
-- args: worker, id, token, run_ms int, result, codec, result_ttl_ms int
-- reply: `ok`, `stale` (the token is not the one the worker holds: nothing changed) or what became of it instead
return function(base, args)
  return attempt.settle_one(base, args, { outcome = 'complete', value = args.result, codec = args.codec })
end
