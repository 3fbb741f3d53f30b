-- discard: failed, blocked -> discarded, queued. Dead letters are discarded: their errors are kept as long as results are.
-- args: result_ttl_ms int; tasks: (id)…
-- reply: one string per id: `discarded` or `not_dead`, or an error
return function(base, args)
  local batch, answers = batches.open(base, clock.read()), {}
  errors.read('ZCARD', keys.dead(base))
  for i, id in ipairs(args.tasks) do
    local record, err = task.read(base, id, { 'state', 'kind', 'home' })
    if err then
      answers[i] = err
    elseif record.state == 'failed' and not record.kind and not record.home then
      redis.call('ZREM', keys.dead(base), id)
      move.discard(batch, id, 'failed', args.result_ttl_ms)
      answers[i] = 'discarded'
    else
      answers[i] = 'not_dead'
    end
  end
  calls.close(batch)
  return answers
end
