-- workflow_create: none, aborted -> blocked, queued, limited, scheduled, complete, away. A client creates a workflow: tasks, and maps of one function over many items, with the order they run in and the results they pass on. All of it, or nothing. Those that need no other begin.
-- args: id, options; nodes: (name, task, lane, args, kwargs, options)…
-- reply: `created`; `accepted` (this very call was already carried out); `exists` (one of this id has not ended), `building` (one of this id is being created by parts) or `kept` (one has ended, and is kept): nothing was added
-- Everything is read and refused before the first write, so a refused call leaves nothing behind.

local OPTIONS = { name = 'string', idempotency_key = 'string', result_ttl_ms = 'number', output = 'string',
  is_open = 'boolean', timeout_ms = 'number' }
local NODE = { codec = 'string', headers = 'string', delay_ms = 'number', expire_ms = 'number', limits = 'table',
  after = 'table', inputs = 'table', map = 'table', queue = 'string' }
local MAP = { size = 'number', max_concurrent = 'number', tolerate = 'number', keep_results = 'boolean',
  filled_by = 'string' }
local POLICIES = { fail = '', cancel = '?cancel', ignore = '?ignore', continue = '?continue', only = '?only' }
local LONGEST_NAME, LONGEST_ID, MOST_EDGES = 100, 512, 10000

local function bad(what) errors.raise(errors.bad_argument(what)) end

local function check_name(name)
  if name == '' or #name > LONGEST_NAME or not string.find(name, '^[%w_.-]+$') or string.find(name, '^%d+$') then
    bad('a node is called ' .. name .. ': its name must be 1 to ' .. LONGEST_NAME
      .. ' letters, digits or one of _ . -, and not all digits')
  end
end

-- A JSON array, as `what` of a node has to be; of an object there would be nothing in it.
local function check_list(node, value, what)
  for key in pairs(value or {}) do
    if type(key) ~= 'number' then bad(what .. ' of node ' .. node.name .. ' must be an array') end
  end
end

-- The edges that `after` names, noted at the nodes that they come from.
local function read_edges(node, after, by_name)
  local texts, seen = {}, {}
  check_list(node, after, 'after')
  for i, text in ipairs(after or {}) do
    local name, policy = string.match(type(text) == 'string' and text or '', '^([^?]*)%??(.*)$')
    local suffix = POLICIES[policy == '' and 'fail' or policy]
    local from = by_name[name or '']
    if not suffix then bad('node ' .. node.name .. ' has an edge with the unknown policy ' .. policy) end
    if not from then bad('node ' .. node.name .. ' comes after ' .. name .. ', which is no node before it') end
    if seen[name] then bad('node ' .. node.name .. ' comes after ' .. name .. ' twice') end
    seen[name], texts[i] = policy == '' and 'fail' or policy, name .. suffix
    from.followers[#from.followers + 1] = node.name .. suffix
  end
  node.needs, node.is_after = #texts, seen
  if #texts > 0 then node.add('after', table.concat(texts, ' ')) end
end

-- `inputs`, which name results of nodes that this one comes after.
local function read_inputs(node, inputs, by_name)
  check_list(node, inputs, 'inputs')
  if not inputs or #inputs == 0 then return end
  for _, input in ipairs(inputs) do
    local source = type(input) == 'table' and input[2]
    if type(input) ~= 'table' or type(input[1]) ~= 'string' or type(source) ~= 'string' and type(source) ~= 'table' then
      bad('an input of node ' .. node.name .. ' must be a parameter, as text, and where it comes from')
    end
    local is_map = type(source) == 'string' and string.sub(source, 1, 1) == '*'
    for _, name in ipairs(type(source) == 'table' and source or { is_map and string.sub(source, 2) or source }) do
      if not node.is_after[name] then
        bad('node ' .. node.name .. ' needs the result of ' .. tostring(name) .. ', which it does not come after')
      end
      if is_map ~= (by_name[name].map ~= nil) then
        bad('node ' .. node.name .. ' needs the ' .. (is_map and 'results of ' .. name .. ', which is no map'
          or 'result of ' .. name .. ', which is a map'))
      end
    end
  end
  node.add('inputs', cjson.encode(inputs))
end

-- The items of a map, one after the other: `<length>:<bytes>,`.
local function read_items(node, text)
  local items, at = {}, 1
  while at <= #text do
    local length, from = string.match(text, '^(%d+):()', at)
    local to = length and from + tonumber(length)
    if not to or string.sub(text, to, to) ~= ',' then bad('the items of map ' .. node.name .. ' cannot be read') end
    items[#items + 1], at = string.sub(text, from, to - 1), to + 1
  end
  return items
end

local function read_map(node, options, args)
  local asked = object.check(options.map, MAP, 'map ' .. node.name)
  if options.queue then bad('map ' .. node.name .. ' must be in the queue of its workflow') end
  if options.delay_ms or options.expire_ms or options.inputs then
    bad('map ' .. node.name .. ' may have no delay, expiry or inputs: its calls have none')
  end
  local items = read_items(node, args)
  if asked.size ~= #items then bad('map ' .. node.name .. ' says it has another number of items than it has') end
  local filled_by = asked.filled_by
  if filled_by and (node.is_after[filled_by] ~= 'fail' or #items > 0) then
    bad('map ' .. node.name .. ' is filled by ' .. filled_by .. ': it must come after that, and have no items yet')
  end
  node.add('filled_by', filled_by)
  for name, value in pairs({ max_concurrent = asked.max_concurrent or 0, tolerate = asked.tolerate or 0 }) do
    local is_part = name == 'tolerate' and filled_by and value < 1
    if not (value >= 0 and value < 2 ^ 53 and (value % 1 == 0 or is_part)) then
      bad(name .. ' of map ' .. node.name .. ' must be a whole number >= 0')
    end
    node.add(name, value > 0 and number.text(value))
  end
  node.map, node.items = asked, items
  node.add('keep_results', asked.keep_results == false and '0')
end

-- A node of the call, checked.
local function read_node(base, nodes, at, by_name, declared)
  local name, lane_name = nodes[at], nodes[at + 2]
  check_name(name)
  if by_name[name] then bad('two nodes are called ' .. name) end
  if nodes[at + 1] == '' or lane_name == '' then bad('node ' .. name .. ' needs a task and a lane') end
  local options = nodes[at + 5] ~= '' and object.decode(nodes[at + 5], NODE, 'options of node ' .. name) or {}
  local node = { name = name, task = nodes[at + 1], lane = lane_name, fields = {}, followers = {} }
  function node.add(field, value)
    local fields = node.fields
    if value and value ~= '' then fields[#fields + 1], fields[#fields + 2] = field, value end
  end
  read_edges(node, options.after, by_name)
  read_inputs(node, options.inputs, by_name)
  node.add('kwargs', nodes[at + 4])
  node.add('codec', options.codec)
  node.add('headers', options.headers)
  for _, field in ipairs({ 'delay_ms', 'expire_ms' }) do
    if options[field] then
      local ms = options[field]
      if not (ms >= 0 and ms < 2 ^ 53) then bad(field .. ' of node ' .. name .. ' is no time') end
      node.add(field, ms > 0 and clock.text(ms))
    end
  end
  local asked = uses.read(options.limits)
  if options.queue then
    if options.queue == '' or options.queue == keys.queue(base) then
      bad('node ' .. name .. ' needs the name of another queue than its own')
    end
    node.queue = options.queue
    node.add('queue', options.queue)
    node.add('limits', asked and cjson.encode(options.limits))
  elseif asked then
    local refusal = uses.refusal(base, asked, declared)
    if refusal then errors.raise(refusal) end
    local err = line.damage(base, lane_name, asked.line)
    if err then errors.raise(err) end
    node.add('buckets', asked.line)
    node.add('weight', asked.weight)
  end
  if options.map then read_map(node, options, nodes[at + 3]) else node.args = nodes[at + 3] end
  if not node.queue then lane.check(base, lane_name) end
  by_name[name] = node
  return node
end

local function read(base, args)
  local nodes, by_name, declared, found, edges = args.nodes, {}, {}, {}, 0
  if #nodes == 0 then bad('a workflow needs a node') end
  for at = 1, #nodes, 6 do
    found[#found + 1] = read_node(base, nodes, at, by_name, declared)
    edges = edges + found[#found].needs
  end
  if edges > MOST_EDGES then bad('a workflow may have ' .. MOST_EDGES .. ' edges, not ' .. edges) end
  return found, by_name
end

-- What is there under these ids already: an answer, or nil.
local function look_up(base, id, idempotency_key, nodes)
  local record, err = task.read(base, id, { 'state', 'idempotency_key', 'building', 'kind' })
  if err then errors.raise({ err = err }) end
  if record.state and not record.kind then bad('there is a task ' .. id .. ' already, which is no workflow') end
  if record.state then
    if record.idempotency_key and record.idempotency_key == idempotency_key then return 'accepted' end
    if record.building and record.state == 'blocked' then return 'building' end
    -- One that was never complete makes room once it is aborted.
    if not (record.building and task.is_finished(record.state)) then
      return task.is_finished(record.state) and 'kept' or 'exists'
    end
    errors.read('LLEN', keys.nodes(base, id))
  end
  local places = {}
  for i, node in ipairs(nodes) do places[i] = keys.task(base, group.id_of(id, node.name)) end
  if bulk.of_keys('EXISTS', places) == 0 then return nil end
  for i, node in ipairs(nodes) do
    -- What is left of an earlier workflow may go, if it has ended.
    node.makes_room = redis.call('EXISTS', places[i]) == 1
    local left = node.makes_room and errors.read('HMGET', places[i], 'state', 'needs')
    if left and (not left[2] or left[1] ~= 'blocked' and not task.is_finished(left[1])) then
      bad('there is a task ' .. group.id_of(id, node.name) .. ' already, which is '
        .. (left[2] and 'of an earlier workflow and has not ended' or 'no part of a workflow'))
    end
    if left and left[1] == 'failed' then errors.read('ZCARD', keys.dead(base)) end
  end
end

-- What is left of an earlier workflow of that id, of which nothing is open.
local function remove_rest(base, id)
  if redis.call('EXISTS', keys.task(base, id)) == 1 then
    for _, name in ipairs(redis.call('LRANGE', keys.nodes(base, id), 0, -1)) do
      redis.call('DEL', keys.task(base, group.id_of(id, name)), keys.failed(base, group.id_of(id, name)))
    end
  end
  redis.call('DEL', keys.task(base, id), keys.open(base, id), keys.nodes(base, id), keys.failed(base, id))
end

local function write_node(batch, id, node, result_ttl_ms)
  local base, key, fields = batch.base, keys.task(batch.base, id), node.fields
  if #node.followers > 0 then node.add('then', table.concat(node.followers, ' ')) end
  if node.makes_room then
    redis.call('DEL', key)
    memos.drop(base, id)
    redis.pcall('ZREM', keys.dead(base), id)
  end
  if node.map then
    redis.call('DEL', keys.open(base, id), keys.items(base, id), keys.results(base, id), keys.failed(base, id))
    redis.call('HSET', key, 'state', 'blocked', 'kind', 'map', 'name', node.task, 'lane', node.lane, 'enqueued_at',
      batch.now_text, 'needs', clock.text(node.needs), 'size', clock.text(#node.items), 'result_ttl_ms', result_ttl_ms,
      unpack(fields))
    bulk.write('RPUSH', keys.items(base, id), node.items)
  else
    local args = node.args ~= '' and node.args or '[]'
    redis.call('HSET', key, 'state', 'blocked', 'name', node.task, 'args', args, 'lane', node.lane, 'enqueued_at',
      batch.now_text, 'tries', '0', 'needs_version', task.VERSION_TEXT, 'needs', clock.text(node.needs), unpack(fields))
    batches.count(batch, 'enqueued')
  end
end

return function(base, args)
  local id, options = args.id, object.decode(args.options, OPTIONS, 'options')
  if id == '' or #id > LONGEST_ID or string.find(id, '~', 1, true) then
    bad('the id of a workflow must be 1 to ' .. LONGEST_ID .. ' bytes without ~')
  end
  if not options.result_ttl_ms then bad('options need result_ttl_ms') end
  if options.timeout_ms and not (options.timeout_ms >= 1 and options.timeout_ms < 2 ^ 53) then
    bad('timeout_ms must be at least 1')
  end
  local nodes, by_name = read(base, args)
  if options.output and not by_name[options.output] then bad('output ' .. options.output .. ' is no node') end
  errors.read('ZCARD', keys.workflows(base))
  errors.read('ZCARD', keys.deadlines(base))
  errors.read('LLEN', keys.chores(base))
  errors.read('LLEN', keys.outbox(base))
  errors.read('ZCARD', keys.scheduled(base))
  local answer = look_up(base, id, options.idempotency_key, nodes)
  if answer then return answer end

  local batch = batches.open(base, clock.read())
  local result_ttl_ms, names = clock.text(options.result_ttl_ms), {}
  remove_rest(base, id)
  local timeout_ms = options.timeout_ms and clock.text(options.timeout_ms)
  local fields = options.is_open and { 'building', '1' } or {}
  if timeout_ms then fields[#fields + 1], fields[#fields + 2] = 'timeout_ms', timeout_ms end
  for _, field in ipairs({ 'name', 'idempotency_key', 'output' }) do
    local value = options[field]
    if value and value ~= '' then fields[#fields + 1], fields[#fields + 2] = field, value end
  end
  redis.call('HSET', keys.task(base, id), 'state', 'blocked', 'kind', 'workflow', 'enqueued_at', batch.now_text,
    'result_ttl_ms', result_ttl_ms, 'tasks', clock.text(#nodes), unpack(fields))
  redis.call('ZADD', keys.workflows(base), batch.now_text, id)
  local lanes, first = {}, {}
  for i, node in ipairs(nodes) do
    names[i] = node.name
    if node.needs == 0 then first[#first + 1] = node.name end
    -- A later workflow of this id is told from it.
    if node.queue then node.add('life', '0' .. (options.idempotency_key and ' ' .. options.idempotency_key or '')) end
    write_node(batch, group.id_of(id, node.name), node, result_ttl_ms)
    if not (node.queue or lanes[node.lane]) then
      redis.call('SADD', keys.lanes(base), node.lane)
      lanes[node.lane] = true
    end
  end
  bulk.write('RPUSH', keys.nodes(base, id), names)
  bulk.write('SADD', keys.open(base, id), names)
  if options.is_open then
    redis.call('ZADD', keys.deadlines(base), clock.text(batch.now + group.UNFINISHED_MS), id)
  else
    if timeout_ms then redis.call('ZADD', keys.deadlines(base), clock.text(batch.now + options.timeout_ms), id) end
    edges.start(batch, id, first)
  end
  calls.close(batch)
  return 'created'
end
