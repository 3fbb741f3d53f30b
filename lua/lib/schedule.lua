-- Schedules: what recurs, and when it falls due next. The times are computed by clients; here is decided, once for the
-- fleet, whether an occurrence is enqueued.
local M = {}

-- What makes two definitions fall due at the same times.
local TIMING = { 'spec', 'every_ms', 'tz' }
-- What a new definition leaves as it was.
local KEPT = { 'last_id', 'last_due_at', 'last_outcome', 'caught_up', 'paused' }
-- What a definition may have.
local FIELDS = { task = 'string', lane = 'string', args = 'string', kwargs = 'string', headers = 'string',
  spec = 'string', every_ms = 'number', tz = 'string', jitter_ms = 'number', result_ttl_ms = 'number',
  coalesce = 'boolean', missed = 'string', source = 'string', limits = 'table' }
-- For how long a schedule waits to be told what an occurrence came to: a week.
local WAIT_MS = 604800000

-- A definition as it was stored, or nil.
local function decode(text)
  local ok, definition = pcall(cjson.decode, text or '')
  return ok and type(definition) == 'table' and definition or nil
end

-- The definition of a schedule, or nil.
function M.read(base, name)
  return decode(errors.read('HGET', keys.schedules(base), name))
end

-- Append name, due time and definition of each schedule to a reply; `entries`: name and due time in turn.
function M.describe(base, entries, reply)
  for i = 1, #entries, 2 do
    local definition = errors.read('HGET', keys.schedules(base), entries[i])
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = entries[i], tonumber(entries[i + 1]), definition or ''
  end
  return reply
end

function M.write(base, name, definition)
  redis.call('HSET', keys.schedules(base), name, cjson.encode(definition))
end

-- When it falls due next (ms), or nil.
function M.due_at(base, name)
  return tonumber(errors.read('ZSCORE', keys.schedule_due(base), name) or nil)
end

-- Refuse what is no definition.
function M.check(name, definition)
  if name == '' then errors.raise(errors.bad_argument('a schedule needs a name')) end
  local fields = object.check(type(definition) == 'table' and definition or {}, FIELDS, 'a definition')
  if not (fields.task and fields.lane) then
    errors.raise(errors.bad_argument('definition must be a JSON object with at least task and lane'))
  end
end

local function is_same(x, y)
  if type(x) ~= 'table' or type(y) ~= 'table' then return x == y end
  for field, value in pairs(x) do
    if not is_same(value, y[field]) then return false end
  end
  for field in pairs(y) do
    if x[field] == nil then return false end
  end
  return true
end

-- Make a schedule or change one; what happened before is carried over. Replies when it falls due next: as before where
-- its timing is the same.
function M.put(base, name, definition, next_due_at)
  local before, due_at = M.read(base, name), M.due_at(base, name)
  if before then
    for _, field in ipairs(TIMING) do
      if before[field] ~= definition[field] then due_at = nil end
    end
    for _, field in ipairs(KEPT) do definition[field] = before[field] end
  end
  due_at = before and due_at or next_due_at
  -- The server gives the fields of an object in whatever order: writing the same would not be the same.
  if not (before and is_same(before, definition)) then M.write(base, name, definition) end
  redis.call('ZADD', keys.schedule_due(base), due_at, name)
  return due_at
end

-- Whether there was one.
function M.remove(base, name)
  local removed = redis.call('HDEL', keys.schedules(base), name)
  redis.call('ZREM', keys.schedule_due(base), name)
  return removed == 1
end

-- The id of the task of an occurrence.
function M.occurrence(name, due_at) return 'cron:' .. name .. ':' .. clock.text(due_at) end

-- When the task `id` of the occurrence of `due_at` starts: up to `jitter_ms` later, spread by its id, so that whoever
-- fires it comes to the same.
function M.start_at(definition, due_at, id)
  local jitter_ms = math.floor(tonumber(definition.jitter_ms) or 0)
  if jitter_ms <= 0 then return due_at end
  return due_at + tonumber(string.sub(redis.sha1hex(id), 1, 12), 16) % (jitter_ms + 1)
end

-- The schedule waits for the outcome of its task as any client does; `as_waiter` is the name it is told by.
local function as_waiter(name)
  return 'schedule:' .. name
end

function M.await(base, now, name, id)
  mail.await(base, id, as_waiter(name), WAIT_MS)
  mail.note_wait(base, now, WAIT_MS)
end

-- The schedule that a waiter stands for, or nil: it is a mailbox.
function M.of_waiter(waiter) return string.match(waiter, '^schedule:(.*)$') end

-- What the task `id` came to, if the waiter is a schedule. Replies whether it is. Called when a settle is under way:
-- it refuses nothing.
function M.tell(base, waiter, id, record)
  local name = M.of_waiter(waiter)
  if not name then return false end
  local text = redis.pcall('HGET', keys.schedules(base), name)
  local definition = not errors.of(text) and decode(text or nil)
  if definition then
    local failed = record.state ~= 'complete'
    definition.last_outcome = { id = id, state = record.state, tries = number.of(record.tries, 0),
      finished_at = number.of(record.finished_at),
      error = failed and history.short(record.error or record.state) or nil }
    M.write(base, name, definition)
  end
  return true
end

return M
