-- log: the last lines that a task wrote.
-- args: id, limit int
-- reply: (line)…
return function(base, args)
  return errors.read('LRANGE', keys.log(base, args.id), -args.limit, -1)
end
