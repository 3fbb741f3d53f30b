-- schedule_remove: somebody removes a schedule. What it enqueued before runs.
return function(base, args)
  errors.read('ZSCORE', keys.schedule_due(base), args.name)
  local removed = errors.read('HDEL', keys.schedules(base), args.name)
  redis.call('ZREM', keys.schedule_due(base), args.name)
  return removed == 1 and 'removed' or 'not_found'
end
