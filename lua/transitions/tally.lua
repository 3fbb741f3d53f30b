-- tally: a worker tells how often its tasks ran since it last told, and for how long.
local FIGURES = { 'completed', 'failed', 'retried', 'aborted', 'run_ms', 'waits', 'wait_ms' }

return function(base, args)
  local key = keys.task_stats(base, math.floor(clock.now() / 60000))
  -- A damaged key costs figures, nothing else, hence pcall.
  for _, counted in ipairs(args.tasks) do
    for _, figure in ipairs(FIGURES) do
      if counted[figure] ~= 0 then
        redis.pcall('HINCRBY', key, figure .. ':' .. counted.name, clock.text(counted[figure]))
      end
    end
  end
  redis.pcall('EXPIRE', key, stats.MINUTE_TTL_S)
  return 'ok'
end
