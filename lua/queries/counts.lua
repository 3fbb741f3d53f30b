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
  local reply = {
    'scheduled', errors.read('ZCARD', keys.scheduled(base)), 'queued', queued, 'running', running,
    'suspects', suspects, 'dead', errors.read('ZCARD', keys.dead(base)), 'workers', #workers,
  }
  for i = 1, #ready do reply[#reply + 1] = ready[i] end
  return reply
end
