-- Calls as clients add them to workflows: what of one is refused, and what else its record has.
local M = {}

local function bad(what) errors.raise(errors.bad_argument(what)) end

-- A call, checked: its `task`, `lane` and `args`, and `fields` of its record, to which `add` adds. `label`: what it is for people;
-- `declared`: limits that were looked up already.
function M.read(base, label, row, options, declared)
  local name, lane_name = row.task, row.lane
  if name == '' or lane_name == '' then bad(label .. ' needs a task and a lane') end
  local node = { task = name, lane = lane_name, args = row.args, fields = {} }
  function node.add(field, value)
    local fields = node.fields
    if value and value ~= '' then fields[#fields + 1], fields[#fields + 2] = field, value end
  end
  node.add('kwargs', row.kwargs)
  node.add('codec', options.codec)
  node.add('headers', options.headers)
  for _, field in ipairs({ 'delay_ms', 'expire_ms' }) do
    if options[field] then
      local ms = options[field]
      if not (ms >= 0 and ms < 2 ^ 53) then bad(field .. ' of ' .. label .. ' is no time') end
      node.add(field, ms > 0 and clock.text(ms))
      node[field] = ms > 0 and ms or nil
    end
  end
  local asked = uses.read(options.limits)
  if options.queue then
    -- Its limits and its lane are there.
    if options.queue == '' or options.queue == keys.queue(base) then
      bad(label .. ' needs the name of another queue than its own')
    end
    node.queue = options.queue
    node.add('queue', options.queue)
    node.add('limits', asked and cjson.encode(options.limits))
    return node
  end
  if asked then
    local refusal = uses.refusal(base, asked, declared)
    if refusal then errors.raise(refusal) end
    local err = line.damage(base, lane_name, asked.line)
    if err then errors.raise(err) end
    node.add('buckets', asked.line)
    node.add('weight', asked.weight)
    node.buckets = asked.line
  end
  lane.check(base, lane_name)
  return node
end

-- The record of a call that waits for `needs` others.
function M.write(batch, id, node, needs)
  local args = node.args ~= '' and node.args or '[]'
  redis.call('HSET', keys.task(batch.base, id), 'state', 'blocked', 'name', node.task, 'args', args, 'lane', node.lane,
    'enqueued_at', batch.now_text, 'tries', '0', 'needs_version', task.VERSION_TEXT, 'needs', needs,
    unpack(node.fields))
  batches.count(batch, 'enqueued')
end

return M
