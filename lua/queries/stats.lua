-- stats: the counters of single minutes, the newest first.
-- args: minutes_ago int, minutes int
-- reply: now, (minutes_ago, enqueued, completed, failed, retried, snoozed, unknown, aborted, expired, released, held, lost, requeued, discarded, unreadable, ghosts)…
return function(base, args)
  local now, first, last = stats.minutes(args)
  local reply = { now }
  for ago = first, last do
    local counts = redis.pcall('HMGET', keys.stats_minute(base, stats.minute(now) - ago), unpack(stats.COUNTERS))
    -- A damaged key costs figures, nothing else, hence pcall.
    local is_damaged = errors.of(counts)
    reply[#reply + 1] = ago
    for i = 1, #stats.COUNTERS do reply[#reply + 1] = is_damaged and 0 or number.of(counts[i], 0) end
  end
  return reply
end
