-- await: a client asks for a task's outcome, or to be told when it ends.
return function(base, args)
  if args.mailbox ~= '' and args.waiter_ttl_ms <= 0 then
    errors.raise(errors.bad_argument('waiter_ttl_ms must be positive'))
  end
  local record, err = task.read(base, args.id, mail.OUTCOME)
  if err then return { err = err } end
  if not record.state then return { 'not_found' } end
  if task.is_finished(record.state) then return { 'finished', unpack(mail.outcome(record)) } end
  if args.mailbox ~= '' then mail.await(base, args.id, args.mailbox, args.waiter_ttl_ms) end
  return { 'waiting', record.state }
end
