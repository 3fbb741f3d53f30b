-- counts: how many tasks are in each place.
-- args: none
-- reply: (name, number)…

-- How many tasks the workers hold. If some worker has no load written down, its own hash is counted.
local function count_running(base, workers)
  local key, total = keys.loads(base), 0
  if errors.read('ZCARD', key) == workers then
    local busy = errors.read('ZRANGEBYSCORE', key, '(0', '+inf', 'WITHSCORES')
    for i = 2, #busy, 2 do total = total + tonumber(busy[i]) end
    return total
  end
  local entries, loads = errors.read('ZRANGE', key, 0, -1, 'WITHSCORES'), {}
  for i = 1, #entries, 2 do loads[entries[i]] = tonumber(entries[i + 1]) end
  for _, worker in ipairs(errors.read('ZRANGE', keys.workers(base), 0, -1)) do
    total = total + (loads[worker] or errors.read('HLEN', keys.running(base, worker)))
  end
  return total
end

return function(base)
  local workers = errors.read('ZCARD', keys.workers(base))
  local running = count_running(base, workers)
  local quarantined = errors.read('ZCARD', keys.quarantined(base))
  local queued, ready = quarantined, {}
  local lanes = errors.read('SMEMBERS', keys.lanes(base))
  table.sort(lanes)
  for _, name in ipairs(lanes) do
    local live = errors.read('LLEN', keys.ready(base, name)) - errors.read('SCARD', keys.tombstones(base, name))
    queued = queued + live
    ready[#ready + 1], ready[#ready + 2] = 'ready:' .. name, live
  end
  local limited, of_lanes = 0, errors.read('HGETALL', keys.limited(base))
  for i = 2, #of_lanes, 2 do limited = limited + tonumber(of_lanes[i]) end
  local held, of_pauses, ids = 0, {}, errors.read('HKEYS', keys.pauses(base))
  ids[#ids + 1] = pause_rules.NEWER
  for _, id in ipairs(ids) do
    local count = errors.read('ZCARD', keys.held(base, id))
    held = held + count
    if count > 0 then of_pauses[#of_pauses + 1], of_pauses[#of_pauses + 2] = 'held:' .. id, count end
  end
  local reply = {
    'scheduled', errors.read('ZCARD', keys.scheduled(base)), 'queued', queued, 'limited', limited,
    'running', running,
    'held', held, 'quarantined', quarantined, 'dead', errors.read('ZCARD', keys.dead(base)), 'workers', workers,
  }
  for i = 1, #ready do reply[#reply + 1] = ready[i] end
  for i = 1, #of_lanes, 2 do
    reply[#reply + 1], reply[#reply + 2] = 'limited:' .. of_lanes[i], tonumber(of_lanes[i + 1])
  end
  for i = 1, #of_pauses do reply[#reply + 1] = of_pauses[i] end
  return reply
end
