-- task: a task's record.
-- args: id
-- reply: field and value in turn; empty if it does not exist
return function(base, args)
  return errors.read('HGETALL', keys.task(base, args.id))
end
