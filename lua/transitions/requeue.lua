-- requeue: failed -> queued. Dead letters run again: same id and arguments, a fresh retry budget.
return function(base, args)
  local b, answers, records = batch.open(base, clock.now()), {}, {}
  errors.read('ZCARD', keys.dead(base))
  for i, t in ipairs(args.tasks) do
    local record, err = task.read(base, t.id, { 'state', 'lane' })
    answers[i] = err or (record.state == 'failed' and 'queued' or 'not_dead')
    records[i] = record
    if answers[i] == 'queued' then lane.check(base, record.lane or 'default') end
  end
  for i, t in ipairs(args.tasks) do
    if answers[i] == 'queued' then
      if task.read(base, t.id, { 'state' }).state == 'failed' then
        task.revive(b, t.id, records[i])
      else
        answers[i] = 'not_dead' -- named twice in this call
      end
    end
  end
  batch.close(b)
  return answers
end
