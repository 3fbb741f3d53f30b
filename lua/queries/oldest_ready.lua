-- oldest_ready: since when the oldest task of each lane has been ready, with those that wait for their limits.
-- args: none
-- reply: now, (lane, since)…
return function(base)
  local reply = { clock.now() }
  for i, part in ipairs(ages.of_lanes(base)) do reply[1 + i] = part end
  return reply
end
