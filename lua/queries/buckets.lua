-- buckets: the buckets that are in use: of which attempts run, or under which lines wait.
-- args: name, cursor, limit int
-- reply: cursor, (bucket, running, blocked, opens_at)…
-- First those of which some run, then, from a cursor `w:0` on, those of which none does.
return function(base, args)
  local section, cursor = string.match(args.cursor, '^([w]?):?(%d+)$')
  if not cursor then errors.raise(errors.bad_argument('cursor must be what the last page returned')) end
  local is_waiting, reply = section == 'w', { '' }
  local key = is_waiting and keys.blocked_lanes(base) or keys.busy(base)
  local page = errors.read('HSCAN', key, cursor, 'COUNT', args.limit)
  for i = 1, #page[2], 2 do
    local bucket = page[2][i]
    if (args.name == '' or limits.name(bucket) == args.name)
      and not (is_waiting and errors.read('HEXISTS', keys.busy(base), bucket) == 1) then
      local at = #reply
      reply[at + 1] = bucket
      reply[at + 2], reply[at + 3], reply[at + 4] = limits.figures(base, bucket)
    end
  end
  reply[1] = is_waiting and (page[1] == '0' and '0' or 'w:' .. page[1]) or page[1] == '0' and 'w:0' or page[1]
  return reply
end
