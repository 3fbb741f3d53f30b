-- steps: what a task keeps from one attempt to the next: results of steps, and what its waits came to.
-- args: id, name
-- reply: (name, is_here, memo)…
-- What is told of all together, in bytes.
local PAGE = 1048576

return function(base, args)
  local key = keys.steps(base, args.id)
  if args.name ~= '' then
    local memo = errors.read('HGET', key, args.name)
    return memo and { args.name, '1', memo } or {}
  end
  local names, reply, bytes = errors.read('HKEYS', key), {}, 0
  table.sort(names)
  for _, name in ipairs(names) do
    local size, at = redis.call('HSTRLEN', key, name), #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = name, '0', ''
    if bytes + size <= PAGE then
      bytes, reply[at + 2], reply[at + 3] = bytes + size, '1', redis.call('HGET', key, name)
    end
  end
  return reply
end
