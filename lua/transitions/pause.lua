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
  pauses.begin(base, id, rule, args.positions)
  return 'paused'
end
