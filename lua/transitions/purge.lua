-- purge: queued, limited, scheduled, held, failed, blocked -> discarded, failed, queued, skipped, aborted. Discards waiting tasks or dead letters, a bounded number per call.
-- args: place, which, offset int, limit int, result_ttl_ms int
-- reply: discarded, more, passed
local PLACES = {
  held = { key = keys.held, state = 'held' },
  quarantined = { key = keys.quarantined, state = 'queued' },
  scheduled = { key = keys.scheduled, state = 'scheduled' },
  dead = { key = keys.dead, state = 'failed' },
}

-- Those of a lane among the scheduled ones from a position on, counted from the end: what falls due meanwhile moves none
-- of them. Replies how many were looked at, too.
local function scheduled_of(base, lane_name, offset, limit)
  local key, found = keys.scheduled(base), {}
  local ids = errors.read('ZREVRANGE', key, offset, offset + limit - 1)
  for _, id in ipairs(ids) do
    local record = task.read(base, id, { 'lane' })
    if record and (record.lane or task.DEFAULT_LANE) == lane_name then found[#found + 1] = id end
  end
  if #found > 0 then redis.call('ZREM', key, unpack(found)) end
  return found, #ids
end

return function(base, args)
  local place, limit = args.place, args.limit
  local batch = batches.open(base, clock.read())
  local ids, looked
  if place == 'scheduled' and args.which ~= '' then
    ids, looked = scheduled_of(base, args.which, args.offset, limit)
  elseif place == 'queued' then
    lane.check(base, args.which)
    ids, looked = lane.pop(base, args.which, limit)
  elseif place == 'limited' then
    ids, looked = line.drain(batch, args.which, limit)
  elseif PLACES[place] then
    local key = PLACES[place].key(base, args.which)
    ids = errors.read('ZRANGE', key, 0, limit - 1)
    looked = #ids
    if looked > 0 then redis.call('ZREM', key, unpack(ids)) end
  else
    errors.raise(errors.bad_argument('place must be queued, limited, held, quarantined, scheduled or dead'))
  end
  local state = PLACES[place] and PLACES[place].state or place == 'limited' and place or 'queued'
  local removed = 0
  for _, id in ipairs(ids) do
    if move.discard(batch, id, state, args.result_ttl_ms) then removed = removed + 1 end
  end
  calls.close(batch)
  return { removed, looked == limit and 1 or 0, place == 'scheduled' and looked - #ids or 0 }
end
