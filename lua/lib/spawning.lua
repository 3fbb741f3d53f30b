-- How an attempt begins children (children.lua), or comes upon those that an earlier one began.
local M = {}

local PARENT = { worker = 'string', id = 'string', token = 'string', name = 'string' }
local LONGEST_NAME = 100

-- The task that asks for children, by its attempt: its id, its record, its memo of them and the kind of that; nil: another attempt
-- has it.
function M.read(base, root_id, asked)
  local parent = object.check(asked, PARENT, 'parent')
  for field in pairs(PARENT) do
    if not parent[field] then waits.refuse('parent needs ' .. field) end
  end
  local id, name = parent.id, parent.name
  if #name > LONGEST_NAME or not string.find(name, '^[%w_.-]+$') then
    waits.refuse('the name of children must be 1 to ' .. LONGEST_NAME .. ' letters, digits or one of _ . -')
  end
  if root_id ~= children.id_of(id, name) then
    waits.refuse('children ' .. name .. ' of task ' .. id .. ' are the workflow ' .. children.id_of(id, name))
  end
  local record = waits.of_attempt(base, parent)
  if not record then return nil end
  local found = { id = id, name = name, record = record, memo = children.MEMO .. name }
  found.kind = waits.read(base, id, found.memo)
  if found.kind == 'step' then waits.refuse('children ' .. name .. ' of task ' .. id .. ' have the name of a step') end
  if not found.kind then waits.check_room(base, id, record, found.memo, 0) end
  errors.read('SCARD', keys.waiters(base, id))
  errors.read('HLEN', keys.signals(base, id))
  return found
end

-- The task waits for them.
function M.note(batch, parent)
  redis.call('HSET', keys.steps(batch.base, parent.id), parent.memo, memos.pack('until', '', ''))
  waits.note(batch.base, batch.now, parent.id, parent.record, 0)
end

-- What is there already: `accepted`, they go on; `kept`, they have ended, and the task knows as what; nil: they are to be created,
-- perhaps in the place of some that ended of which it knows nothing (more).
function M.look_up(base, root_id, parent)
  local root, err = task.read(base, root_id, { 'state', 'kind', 'parent', 'abort_requested' })
  if err then errors.raise({ err = err }) end
  if not root.state then return nil end
  if not root.kind or root.parent ~= children.parent(parent.id, parent.name) then
    waits.refuse('there is a ' .. (root.kind and 'workflow ' or 'task ') .. root_id .. ' already, which is not of task '
      .. parent.id .. ': give these children another name')
  end
  local batch = batches.open(base, clock.read())
  if root.state == 'blocked' then
    if parent.kind ~= 'until' then M.note(batch, parent) end
    return 'accepted'
  end
  if parent.kind == 'ended' then return 'kept' end
  if parent.kind == 'until' and not children.is_forsaken(root) then
    -- A damaged key has kept it from being told.
    root.id = root_id
    parents.tell(batch, root)
    return 'kept'
  end
  for _, name in ipairs(errors.read('LRANGE', keys.nodes(base, root_id), 0, -1)) do
    local id = group.id_of(root_id, name)
    local node = task.read(base, id, { 'state' })
    if not node or node.state and not task.is_finished(node.state) then
      waits.refuse('the task ' .. id .. ', of earlier children, has not ended')
    end
  end
end

return M
