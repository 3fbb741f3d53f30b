-- How one task is stopped on request.
local M = {}

M.FIELDS = { 'state', 'lane', 'worker', 'pause', 'result_ttl_ms', 'kind', 'needs', 'abort_requested', 'home', 'life' }

-- scheduled, queued, limited, held, running, blocked, away -> aborted, running, away: a task that has not ended is to stop.
-- `record`: what it has of `FIELDS`. Replies as the function `abort`.
function M.stop(base, id, record, ttl_ms)
  if record.state == 'aborted' then return 'aborted' end
  if task.is_finished(record.state) then return 'finished' end
  local batch = batches.open(base, clock.read())
  if record.state == 'blocked' and record.kind and number.of(record.needs, 0) <= 0 then
    local err = stopping.abort(batch, id)
    if err then return { err = err } end
    calls.close(batch)
    return group.read(batch, id).state == 'blocked' and 'requested' or 'aborted'
  elseif record.state == 'away' then
    local err = not record.abort_requested and outbox.ask_abort(batch, id)
    if err then return { err = err } end
    calls.close(batch)
    return 'requested'
  end
  -- In a state of a later version, whose functions know what follows from its end: they find the wish in the record.
  if not (task.is_waiting(record.state) or record.state == 'blocked') then
    member.ask_abort(base, id, record.worker)
    return 'requested'
  end
  move.abort_waiting(batch, id, record, ttl_ms)
  calls.close(batch)
  return 'aborted'
end

return M
