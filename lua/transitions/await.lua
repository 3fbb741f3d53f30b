-- await: queued, scheduled, held -> expired. A client asks for a task's outcome, or to be told when it ends. One that was not started in time has expired.
-- `mail.OUTCOME`, and what tells whether it has expired.
local ASKED = { 'state', 'tries', 'enqueued_at', 'started_at', 'finished_at', 'result_codec', 'result', 'error', 'lane',
  'expires_at', 'held_by' }

return function(base, args)
  local id = args.id
  if args.mailbox ~= '' and args.waiter_ttl_ms <= 0 then
    errors.raise(errors.bad_argument('waiter_ttl_ms must be positive'))
  end
  local record, err = task.read(base, id, ASKED)
  if err then return { err = err } end
  if not record.state then return { 'not_found' } end
  if record.expires_at and not task.is_finished(record.state) then
    local b = batch.open(base, clock.now())
    if task.expire_waiting(b, id, record, args.result_ttl_ms) then record = task.read(base, id, ASKED) end
    batch.close(b)
  end
  if task.is_finished(record.state) then return { 'finished', unpack(mail.outcome(record)) } end
  if args.mailbox ~= '' then mail.await(base, id, args.mailbox, args.waiter_ttl_ms) end
  return { 'waiting', record.state }
end
