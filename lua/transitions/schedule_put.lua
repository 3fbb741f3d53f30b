-- schedule_put: a client creates or changes a schedule; its next due time stays unless its timing changed.
-- args: name, definition json, next_due_at int
-- reply: when it falls due next
return function(base, args)
  schedule.check(args.name, args.definition)
  local _, refusal = limits.add(base, args.definition.limits, {}, function() end)
  if refusal then return refusal end
  errors.read('ZCARD', keys.schedule_due(base))
  return schedule.put(base, args.name, args.definition, args.next_due_at)
end
