-- Children of a task: a workflow that an attempt of it began, and that it waits for. Its record says whose it is (`parent`: name and
-- task); the task has a memo of it, `children:<name>`: `until` while they go on, then `ended` and what the workflow ended as.
local M = {}

M.MEMO = 'children:'
-- Why they are aborted whose task has ended.
M.FORSAKEN = 'parent'

function M.id_of(id, name) return (string.gsub(id, '~', '.')) .. '.' .. name end

-- The name of the children that a memo is of; nil: it is of something else.
function M.named(memo) return string.match(memo, '^' .. M.MEMO .. '(%S+)$') end

-- What a record has as its `parent`.
function M.parent(id, name) return name .. ' ' .. id end

-- The name of children, and their task; nil: it has none.
function M.of(root) return string.match(root.parent or '', '^(%S+) (.+)$') end

function M.is_forsaken(root) return root.abort_requested == M.FORSAKEN end

-- For how long (ms) their task has, or may have again, a use for their results; nil: it has none.
function M.remembered_ms(base, root)
  local name, id = M.of(root)
  if not name or redis.pcall('HEXISTS', keys.steps(base, id), M.MEMO .. name) ~= 1 then return nil end
  local left_ms = redis.call('PTTL', keys.steps(base, id))
  return left_ms < 0 and memos.LONGEST_MS or left_ms
end

-- The records of all children of a task, of which it has memos.
function M.roots(batch, id)
  local found, names = {}, redis.pcall('HKEYS', keys.steps(batch.base, id))
  for _, memo in ipairs(errors.of(names) and {} or names) do
    local name = M.named(memo)
    local root = name and group.read(batch, M.id_of(id, name))
    if root and root.parent == M.parent(id, name) then found[#found + 1] = root end
  end
  return found
end

-- They have ended, and are kept for another time from now on.
function M.release(batch, root)
  batches.push(batch, 'swept', root)
  batch.members = batch.members or {}
end

-- What a task keeps is kept for another time from now on, and with it those of its children that have ended.
function M.keep(batch, id)
  for _, root in ipairs(M.roots(batch, id)) do
    if root.state ~= 'blocked' then M.release(batch, root) end
  end
end

return M
