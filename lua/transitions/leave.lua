-- leave: running, blocked -> queued, limited, aborted. A worker leaves and hands back what it has claimed; no try is charged.
-- args: worker, result_ttl_ms int
-- reply: 1 when more is left to hand back (call again), else 0
local LIMIT = 1000

return function(base, args)
  local worker = args.worker
  if not errors.read('ZSCORE', keys.workers(base), worker) then return 0 end
  errors.read('HLEN', keys.running(base, worker))
  local batch = batches.open(base, clock.read())
  -- From here on it is refused, as a lost one is.
  redis.call('ZADD', keys.workers(base), 0, worker)
  local moved, left = attempt.take_from(batch, worker, LIMIT, args.result_ttl_ms, false)
  if not left then member.remove(base, worker) end
  calls.close(batch)
  -- What a damaged lane does not take stays with the worker, to be reaped.
  return left and moved > 0 and 1 or 0
end
