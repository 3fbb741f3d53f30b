-- Batches of calls: tasks that one execution takes together. They wait in a line that has, beside its other buckets, one whose
-- name begins with `#`: under it while they gather, in the ring once there are enough, or when the first has waited for so
-- long. Such a batch has one slot of each bucket, that of its first task; the others follow that one.
local M = {}

local MAX = 1000

-- Of a definition.
M.FIELDS = { batch_size = 'number', batch_wait_ms = 'number' }

-- What `running` has instead of a line for a task that follows another one.
M.FOLLOWS = '+'

-- Whether this is the name of a batch, or a bucket or line with one.
function M.is(name) return string.find(name, '#', 1, true) ~= nil end

-- Refuse what is no definition. `is_override`: what operators put over one.
function M.check(name, text, is_override)
  local function bad(what) errors.raise(errors.bad_argument('the definition of batch ' .. name .. what)) end
  local fields = object.decode(text, M.FIELDS, 'the definition of batch ' .. name)
  local size, wait_ms = fields.batch_size, fields.batch_wait_ms
  if size and not (size >= 1 and size <= MAX and size % 1 == 0) then
    bad(': batch_size must be a whole number from 1 to ' .. MAX)
  end
  if wait_ms and not (wait_ms >= 0 and wait_ms < 2 ^ 53 and wait_ms % 1 == 0) then
    bad(': batch_wait_ms must be a whole number >= 0')
  end
  if not (size and wait_ms or is_override and (size or wait_ms)) then bad(' needs batch_size and batch_wait_ms') end
  return fields
end

-- For how many batches a line that grew from `was` to `length` is worth waking workers: those that are full now, or what does
-- not wait.
function M.full(size, wait_ms, was, length)
  local full = math.floor(length / size) - math.floor(was / size)
  return full == 0 and was == 0 and wait_ms == 0 and 1 or full
end

return M
