-- await: queued, limited, scheduled, held, blocked -> expired, failed, skipped. A client asks for a task's outcome, or to be told when it ends. A task that was not started in time expires.
-- args: id, mailbox, waiter_ttl_ms int, result_ttl_ms int
-- reply: answer, (state, tries, enqueued_at, started_at, finished_at, codec, value)?
return function(base, args)
  if args.mailbox ~= '' and args.waiter_ttl_ms == 0 then
    errors.raise(errors.bad_argument('with a mailbox, waiter_ttl_ms must be positive'))
  end
  local record, answer = ask.outcome(base, args.id, args.result_ttl_ms)
  if not record then return answer end
  if args.mailbox ~= '' then
    mail.await(base, args.id, args.mailbox, args.waiter_ttl_ms)
    mail.note_wait(base, clock.now(), args.waiter_ttl_ms)
  end
  return { 'unfinished', record.state }
end
