-- signal: scheduled, queued, limited, held, running -> queued, limited, scheduled, held, running. A client sends a signal to a task, which takes it now if it waits for it, or when it waits for it later.
-- args: id, name, codec, value, nonce
-- reply: `stored` (the task has not asked for it yet: up to 1,000 are kept until its end), `woken` (it waited for this), `accepted` (this very call was already carried out), `finished` or `not_found`
local FIELDS = { 'state', 'kind', 'lane', 'buckets', 'watched_until', 'waits_for', 'waits_since', 'steps',
  'needs_version', 'tries', 'queue' }
local LONGEST_NONCE = 200

return function(base, args)
  local id, name, nonce = args.id, args.name, args.nonce
  waits.check_signal(name)
  waits.check_codec(args.codec)
  if #args.value > waits.LARGEST_SIGNAL then
    waits.refuse('signal ' .. name .. ' has ' .. #args.value .. ' bytes, and may have ' .. waits.LARGEST_SIGNAL)
  end
  if #nonce > LONGEST_NONCE or string.find(nonce, '[%s%c]') then
    waits.refuse('a nonce must be up to ' .. LONGEST_NONCE .. ' bytes without spaces')
  end
  local record, err = task.read(base, id, FIELDS)
  if err then return { err = err } end
  if not record.state then return 'not_found' end
  if record.kind then waits.refuse(id .. ' is a group of tasks: send the signal to one of them') end
  if task.is_finished(record.state) then return 'finished' end
  if record.queue then
    waits.refuse(id .. ' runs in queue ' .. record.queue .. ': send the signal there once it has begun, to '
      .. outbox.guest_id(keys.queue(base), id))
  end
  local _, waiting, at, is_known = waits.signals(base, id, nonce)
  if is_known then return 'accepted' end
  waits.check_signals_left(id, waiting)
  errors.read('SCARD', keys.waiters(base, id))
  local text = errors.read('HGET', keys.steps(base, id), record.waits_for or '')

  local batch = batches.open(base, clock.read())
  local asked = record.state == 'scheduled' and record.waits_for and memos.pending(text or nil)
  local is_awaited, bytes = asked and asked[name], 0
  if is_awaited then
    err = waits.wake(batch, id, record)
    if err then return { err = err } end
  end
  local field = clock.text(at) .. ' ' .. nonce .. ' ' .. name
  redis.call('HSET', keys.signals(base, id), field, args.codec .. ' ' .. args.value)
  if is_awaited then
    local first, its_name = memos.oldest(waits.signals(base, id, ''), asked)
    local _, value = waits.take(base, id, record.waits_for, first, its_name)
    bytes = #value
  end
  waits.note(base, batch.now, id, record, bytes)
  calls.close(batch)
  return is_awaited and 'woken' or 'stored'
end
