-- What must not start, and which pause a task falls under.
local M = {}

-- In place of a task's name: any.
M.ANY = '*'
-- The field `paused` of `meta` says what there is, so that a claim need not look where nothing is paused.
M.QUEUE, M.TASKS = 'queue', 'tasks'
-- In place of a pause: where a task is held whose `needs_version` says that only a later version can claim it, by the one that
-- came upon it.
M.NEWER = 'newer'

-- The id of a workflow's pause. No other one looks like it: theirs end with `)`.
function M.of_workflow(workflow_id) return workflow_id .. '~*' end

-- The definition under an id, or nil.
function M.read(base, id)
  local text = errors.read('HGET', keys.pauses(base), id)
  local ok, rule = pcall(cjson.decode, text or '')
  return ok and type(rule) == 'table' and rule or nil
end

-- With a workflow its pause ends. What that holds all the same, which runs to no effect, heartbeats give back.
function M.end_of_workflow(base, workflow_id)
  local id = M.of_workflow(workflow_id)
  if redis.pcall('HEXISTS', keys.pauses(base), id) ~= 1 then return end
  local rule = M.read(base, id) or {}
  rule.workflow, rule.resuming = workflow_id, true
  redis.call('HSET', keys.pauses(base), id, cjson.encode(rule))
end

-- What a claim must know of the pauses, where the flag in `meta` says that there are any. Those by argument come as
-- shapes: its name or position, where tasks take it by position, and ids of the pauses by value. `workflows`: ids of the
-- pauses by workflow, where there are any.
function M.load(base, flag)
  if not flag then return nil end
  if flag == M.QUEUE then return { whole = true } end
  local rules, known, canonical = { names = {}, shapes = {} }, {}, nil

  local function add(id, text)
    local rule = cjson.decode(text)
    if rule.resuming then return end
    if rule.workflow then
      rules.workflows = rules.workflows or {}
      rules.workflows[rule.workflow] = id
      return
    end
    local name, argument = rule.task or M.ANY, rule.argument
    if not argument then
      rules.names[name] = id
      return
    end
    if not canonical then rules.find, canonical = payload.reader() end
    local shape = known[name .. '(' .. argument]
    if not shape then
      local position = tonumber(argument)
      shape = { position = position, name = not position and argument or nil, positions = {}, ids = {} }
      known[name .. '(' .. argument] = shape
      batches.push(rules.shapes, name, shape)
    end
    shape.ids[canonical(rule.value)] = id
    for task_name, position in pairs(rule.positions or {}) do shape.positions[task_name] = position end
  end

  local entries = errors.read('HGETALL', keys.pauses(base))
  for i = 1, #entries, 2 do
    -- One that somebody wrote by hand and that makes no sense is passed over.
    pcall(add, entries[i], entries[i + 1])
  end
  return rules
end

-- The id of the pause that a task falls under, or nil; and whether its arguments could not be read to say so.
function M.match(rules, name, args, kwargs, codec)
  if rules.names[name] then return rules.names[name] end
  local unreadable = false
  for _, of in ipairs({ name, M.ANY }) do
    for _, shape in ipairs(rules.shapes[of] or {}) do
      local position = shape.position or shape.positions[name]
      local ok, value = rules.find(args, kwargs, codec, position, shape.name)
      if not ok then unreadable = true end
      if ok and value and shape.ids[value] then return shape.ids[value] end
    end
  end
  return nil, unreadable
end

return M
