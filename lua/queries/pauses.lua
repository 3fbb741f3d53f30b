-- pauses: what is paused, and how much is held.
-- args: none
-- reply: (pause, definition, held)…
return function(base)
  local entries, reply = errors.read('HGETALL', keys.pauses(base)), {}
  for i = 1, #entries, 2 do
    local held = errors.read('ZCARD', keys.held(base, entries[i]))
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = entries[i], entries[i + 1], held
  end
  return reply
end
