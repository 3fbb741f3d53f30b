-- Schedules: what recurs, and when it falls due next. The times are computed by clients; here is decided, once for the
-- fleet, whether an occurrence is enqueued.
local M = {}

-- What makes two definitions fall due at the same times.
local TIMING = { 'spec', 'every_ms', 'tz' }
-- What a new definition leaves as it was.
local KEPT = { 'last_id', 'last_due_at', 'paused' }

-- The definition of a schedule, or nil.
function M.read(base, name)
  local text = errors.read('HGET', keys.schedules(base), name)
  local ok, definition = pcall(cjson.decode, text or '')
  return ok and type(definition) == 'table' and definition or nil
end

function M.write(base, name, definition)
  redis.call('HSET', keys.schedules(base), name, cjson.encode(definition))
end

-- When it falls due next (ms), or nil.
function M.due_at(base, name)
  return tonumber(errors.read('ZSCORE', keys.schedule_due(base), name) or nil)
end

-- Whether `after` falls due at the times of `before`; what happened under `before` is carried over.
function M.carry_over(before, after)
  local is_same = true
  for _, field in ipairs(TIMING) do is_same = is_same and before[field] == after[field] end
  for _, field in ipairs(KEPT) do after[field] = before[field] end
  return is_same
end

return M
