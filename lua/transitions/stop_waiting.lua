-- stop_waiting: a client stops waiting for a task.
-- args: id, mailbox
-- reply: 1 if it was registered, else 0
return function(base, args)
  return errors.read('SREM', keys.waiters(base, args.id), args.mailbox)
end
