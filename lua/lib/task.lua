-- A task's record: its fields, read.
local M = {}

-- The lane of a record that somebody took its lane from.
M.DEFAULT_LANE = 'default'
-- The version of the library: a claim understands tasks that need this one, or an earlier one.
M.VERSION, M.VERSION_TEXT = 2, '2'
-- `tries` of a call of a map that nobody has claimed or watched, and that has nothing else which few tasks have: a claim of this
-- version need not ask. To version 1 it is a 0, and it finds `needs_version`.
M.BARE = '00'
-- A note is a field of the record, so that it is what its task sent, byte for byte.
local NOTE = 'note:'
local HOUR_MS, WEEK_MS = 3600000, 7 * 86400000

-- Fields of a record by name, or nil and the error text when the key holds something else.
function M.read(base, id, fields)
  local values = redis.pcall('HMGET', keys.task(base, id), unpack(fields))
  local err = errors.of(values)
  if err then return nil, errors.wrong_type(keys.task(base, id)).err end
  local record = {}
  for i, field in ipairs(fields) do record[field] = values[i] or nil end
  return record
end

function M.is_finished(state)
  return state == 'complete' or state == 'failed' or state == 'aborted' or state == 'expired' or state == 'discarded'
    or state == 'skipped'
end

-- Whether it waits for its turn in a place that this version knows.
function M.is_waiting(state)
  return state == 'queued' or state == 'limited' or state == 'scheduled' or state == 'held'
end

-- How long a finished record is kept: as long as its task says, else `ttl_ms`.
function M.kept_ms(record, ttl_ms) return number.of(record.result_ttl_ms, ttl_ms) end

-- How long what it told is kept, its log and its chunks: as long as the result, which may not be for ever and should not be
-- gone at once.
function M.told_ms(record, ttl_ms)
  local kept_ms = M.kept_ms(record, ttl_ms)
  return kept_ms < 0 and WEEK_MS or math.max(kept_ms, HOUR_MS)
end

function M.note_field(name) return NOTE .. name end

-- The fields of a record that are notes.
function M.note_fields(base, id)
  local found = {}
  for _, field in ipairs(errors.read('HKEYS', keys.task(base, id))) do
    if string.sub(field, 1, #NOTE) == NOTE then found[#found + 1] = field end
  end
  return found
end

return M
