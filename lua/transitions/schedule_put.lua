-- schedule_put: a client makes a schedule or changes one; the time it falls due next stays unless its timing changed.
return function(base, args)
  schedule.check(args.name, args.definition)
  errors.read('ZCARD', keys.schedule_due(base))
  return schedule.put(base, args.name, args.definition, args.next_due_at)
end
