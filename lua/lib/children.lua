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

-- Whether a task has, or may have again, a use for their results.
function M.is_remembered(base, root)
  local name, id = M.of(root)
  return name and redis.pcall('HEXISTS', keys.steps(base, id), M.MEMO .. name) == 1
end

return M
