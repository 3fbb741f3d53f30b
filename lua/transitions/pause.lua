-- pause: keeps tasks from starting: all in the queue, those of a name, or those with a given argument.
-- args: task, argument, value, positions json
-- reply: `paused`
return function(base, args)
  local id, rule = pauses.named(args)
  for _, position in pairs(args.positions) do
    if type(position) ~= 'number' or position < 0 then
      errors.raise(errors.bad_argument('a position must be a number, at least 0'))
    end
  end
  local before = pauses.read(base, id)
  pauses.check(base, id, not before)
  if before and not before.resuming then rule = before else rule.paused_at = clock.now() end
  local learned = rule.argument and pauses.learn(rule, args.positions)
  pauses.write(base, id, rule, rule ~= before or learned)
  return 'paused'
end
