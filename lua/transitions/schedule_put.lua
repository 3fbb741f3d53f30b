-- schedule_put: a client creates or changes a schedule; its next due time stays unless its timing changed.
-- args: name, definition json, next_due_at int
-- reply: when it falls due next
return function(base, args)
  schedule.check(args.name, args.definition)
  local asked = uses.read(args.definition.limits)
  local refusal = asked and uses.refusal(base, asked, {})
  if refusal then return refusal end
  errors.read('ZCARD', keys.schedule_due(base))
  return schedule.put(base, args.name, args.definition, args.next_due_at)
end
