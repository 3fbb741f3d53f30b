-- log: the last lines that a task wrote.
-- args: id, limit int
-- reply: (line)…
return function(base, args)
  local record, err = task.read(base, args.id, { 'state', 'tries', 'logged' })
  if err then return { err = err } end
  -- What is there is of an earlier task of this id: this one has never begun.
  if record.state and not record.logged and number.of(record.tries, 0) == 0 then return {} end
  return errors.read('LRANGE', keys.log(base, args.id), -args.limit, -1)
end
