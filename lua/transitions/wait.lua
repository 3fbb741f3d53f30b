-- wait: running -> running. The attempt's worker waits for one of several signals, or for some time: it is decided here, and for later attempts, or is to be waited for, with the outcome `suspend`.
-- args: worker, id, token, name, signals json, wait_ms int
-- reply: answer, wait_ms, signal, codec, value
local function answer(what, wait_ms, signal, codec, value)
  return { what, wait_ms or -1, signal or '', codec or '', value or '' }
end

return function(base, args)
  local id, name, now = args.id, args.name, clock.now()
  waits.check_name(name)
  waits.check_signals(args.signals)
  local is_sleep = #args.signals == 0
  if is_sleep and args.wait_ms < 0 then waits.refuse('wait ' .. name .. ' without signals needs a time') end
  local record = waits.of_attempt(base, args)
  if not record then return answer('stale') end
  local kind, codec, value, text = waits.read(base, id, name)
  local signal = kind and string.match(kind, '^signal:(.*)$')
  if signal then return answer('signal', nil, signal, codec, value) end
  if kind == 'timeout' then return answer('timeout') end
  if kind and kind ~= 'until' then waits.refuse('wait ' .. name .. ' of task ' .. id .. ' has the name of a step') end
  if not kind then
    waits.check_room(base, id, record, name, is_sleep and 0 or waits.LARGEST_SIGNAL)
    local deadline = args.wait_ms >= 0 and clock.text(now + args.wait_ms) or ''
    text = memos.pack('until', is_sleep and '' or cjson.encode(args.signals), deadline)
  end
  local asked, deadline = memos.pending(text)
  local field, found = memos.oldest(waits.signals(base, id, ''), asked)
  errors.read('SCARD', keys.waiters(base, id))

  local bytes, reply = 0
  if field then
    codec, value = waits.take(base, id, name, field, found)
    bytes, reply = #value, answer('signal', nil, found, codec, value)
  elseif deadline <= now then
    redis.call('HSET', keys.steps(base, id), name, memos.pack('timeout', '', ''))
    reply = answer('timeout')
  else
    if not kind then redis.call('HSET', keys.steps(base, id), name, text) end
    reply = answer('waits', deadline < math.huge and deadline - now or -1)
  end
  waits.note(base, now, id, record, bytes)
  return reply
end
