-- log: the last lines that a task wrote.
-- args: id, limit int
-- reply: (line)…
return function(base, args)
  if args.limit < 1 or args.limit > 1000 then errors.raise(errors.bad_argument('limit must be from 1 to 1000')) end
  return errors.read('LRANGE', keys.log(base, args.id), -args.limit, -1)
end
