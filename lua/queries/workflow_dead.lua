-- workflow_dead: dead letters of a workflow, also those of its maps, in no order.
-- args: id, limit int
-- reply: (id)…
return function(base, args)
  local reply = {}

  local function collect(id, name)
    local member_id = group.id_of(id, name)
    local record = task.read(base, member_id, { 'state', 'kind' })
    if record and record.state == 'failed' and not record.kind and #reply < args.limit then
      reply[#reply + 1] = member_id
    end
    return record and record.kind and member_id
  end

  local function collect_all(id)
    local names = #reply < args.limit and redis.pcall('SRANDMEMBER', keys.failed(base, id), args.limit) or {}
    for _, name in ipairs(errors.of(names) and {} or names) do collect(id, name) end
  end

  for _, name in ipairs(errors.read('LRANGE', keys.nodes(base, args.id), 0, -1)) do
    local inner = collect(args.id, name)
    if inner then collect_all(inner) end
  end
  return reply
end
