-- await: queued, scheduled, held -> expired. A client asks for a task's outcome, or to be told when it ends. One that was not started in time has expired.
return function(base, args)
  local record, answer = ask.outcome(base, args.id, args.mailbox, args.waiter_ttl_ms, args.result_ttl_ms)
  if not record then return answer end
  if args.mailbox ~= '' then mail.await(base, args.id, args.mailbox, args.waiter_ttl_ms) end
  return { 'waiting', record.state }
end
