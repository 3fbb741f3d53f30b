-- results: a page of the results of a map's calls that have completed, in order.
-- args: map, offset int, limit int
-- reply: size, next_offset, (number, codec, value)…
-- What one page has at the most, in bytes.
local PAGE = 1048576

return function(base, args)
  local size = number.of(errors.read('HGET', keys.task(base, args.map), 'size'))
  if not size then return { '-1', '-1' } end
  local last, names = math.min(args.offset + args.limit, size) - 1, {}
  for index = args.offset, last do names[#names + 1] = clock.text(index) end
  local reply, bytes, next_offset = { clock.text(size), clock.text(size) }, 0, last + 1
  local found = #names > 0 and errors.read('HMGET', keys.results(base, args.map), unpack(names)) or {}
  for i, name in ipairs(names) do
    if bytes > PAGE then
      next_offset = args.offset + i - 1
      break
    end
    if found[i] then
      local codec, result = map.unpack(found[i])
      bytes = bytes + #result
      for _, value in ipairs({ name, codec, result }) do reply[#reply + 1] = value end
    end
  end
  reply[2] = clock.text(next_offset)
  return reply
end
