-- results: a page of the results of a map's calls, or of a workflow's nodes, that have completed, in order.
-- args: map, offset int, limit int
-- reply: size, next_offset, (number, codec, value)…
-- What one page has at the most, in bytes.
local PAGE = 1048576

-- What reads the result of a node of a workflow by its index: codec and result, or nil; and how many nodes there are.
local function of_nodes(base, id)
  local names = errors.read('LRANGE', keys.nodes(base, id), 0, -1)
  return function(index)
    local record = task.read(base, group.id_of(id, names[index + 1]), { 'state', 'result_codec', 'result' })
    if record and record.state == 'complete' then return record.result_codec or '', record.result or 'null' end
  end, #names
end

-- The same of the calls of a map, for those from `first` to `last`.
local function of_calls(base, id, first, last)
  local names = {}
  for index = first, last do names[#names + 1] = clock.text(index) end
  local found = #names > 0 and errors.read('HMGET', keys.results(base, id), unpack(names)) or {}
  return function(index)
    local text = found[index - first + 1]
    if text then return map.unpack(text) end
  end
end

return function(base, args)
  local id, kind, size, result = args.map, unpack(errors.read('HMGET', keys.task(base, args.map), 'kind', 'size'))
  size = number.of(size)
  if kind == 'workflow' then result, size = of_nodes(base, id) end
  if not size then return { '-1', '-1' } end
  local last = math.min(args.offset + args.limit, size) - 1
  result = result or of_calls(base, id, args.offset, last)
  local reply, bytes, next_offset = { clock.text(size), clock.text(size) }, 0, last + 1
  for index = args.offset, last do
    if bytes > PAGE then
      next_offset = index
      break
    end
    local codec, value = result(index)
    if codec then
      bytes = bytes + #value
      for _, part in ipairs({ clock.text(index), codec, value }) do reply[#reply + 1] = part end
    end
  end
  reply[2] = clock.text(next_offset)
  return reply
end
