-- requeue: failed -> queued. Dead letters run again: same id and arguments, a fresh retry budget.
return function(base, args)
  local b, answers, lanes = batch.open(base, clock.now()), {}, {}
  errors.read('ZCARD', keys.dead(base))
  for i, t in ipairs(args.tasks) do
    local record, err = task.read(base, t.id, { 'state', 'lane' })
    answers[i] = err or (record.state == 'failed' and 'queued' or 'not_dead')
    lanes[i] = record and record.lane
    if answers[i] == 'queued' then lane.check(base, lanes[i]) end
  end
  for i, t in ipairs(args.tasks) do
    if answers[i] == 'queued' then
      if task.read(base, t.id, { 'state' }).state == 'failed' then
        task.revive(b, t.id, lanes[i])
      else
        answers[i] = 'not_dead' -- named twice in this call
      end
    end
  end
  batch.close(b)
  return answers
end
