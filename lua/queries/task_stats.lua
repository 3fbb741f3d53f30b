-- task_stats: how often each task ran in one minute, and for how long.
-- args: minutes_ago int
-- reply: (name, figures)…
return function(base, args)
  if args.minutes_ago < 0 then errors.raise(errors.bad_argument('minutes_ago must not be negative')) end
  local minute = math.floor(clock.now() / 60000) - args.minutes_ago
  local figures = redis.pcall('HGETALL', keys.task_stats(base, minute))
  return errors.of(figures) and {} or figures
end
