-- counts: how many tasks are where.
local MOST_WORKERS = 1000

return function(base)
  local workers = errors.read('ZRANGE', keys.workers(base), 0, MOST_WORKERS - 1)
  local running = 0
  for _, worker in ipairs(workers) do running = running + errors.read('HLEN', keys.running(base, worker)) end
  local suspects = errors.read('ZCARD', keys.suspects(base))
  local queued, ready = suspects, {}
  local lanes = errors.read('SMEMBERS', keys.lanes(base))
  table.sort(lanes)
  for _, name in ipairs(lanes) do
    local live = errors.read('LLEN', keys.ready(base, name)) - errors.read('SCARD', keys.tombs(base, name))
    queued = queued + live
    ready[#ready + 1], ready[#ready + 2] = 'ready:' .. name, live
  end
  local held, of_pauses = 0, {}
  for _, id in ipairs(errors.read('HKEYS', keys.pauses(base))) do
    local count = errors.read('ZCARD', keys.held(base, id))
    held = held + count
    if count > 0 then of_pauses[#of_pauses + 1], of_pauses[#of_pauses + 2] = 'held:' .. id, count end
  end
  local reply = {
    'scheduled', errors.read('ZCARD', keys.scheduled(base)), 'queued', queued, 'running', running,
    'held', held, 'suspects', suspects, 'dead', errors.read('ZCARD', keys.dead(base)), 'workers', #workers,
  }
  for i = 1, #ready do reply[#reply + 1] = ready[i] end
  for i = 1, #of_pauses do reply[#reply + 1] = of_pauses[i] end
  return reply
end
