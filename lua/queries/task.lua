-- task: a task's record.
return function(base, args)
  return errors.read('HGETALL', keys.task(base, args.id))
end
