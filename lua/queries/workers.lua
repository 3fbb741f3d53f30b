-- workers: a page of the queue's workers, unordered. One that is there throughout is on at least one page.
-- args: cursor, limit int
-- reply: cursor, now, alive, (worker, lease_until, claimed, joined_at, abandoned_threads, stalled_since, info, lanes)…
local FIELDS = { 'joined_at', 'abandoned_threads', 'stalled_since', 'info', 'lanes' }

return function(base, args)
  if not string.find(args.cursor, '^%d+$') then errors.raise(errors.bad_argument('cursor must be a number')) end
  local key, now = keys.workers(base), clock.now()
  local page = errors.read('ZSCAN', key, args.cursor, 'COUNT', args.limit)
  local reply = { page[1], now, errors.read('ZCOUNT', key, clock.text(now), '+inf') }
  for i = 1, #page[2], 2 do
    local worker, at = page[2][i], #reply
    -- Of a worker with a damaged key the others' page shows what is left, hence pcall.
    local claimed = redis.pcall('HLEN', keys.running(base, worker))
    local row = redis.pcall('HMGET', keys.worker(base, worker), unpack(FIELDS))
    reply[at + 1], reply[at + 2] = worker, tonumber(page[2][i + 1])
    reply[at + 3] = errors.of(claimed) and 0 or claimed
    for f = 1, #FIELDS do reply[at + 3 + f] = not errors.of(row) and row[f] or '' end
  end
  return reply
end
