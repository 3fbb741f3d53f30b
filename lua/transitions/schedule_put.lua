-- schedule_put: a client makes a schedule or changes one; the time it falls due next stays unless its timing changed.
-- args: name, definition json, next_due_at int
-- reply: when it falls due next
return function(base, args)
  schedule.check(args.name, args.definition)
  errors.read('ZCARD', keys.schedule_due(base))
  return schedule.put(base, args.name, args.definition, args.next_due_at)
end
