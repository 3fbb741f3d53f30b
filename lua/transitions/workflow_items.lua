-- workflow_items: a client adds a page of calls to a map of a workflow that it creates by parts.
-- args: id, map, offset int; items: (codec, args)…
-- reply: answer, size
return function(base, args)
  local id, items = group.id_of(args.id, args.map), args.items
  local root, err = task.read(base, args.id, { 'state', 'building' })
  if err then return { err = err } end
  if not root.state then return { 'not_found', 0 } end
  local size = number.of(errors.read('HGET', keys.task(base, id), 'size'))
  if not size then errors.raise(errors.bad_argument('workflow ' .. args.id .. ' has no map ' .. args.map)) end
  local count = #items / 2
  if args.offset + count <= size then return { 'accepted', size } end
  if root.state ~= 'blocked' or not root.building then return { 'started', size } end
  errors.read('ZCARD', keys.deadlines(base))
  local reply = map.extend(base, id, args.offset, size, items)
  redis.call('ZADD', keys.deadlines(base), clock.text(clock.now() + group.UNFINISHED_MS), args.id)
  return reply
end
