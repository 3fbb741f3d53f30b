-- Those who wait for a task: `waiters:<id>` has their mailboxes. All hear of its end (calls.lua); while `watched_until` of
-- its record is to come, they hear of what happens before, too. Of a task that nobody watches, nothing is looked up.
local M = {}

local SHOWN = { 'state', 'tries', 'progress' }
-- What one message carries of what a task tells, in bytes.
local MAX_TOLD = 65536

-- How a task is that has not ended. `told`: notes and lines that it just told, names (of a line: empty) and texts
-- in turn.
function M.message(id, record, told)
  local parts, size = { mail.pack('changed', id, record.state, record.tries or '0', record.progress or '') }, 0
  for at = 1, told and #told or 0, 2 do
    size = size + #told[at] + #told[at + 1]
    if size > MAX_TOLD then break end
    parts[#parts + 1] = mail.pack(told[at], told[at + 1])
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
    if name ~= memos.WAITER and not schedule.of_waiter(name) then mail.post(base, name, { message }) end
  end
end

return M
