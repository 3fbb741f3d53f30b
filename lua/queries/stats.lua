-- stats: the counters of single minutes, the newest first.
-- args: minutes_ago int, minutes int
-- reply: now, (minutes_ago, enqueued, completed, failed, retried, snoozed, unknown, aborted, expired, released, held, lost, requeued, discarded, unreadable, ghosts)…
return function(base, args)
  local now, first, last = stats.minutes(args)
  local reply = { now }
  for ago = first, last do
    reply[#reply + 1] = ago
    for _, count in ipairs(gauges.counters(keys.stats_minute(base, stats.minute(now) - ago))) do
      reply[#reply + 1] = count
    end
  end
  return reply
end
