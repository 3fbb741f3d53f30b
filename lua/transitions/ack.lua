-- ack: running -> complete. The attempt's holder finishes the task with a result; a stale attempt changes nothing.
return function(base, args)
  return attempt.settle_one(base, args, { outcome = 'complete', value = args.result, codec = args.codec })
end
