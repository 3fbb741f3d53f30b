-- snooze: running -> scheduled, queued, failed, aborted. The attempt's holder puts the task off for delay_ms; no try is charged.
return function(base, args)
  return attempt.settle_one(base, args,
    { outcome = 'snooze', value = args.reason, delay_ms = args.delay_ms, max_age_ms = args.max_age_ms })
end
