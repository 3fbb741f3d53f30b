-- Those who wait for a task: `waiters:<id>` has their mailboxes. All hear of its end (batch.lua); while `watched_until` of
-- its record is to come, they hear of what happens before, too. Of a task that nobody watches, nothing is looked up.
local M = {}

-- `mail.OUTCOME`, and what tells whether it has expired, and how it is.
local ASKED = { 'state', 'tries', 'enqueued_at', 'started_at', 'finished_at', 'result_codec', 'result', 'error', 'lane',
  'expires_at', 'held_by', 'progress', 'watched_until', 'result_ttl_ms' }
local SHOWN = { 'state', 'tries', 'progress' }
-- What one message carries of what a task tells, in bytes.
local MOST_TOLD = 65536

-- What `await` and `watch` ask first. Replies the record of a task that has not ended; else nil and the answer.
function M.ask(base, id, mailbox, ttl_ms, result_ttl_ms)
  if mailbox ~= '' and ttl_ms <= 0 then errors.raise(errors.bad_argument('waiter_ttl_ms must be positive')) end
  local record, err = task.read(base, id, ASKED)
  if err then return nil, { err = err } end
  if not record.state then return nil, { 'not_found' } end
  if record.expires_at and not task.is_finished(record.state) then
    local b = batch.open(base, clock.now())
    if task.expire_waiting(b, id, record, result_ttl_ms) then record = task.read(base, id, ASKED) end
    batch.close(b)
  end
  if task.is_finished(record.state) then return nil, { 'finished', unpack(mail.outcome(record)) } end
  return record
end

-- How a task is that has not ended. `told`: notes and lines ({note, text} each) that it just told.
function M.message(id, record, told)
  local parts, size = { mail.pack('changed', id, record.state, record.tries or '0', record.progress or '') }, 0
  for _, entry in ipairs(told or {}) do
    size = size + #entry.note + #entry.text
    if size > MOST_TOLD then break end
    parts[#parts + 1] = mail.pack(entry.note, entry.text)
  end
  return table.concat(parts)
end

-- A task that has not ended has changed: whoever waits for it hears of it, if it is watched.
function M.changed(base, now, id, watched_until, told)
  if not watched_until or number.of(watched_until, 0) <= now then return end
  local names = redis.pcall('SMEMBERS', keys.waiters(base, id))
  if errors.of(names) or #names == 0 then return end
  local record = task.read(base, id, SHOWN)
  if not record or not record.state then return end
  local message = M.message(id, record, told)
  for _, name in ipairs(names) do
    if not schedule.of_waiter(name) then mail.post(base, name, { message }) end
  end
end

return M
