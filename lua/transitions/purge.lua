-- purge: queued, scheduled, held, failed -> discarded. Discard tasks that wait, or dead letters, a bounded portion a call.
local PLACES = {
  held = { key = keys.held, state = 'held' },
  suspects = { key = keys.suspects, state = 'queued' },
  scheduled = { key = keys.scheduled, state = 'scheduled' },
  dead = { key = keys.dead, state = 'failed' },
}

return function(base, args)
  local place, limit = args.place, args.limit
  if limit < 1 or limit > 1000 then errors.raise(errors.bad_argument('limit must be from 1 to 1000')) end
  local b = batch.open(base, clock.now())
  local ids, looked
  if place == 'queued' then
    lane.check(base, args.of)
    ids, looked = lane.pop(base, args.of, limit)
  elseif PLACES[place] then
    local key = PLACES[place].key(base, args.of)
    ids = errors.read('ZRANGE', key, 0, limit - 1)
    looked = #ids
    if looked > 0 then redis.call('ZREM', key, unpack(ids)) end
  else
    errors.raise(errors.bad_argument('place must be queued, held, suspects, scheduled or dead'))
  end
  local state = PLACES[place] and PLACES[place].state or 'queued'
  local removed = 0
  for _, id in ipairs(ids) do
    if task.discard(b, id, state, args.result_ttl_ms) then removed = removed + 1 end
  end
  batch.close(b)
  return { removed, looked == limit and 1 or 0 }
end
