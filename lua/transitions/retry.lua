-- retry: running -> scheduled, queued, failed, aborted. The attempt's holder asks for another try after delay_ms; a stale attempt changes nothing.
return function(base, args)
  return attempt.settle_one(base, args,
    { outcome = 'retry', value = args.error, traceback = args.traceback, delay_ms = args.delay_ms,
      max_age_ms = args.max_age_ms })
end
