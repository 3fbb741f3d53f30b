-- forget: a client no longer wants to be told.
return function(base, args)
  return errors.read('SREM', keys.waiters(base, args.id), args.mailbox)
end
