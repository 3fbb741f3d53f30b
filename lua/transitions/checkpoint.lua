-- checkpoint: running -> running. The attempt's worker keeps the result of a step for later attempts; what is kept already stays.
-- args: worker, id, token, name, codec, value
-- reply: answer, codec, value
return function(base, args)
  local id, name = args.id, args.name
  waits.check_name(name)
  waits.check_codec(args.codec)
  local record = waits.of_attempt(base, args)
  if not record then return { 'stale', '', '' } end
  local kind, codec, value = waits.read(base, id, name)
  if kind == 'step' then return { 'kept', codec, value } end
  if kind then waits.refuse('step ' .. name .. ' of task ' .. id .. ' has the name of a wait') end
  waits.check_room(base, id, record, name, #args.value)
  errors.read('SCARD', keys.waiters(base, id))

  redis.call('HSET', keys.steps(base, id), name, memos.pack('step', args.codec, args.value))
  waits.note(base, clock.now(), id, record, #args.value)
  return { 'stored', '', '' }
end
