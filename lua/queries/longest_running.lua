-- longest_running: what some workers run, the longest first.
-- args: limit int; workers: (worker, slots int)…
-- reply: now, looked, (worker, id, name, lane, tries, started_at, progress)…
local FIELDS = { 'name', 'lane', 'tries', 'started_at', 'progress' }
-- A call goes through no more claims than that, but for those of its first worker.
local MOST = 1000

-- What a worker has claimed, the oldest first; nothing of one with a damaged key, so that what others run is shown.
local function claims_of(base, worker)
  local is_sound, claims = pcall(member.claims, base, worker)
  return is_sound and claims or {}
end

return function(base, args)
  local workers, found, looked, seen = args.workers, {}, 0, 0
  for at = 1, #workers, 2 do
    local worker, slots = workers[at], workers[at + 1]
    local count = redis.pcall('HLEN', keys.running(base, worker))
    seen = seen + (errors.of(count) and 0 or count)
    if looked > 0 and seen > MOST then break end
    local claims = claims_of(base, worker)
    for i = 1, math.min(#claims, slots, args.limit) do
      found[#found + 1] = { worker = worker, id = claims[i].id, token = claims[i].token }
    end
    looked = looked + 1
  end
  table.sort(found, function(x, y) return x.token < y.token end)
  local reply = { clock.now(), looked }
  for i = 1, math.min(args.limit, #found) do
    local one, at = found[i], #reply
    local record = task.read(base, one.id, FIELDS) or {}
    reply[at + 1], reply[at + 2] = one.worker, one.id
    for f, field in ipairs(FIELDS) do reply[at + 2 + f] = record[field] or '' end
  end
  return reply
end
