-- workflow_add: none, complete -> queued, limited, scheduled. A client, or a task, adds calls to the open map of a workflow; also after it is sealed, while some of it has not ended.
-- args: id, map, key; calls: (task, lane, args, kwargs, options)…
-- reply: answer, size
-- Everything is read and refused before the first write.

local CALL = { codec = 'string', headers = 'string', delay_ms = 'number', expire_ms = 'number', limits = 'table' }
-- Keys of pages that a map remembers.
local REMEMBERED = 100

local function read_options(rows)
  local options = {}
  for at = 5, #rows, 5 do
    local label = 'call ' .. at / 5
    options[at / 5] = rows[at] ~= '' and object.decode(rows[at], CALL, 'options of ' .. label) or {}
  end
  return options
end

local function read(base, rows, options)
  local found, known = {}, entering.known()
  for i = 1, #options do
    found[i] = entering.read(base, 'call ' .. i, rows, 5 * i - 4, options[i], known)
  end
  return found
end

-- A task that is no part of it may have the id of a call. What has ended makes room.
local function check_room(base, ids)
  local places = {}
  for i, id in ipairs(ids) do places[i] = keys.task(base, id) end
  if bulk.of_keys('EXISTS', places) == 0 then return end
  for i, id in ipairs(ids) do
    local state = errors.read('HGET', places[i], 'state')
    if state and not task.is_finished(state) then
      errors.raise(errors.bad_argument('there is a task ' .. id .. ' already, which is no part of this workflow'))
    end
  end
  errors.read('ZCARD', keys.dead(base))
  return true
end

return function(base, args)
  local id, options = group.id_of(args.id, args.map), read_options(args.calls)
  local record, err = task.read(base, id, { 'state', 'kind', 'size', 'is_open', 'added', 'abort_requested' })
  if err then return { err = err } end
  if not record.state then return { 'not_found', 0 } end
  if record.kind ~= 'map' or not record.is_open then
    errors.raise(errors.bad_argument(id .. ' is no open map: no calls can be added to it'))
  end
  local size, added, ids, lanes = number.of(record.size, 0), record.added or '', {}, {}
  if string.find(' ' .. added .. ' ', ' ' .. args.key .. ' ', 1, true) then return { 'accepted', size } end
  if record.state ~= 'blocked' or record.abort_requested then return { 'ended', size } end
  local found = read(base, args.calls, options)
  for i = 1, #found do ids[i] = group.id_of(id, clock.text(size + i - 1)) end
  local makes_room = check_room(base, ids)
  for _, key in ipairs({ 'scheduled', 'deadlines' }) do errors.read('ZCARD', keys[key](base)) end
  local batch = batches.open(base, clock.read())
  local own, root = group.read(batch, id), group.read(batch, args.id)
  err = group.damage(batch, own)
  if err then return { err = err } end

  local names = {}
  for i, node in ipairs(found) do
    if makes_room and redis.call('DEL', keys.task(base, ids[i])) == 1 then
      memos.drop(batch, ids[i])
      redis.call('ZREM', keys.dead(base), ids[i])
    end
    entering.write(batch, keys.task(base, ids[i]), node, '0')
    if not lanes[node.lane] then redis.call('SADD', keys.lanes(base), node.lane) end
    names[i], lanes[node.lane] = clock.text(size + i - 1), true
    move.begin(batch, ids[i], node)
  end
  local kept, count = {}, 0
  for key in string.gmatch(args.key .. ' ' .. added, '%S+') do
    count = count + 1
    if count <= REMEMBERED then kept[count] = key end
  end
  own.size, own.made = size + #found, size + #found
  local text = clock.text(own.size)
  redis.call('HSET', keys.task(base, id), 'size', text, 'made', text, 'added', table.concat(kept, ' '))
  bulk.write('SADD', keys.open(base, id), names)
  if root and root.open_map then
    redis.call('ZADD', keys.deadlines(base), clock.text(batch.now + group.UNFINISHED_MS), args.id)
  end
  calls.close(batch)
  return { 'added', own.size }
end
