-- claims: a page of what a worker has claimed, the oldest claim first.
-- args: worker, offset int, limit int
-- reply: now, (id, name, lane, tries, started_at, progress)…
local FIELDS = { 'name', 'lane', 'tries', 'started_at', 'progress' }

return function(base, args)
  local first, limit = args.offset, args.limit
  local claims, reply = member.claims(base, args.worker), { clock.now() }
  for i = first + 1, math.min(first + limit, #claims) do
    local record = task.read(base, claims[i].id, FIELDS) or {}
    reply[#reply + 1] = claims[i].id
    for _, field in ipairs(FIELDS) do reply[#reply + 1] = record[field] or '' end
  end
  return reply
end
