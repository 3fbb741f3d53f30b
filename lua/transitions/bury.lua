-- bury: running -> failed. The attempt's holder gives up: the task fails and is kept as a dead letter.
return function(base, args)
  return attempt.settle_one(base, args, { outcome = 'failed', value = args.error, traceback = args.traceback })
end
