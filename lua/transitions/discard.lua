-- discard: failed -> discarded. Dead letters are given up: what they failed with can be asked for as long as a result.
return function(base, args)
  local b, answers = batch.open(base, clock.now()), {}
  errors.read('ZCARD', keys.dead(base))
  for i, t in ipairs(args.tasks) do
    local record, err = task.read(base, t.id, { 'state' })
    if err then
      answers[i] = err
    elseif record.state == 'failed' then
      redis.call('ZREM', keys.dead(base), t.id)
      move.discard(b, t.id, 'failed', args.result_ttl_ms)
      answers[i] = 'removed'
    else
      answers[i] = 'not_dead'
    end
  end
  batch.close(b)
  return answers
end
