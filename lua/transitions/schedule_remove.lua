-- schedule_remove: somebody removes a schedule. What it enqueued before runs.
-- args: name
-- reply: `removed` or `not_found`
return function(base, args)
  errors.read('ZSCORE', keys.schedule_due(base), args.name)
  errors.read('HLEN', keys.schedules(base))
  return schedule.remove(base, args.name) and 'removed' or 'not_found'
end
