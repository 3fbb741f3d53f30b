-- How many tasks are in each place, from what is kept there: it costs the same however many tasks and workers there are.
local M = {}

-- How many tasks these workers hold, of which some hold any: by their loads, one by one, or by how many hold so many at
-- least, whichever are fewer.
local function sum(key, busy)
  local largest = errors.read('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  local most, total = number.of(largest[2], 0), 0
  if busy > 2 * most then
    for load = 1, most do total = total + errors.read('ZCOUNT', key, clock.text(load), '+inf') end
    return total
  end
  local loads = errors.read('ZRANGEBYSCORE', key, '(0', '+inf', 'WITHSCORES')
  for i = 2, #loads, 2 do total = total + tonumber(loads[i]) end
  return total
end

-- How many tasks the workers hold. If some worker has no load written down, its own hash is counted.
local function running(base, workers)
  local key, total = keys.loads(base), 0
  if errors.read('ZCARD', key) == workers then
    local busy = errors.read('ZCOUNT', key, '(0', '+inf')
    return busy > 0 and sum(key, busy) or 0
  end
  local entries, loads = errors.read('ZRANGE', key, 0, -1, 'WITHSCORES'), {}
  for i = 1, #entries, 2 do loads[entries[i]] = tonumber(entries[i + 1]) end
  for _, worker in ipairs(errors.read('ZRANGE', keys.workers(base), 0, -1)) do
    total = total + (loads[worker] or errors.read('HLEN', keys.running(base, worker)))
  end
  return total
end

-- Names and numbers in turn: of the places, then of each lane, of its lines, and of each pause.
function M.count(base)
  local workers = errors.read('ZCARD', keys.workers(base))
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
  for i = 2, #of_lanes, 2 do limited = limited + number.of(of_lanes[i], 0) end
  local held, of_pauses, ids = 0, {}, errors.read('HKEYS', keys.pauses(base))
  ids[#ids + 1] = pause_rules.NEWER
  for _, id in ipairs(ids) do
    local count = errors.read('ZCARD', keys.held(base, id))
    held = held + count
    if count > 0 then of_pauses[#of_pauses + 1], of_pauses[#of_pauses + 2] = 'held:' .. id, count end
  end
  local counts = {
    'scheduled', errors.read('ZCARD', keys.scheduled(base)), 'queued', queued, 'limited', limited,
    'running', running(base, workers),
    'held', held, 'quarantined', quarantined, 'dead', errors.read('ZCARD', keys.dead(base)), 'workers', workers,
  }
  for i = 1, #ready do counts[#counts + 1] = ready[i] end
  for i = 1, #of_lanes, 2 do
    counts[#counts + 1], counts[#counts + 2] = 'limited:' .. of_lanes[i], number.of(of_lanes[i + 1], 0)
  end
  for i = 1, #of_pauses do counts[#counts + 1] = of_pauses[i] end
  return counts
end

-- The counters under a key of statistics, in their order. A damaged one costs figures, nothing else, hence pcall.
function M.counters(key)
  local found, counters = redis.pcall('HMGET', key, unpack(stats.COUNTERS)), {}
  for i = 1, #stats.COUNTERS do counters[i] = errors.of(found) and 0 or number.of(found[i], 0) end
  return counters
end

return M
