-- Somebody asks for a task's outcome: it has one, or he may wait for it.
local M = {}

-- `mail.OUTCOME`, and what tells whether it has expired, and how it is.
local ASKED = { 'state', 'tries', 'enqueued_at', 'started_at', 'finished_at', 'result_codec', 'result', 'error', 'lane',
  'expires_at', 'pause', 'progress', 'watched_until', 'result_ttl_ms' }

-- What `await` and `watch` ask first. Replies the record of a task that has not ended; else nil and the answer.
function M.outcome(base, id, result_ttl_ms)
  local record, err = task.read(base, id, ASKED)
  if err then return nil, { err = err } end
  if not record.state then return nil, { 'not_found' } end
  if record.expires_at and not task.is_finished(record.state) then
    local batch = batches.open(base, clock.read())
    if move.expire_waiting(batch, id, record, result_ttl_ms) then record = task.read(base, id, ASKED) end
    calls.close(batch)
  end
  if task.is_finished(record.state) then return nil, { 'finished', unpack(mail.outcome(record)) } end
  return record
end

return M
