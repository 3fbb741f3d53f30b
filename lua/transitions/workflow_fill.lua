-- workflow_fill: a task of a workflow adds a page of calls to the map that comes after it, which begins when the task has completed.
-- args: worker, id, token, map, offset int; items: (codec, args)…
-- reply: answer, size
return function(base, args)
  local group_id, name = group.split(args.id)
  if not group_id then errors.raise(errors.bad_argument(args.id .. ' is part of no workflow')) end
  local id = group.id_of(group_id, args.map)
  local record, err = task.read(base, id, { 'state', 'needs', 'size', 'filled_by' })
  if err then return { err = err } end
  if not record.state then return { 'not_found', 0 } end
  if record.filled_by ~= name then errors.raise(errors.bad_argument('map ' .. id .. ' is not filled by ' .. name)) end
  local size, count = number.of(record.size, 0), #args.items / 2
  if member.token(errors.read('HGET', keys.running(base, args.worker), args.id)) ~= args.token then
    return { 'stale', size }
  end
  if args.offset + count <= size then return { 'accepted', size } end
  -- One that is skipped may be needed after all.
  local waits = (record.state == 'blocked' or record.state == 'skipped') and number.of(record.needs, 0) > 0
  if not waits then return { 'ended', size } end
  return map.extend(base, id, args.offset, size, args.items)
end
