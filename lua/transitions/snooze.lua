-- snooze: running, blocked -> scheduled, queued, limited, failed, aborted. The attempt's worker puts the task off for delay_ms; no try is charged.
-- args: worker, id, token, run_ms int, delay_ms int, max_age_ms int, reason, result_ttl_ms int
-- reply: `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead
return function(base, args)
  return attempt.settle_one(base, args, 'snooze', args.reason,
    { delay_ms = args.delay_ms, max_age_ms = args.max_age_ms })
end
