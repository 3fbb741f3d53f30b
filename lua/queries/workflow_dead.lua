-- workflow_dead: dead letters of a workflow, also those of its maps, in no order.
-- args: id, limit int
-- reply: (id)…
-- Calls of maps that one page looks at.
local MOST = 10000

return function(base, args)
  local reply, looked = {}, 0
  local is_undoing = group.is_undoing({ undoing = errors.read('HGET', keys.task(base, args.id), 'undoing') })

  local function collect(id, name)
    local member_id = group.id_of(id, name)
    local record = task.read(base, member_id, { 'state', 'kind', 'after' })
    local goes_on = record and (not is_undoing or group.is_compensation(record))
    if goes_on and record.state == 'failed' and not record.kind and #reply < args.limit then
      reply[#reply + 1] = member_id
    end
    return goes_on and record.kind and member_id
  end

  local function collect_all(id)
    local cursor = '0'
    repeat
      local page = redis.pcall('SSCAN', keys.failed(base, id), cursor, 'COUNT', 1000)
      if errors.of(page) then return end
      for _, name in ipairs(page[2]) do collect(id, name) end
      cursor, looked = page[1], looked + #page[2]
    until cursor == '0' or #reply >= args.limit or looked >= MOST
  end

  for _, name in ipairs(errors.read('LRANGE', keys.nodes(base, args.id), 0, -1)) do
    local inner = collect(args.id, name)
    if inner then collect_all(inner) end
  end
  return reply
end
