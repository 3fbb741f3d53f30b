-- workflow_create: none, aborted, complete, failed, running -> blocked, queued, limited, scheduled, complete, away, running. A client creates a workflow: tasks, and maps of one function over many items, with the order they run in and the results they pass on. All of it, or nothing. Those that need no other begin.
-- args: id, options; nodes: (name, task, lane, args, kwargs, options)…
-- reply: `created`; `accepted` (this very call was already carried out; with a parent, an attempt of that has created it, and it goes on); `exists` (one of this id has not ended), `building` (one of this id is being created by parts) or `kept` (one has ended, and is kept): nothing was added; `stale` (another attempt has the parent now, nothing changed)
-- Everything is read and refused before the first write, so a refused call leaves nothing behind.

local OPTIONS = { name = 'string', idempotency_key = 'string', result_ttl_ms = 'number', output = 'string',
  is_open = 'boolean', timeout_ms = 'number', tolerate = 'number', parent = 'table' }
local NODE = { codec = 'string', headers = 'string', delay_ms = 'number', expire_ms = 'number', limits = 'table',
  after = 'table', inputs = 'table', map = 'table', queue = 'string' }
local MAP = { size = 'number', max_concurrent = 'number', tolerate = 'number', keep_results = 'boolean',
  filled_by = 'string', is_open = 'boolean' }
local POLICIES = { fail = '', cancel = '?cancel', ignore = '?ignore', continue = '?continue', only = '?only',
  undo = '?undo' }
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
    if from.undoes then bad('node ' .. node.name .. ' comes after ' .. name .. ', which is a compensation') end
    if suffix == '?undo' then
      if #after > 1 then bad('node ' .. node.name .. ' is a compensation, and comes after others, too') end
      if from.undo then bad('node ' .. name .. ' has two compensations, ' .. from.undo .. ' and ' .. node.name) end
      from.undo, node.undoes = node.name, from
    end
    if seen[name] then bad('node ' .. node.name .. ' comes after ' .. name .. ' twice') end
    seen[name], texts[i] = policy == '' and 'fail' or policy, name .. suffix
    from.followers[#from.followers + 1] = node.name .. suffix
  end
  -- When it is its turn, what the one that it undoes came after has ended, too.
  if node.undoes then
    for name in pairs(node.undoes.is_after) do seen[name] = true end
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
  if asked.is_open and (node.needs > 0 or #items > 0) then
    bad('map ' .. node.name .. ' is open: it comes after nothing, and its calls are added')
  end
  node.add('filled_by', filled_by)
  node.add('is_open', asked.is_open and '1')
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
local function read_node(base, rows, at, by_name, known)
  local name = rows[at]
  check_name(name)
  if by_name[name] then bad('two nodes are called ' .. name) end
  local options = rows[at + 5] ~= '' and object.decode(rows[at + 5], NODE, 'options of node ' .. name) or {}
  local node = entering.read(base, 'node ' .. name, rows, at + 1, options, known)
  node.name, node.followers = name, {}
  read_edges(node, options.after, by_name)
  read_inputs(node, options.inputs, by_name)
  if node.undoes and (options.map or options.expire_ms) then
    bad('compensation ' .. name .. ' may be no map, and may not expire')
  end
  if options.map then read_map(node, options, node.args) end
  by_name[name] = node
  return node
end

local function read(base, args)
  local rows, by_name, known, found, count, open_map = args.nodes, {}, entering.known(), {}, 0, nil
  if #rows == 0 then bad('a workflow needs a node') end
  for at = 1, #rows, 6 do
    found[#found + 1] = read_node(base, rows, at, by_name, known)
    count = count + found[#found].needs
    local asked = found[#found].map
    if asked and asked.is_open and open_map then bad('a workflow may have one open map') end
    open_map = asked and asked.is_open and found[#found].name or open_map
  end
  if count > MOST_EDGES then bad('a workflow may have ' .. MOST_EDGES .. ' edges, not ' .. count) end
  return found, by_name, open_map
end

-- What is there under its id already: an answer, or nil.
local function look_up(base, id, idempotency_key)
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
end

-- Refuse it where something is in the place of a node that does not make room.
local function check_places(base, id, found)
  local places = {}
  for i, node in ipairs(found) do
    node.key = keys.task(base, group.id_of(id, node.name))
    places[i] = node.key
  end
  if bulk.of_keys('EXISTS', places) == 0 then return end
  for i, node in ipairs(found) do
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
local function remove_rest(batch, id)
  local base = batch.base
  if redis.call('EXISTS', keys.task(base, id)) == 1 then
    for _, name in ipairs(redis.call('LRANGE', keys.nodes(base, id), 0, -1)) do
      local node = group.id_of(id, name)
      redis.call('DEL', keys.task(base, node), keys.failed(base, node))
      memos.drop(batch, node)
      redis.pcall('ZREM', keys.dead(base), node)
    end
  end
  redis.call('DEL', keys.task(base, id), keys.open(base, id), keys.nodes(base, id), keys.failed(base, id),
    keys.undo(base, id))
end

local function write_node(batch, id, node, result_ttl_ms)
  local base, key, fields = batch.base, node.key, node.fields
  if #node.followers > 0 then node.add('then', table.concat(node.followers, ' ')) end
  if node.makes_room then
    redis.call('DEL', key)
    memos.drop(batch, id)
    redis.pcall('ZREM', keys.dead(base), id)
  end
  if node.map then
    redis.call('DEL', keys.open(base, id), keys.items(base, id), keys.results(base, id), keys.failed(base, id))
    redis.call('HSET', key, 'state', 'blocked', 'kind', 'map', 'name', node.task, 'lane', node.lane, 'enqueued_at',
      batch.now_text, 'needs', clock.text(node.needs), 'size', clock.text(#node.items), 'result_ttl_ms', result_ttl_ms,
      unpack(fields))
    bulk.write('RPUSH', keys.items(base, id), node.items)
  else
    entering.write(batch, key, node, clock.text(node.needs))
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
  if options.tolerate and not (options.tolerate >= 0 and options.tolerate % 1 == 0) then
    bad('tolerate must be a whole number >= 0')
  end
  local parent = options.parent and spawning.read(base, id, options.parent)
  if options.parent and not parent then return 'stale' end
  local found, by_name, open_map = read(base, args)
  if parent and (open_map or options.is_open) then bad('children of a task are created as a whole') end
  if open_map and (options.is_open or options.timeout_ms) then
    bad('a workflow with an open map is neither created by parts nor has it a time limit')
  end
  local output = options.output and by_name[options.output]
  if options.output and (not output or output.undoes) then bad('output ' .. options.output .. ' is no node') end
  errors.read('ZCARD', keys.workflows(base))
  errors.read('ZCARD', keys.deadlines(base))
  errors.read('LLEN', keys.chores(base))
  errors.read('LLEN', keys.outbox(base))
  errors.read('ZCARD', keys.scheduled(base))
  local answer
  if parent then
    answer = spawning.look_up(base, id, parent)
  else
    answer = look_up(base, id, options.idempotency_key)
  end
  if answer then return answer end
  check_places(base, id, found)

  local batch = batches.open(base, clock.read())
  local result_ttl_ms, names = clock.text(options.result_ttl_ms), {}
  remove_rest(batch, id)
  local timeout_ms = options.timeout_ms and clock.text(options.timeout_ms)
  local fields = options.is_open and { 'building', '1' } or open_map and { 'open_map', open_map } or {}
  if timeout_ms then fields[#fields + 1], fields[#fields + 2] = 'timeout_ms', timeout_ms end
  for _, field in ipairs({ 'name', 'idempotency_key', 'output' }) do
    local value = options[field]
    if value and value ~= '' then fields[#fields + 1], fields[#fields + 2] = field, value end
  end
  if parent then
    fields[#fields + 1], fields[#fields + 2] = 'parent', children.parent(parent.id, parent.name)
    spawning.note(batch, parent)
  end
  if (options.tolerate or 0) > 0 then
    fields[#fields + 1], fields[#fields + 2] = 'tolerate', clock.text(options.tolerate)
  end
  local open = {}
  for _, node in ipairs(found) do
    if not node.undoes then open[#open + 1] = node.name end
  end
  if #open < #found then fields[#fields + 1], fields[#fields + 2] = 'undoing', '0' end
  redis.call('HSET', keys.task(base, id), 'state', 'blocked', 'kind', 'workflow', 'enqueued_at', batch.now_text,
    'result_ttl_ms', result_ttl_ms, 'tasks', clock.text(#open), unpack(fields))
  redis.call('ZADD', keys.workflows(base), batch.now_text, id)
  local lanes, first = {}, {}
  for i, node in ipairs(found) do
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
  bulk.write('SADD', keys.open(base, id), open)
  if options.is_open or open_map then
    redis.call('ZADD', keys.deadlines(base), clock.text(batch.now + group.UNFINISHED_MS), id)
  end
  if not options.is_open then
    if timeout_ms then redis.call('ZADD', keys.deadlines(base), clock.text(batch.now + options.timeout_ms), id) end
    edges.start(batch, id, first)
  end
  calls.close(batch)
  return 'created'
end
