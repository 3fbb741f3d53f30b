-- task_stats: how often and for how long each task ran in single minutes, the newest first.
-- args: minutes_ago int, minutes int
-- reply: now, (minutes_ago, name, figures)…
return function(base, args)
  local now, first, last = stats.minutes(args)
  local reply = { now }
  for ago = first, last do
    local figures = redis.pcall('HGETALL', keys.task_stats(base, stats.minute(now) - ago))
    for i = 1, errors.of(figures) and 0 or #figures, 2 do
      local at = #reply
      reply[at + 1], reply[at + 2], reply[at + 3] = ago, figures[i], figures[i + 1]
    end
  end
  return reply
end
