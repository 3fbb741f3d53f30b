-- overview: what people ask first of a queue, in one call: it costs the same however many tasks and workers there are.
-- args: minutes int
-- reply: now, next_due_at, lost, (name, number)…
return function(base, args)
  local now, scheduled = clock.now(), keys.scheduled(base)
  local now_text = clock.text(now)
  local first = errors.read('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
  local reply = { now, tonumber(first[2] or 0), errors.read('ZCOUNT', keys.workers(base), '-inf', '(' .. now_text) }
  local function add(name, count) reply[#reply + 1], reply[#reply + 2] = name, count end
  local function add_counters(prefix, key)
    for i, count in ipairs(gauges.counters(key)) do
      if count ~= 0 then add(prefix .. stats.COUNTERS[i], count) end
    end
  end
  local counts, since = gauges.count(base), ages.of_lanes(base)
  for i = 1, #counts, 2 do add(counts[i], counts[i + 1]) end
  add('overdue', errors.read('ZCOUNT', scheduled, '-inf', now_text))
  for i = 1, #since, 2 do add('since:' .. since[i], since[i + 1]) end
  add_counters('total:', keys.stats(base))
  for ago = 0, args.minutes - 1 do
    add_counters('minute:' .. ago .. ':', keys.stats_minute(base, stats.minute(now) - ago))
  end
  return reply
end
