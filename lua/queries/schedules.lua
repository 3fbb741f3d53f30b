-- schedules: what recurs, a page in the order of when it falls due.
return function(base, args)
  local first, limit = args.offset, args.limit
  if first < 0 or limit < 1 or limit > 1000 then
    errors.raise(errors.bad_argument('offset must not be negative, limit from 1 to 1000'))
  end
  local page = errors.read('ZRANGE', keys.schedule_due(base), first, first + limit - 1, 'WITHSCORES')
  local reply = { clock.now() }
  for i = 1, #page, 2 do
    local definition = errors.read('HGET', keys.schedules(base), page[i])
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = page[i], tonumber(page[i + 1]), definition or ''
  end
  return reply
end
