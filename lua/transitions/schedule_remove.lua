-- schedule_remove: removes a schedule. The tasks it has enqueued still run.
-- args: name
-- reply: `removed` or `not_found`
return function(base, args)
  errors.read('ZSCORE', keys.schedule_due(base), args.name)
  errors.read('HLEN', keys.schedules(base))
  return schedule.remove(base, args.name) and 'removed' or 'not_found'
end
