-- watch: queued, limited, scheduled, held, running, blocked -> queued, limited, scheduled, held, running, expired, failed, skipped. A client asks for a task's outcome, or to be told of each change until it ends. A task that was not started in time expires.
-- args: id, mailbox, waiter_ttl_ms int, result_ttl_ms int
-- reply: answer, (state, tries, enqueued_at, started_at, finished_at, codec, value)?
-- How it is now comes by mail, too: so it is in order with what follows.
return function(base, args)
  if args.mailbox == '' then errors.raise(errors.bad_argument('mailbox must not be empty')) end
  local id = args.id
  local record, answer = ask.outcome(base, id, args.result_ttl_ms)
  if not record then return answer end
  mail.await(base, id, args.mailbox, args.waiter_ttl_ms)
  local now = clock.now()
  local watched_until = now + args.waiter_ttl_ms
  mail.note_wait(base, now, args.waiter_ttl_ms)
  if (tonumber(record.watched_until) or 0) < watched_until then
    local tries = record.tries ~= task.BARE and record.tries or '0'
    redis.call('HSET', keys.task(base, id), 'watched_until', watched_until, 'tries', tries)
  end
  mail.post(base, args.mailbox, { waiters.message(id, record) })
  return { 'unfinished', record.state }
end
