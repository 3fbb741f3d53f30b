-- abort_guest: queued, limited, scheduled, held, running -> aborted, running. A task of a workflow in another queue is to stop: at once if it waits, by request if it runs.
-- args: id, home, life
-- reply: `aborted` (now or before), `requested` (its worker is told), `finished` (another way) or `not_found` (it is not there for that queue and that time)
return function(base, args)
  local id = args.id
  local record, err = task.read(base, id, halt.FIELDS)
  if err then return { err = err } end
  if not record.state or record.home ~= args.home or record.life ~= args.life then return 'not_found' end
  local answer = halt.stop(base, id, record, 0)
  -- What it ended as was said before, and may be lost.
  outbox.answer_again(base, id)
  return answer
end
