-- requeue: failed, skipped -> queued, limited, blocked, away. Dead letters run again: same id and arguments, a fresh retry budget.
-- args: tasks: (id)…
-- reply: one string per id: `queued` or `not_dead`, or an error
return function(base, args)
  local batch, answers, records, damaged = batches.open(base, clock.read()), {}, {}, {}
  errors.read('ZCARD', keys.dead(base))
  for i, id in ipairs(args.tasks) do
    local record, err = task.read(base, id, { 'state', 'lane', 'buckets', 'kind', 'queue', 'home' })
    records[i] = record
    if err then
      answers[i] = err
    elseif record.state ~= 'failed' or record.kind or record.home then
      answers[i] = 'not_dead'
    elseif record.queue then
      local obstacle = group.damage_above(batch, id) or outbox.damage(batch)
      answers[i] = obstacle or 'queued'
    else
      local name = record.lane or task.DEFAULT_LANE
      if damaged[name] == nil then damaged[name] = lane.damage(base, name) or false end
      local of_line = record.buckets and line.damage(base, name, record.buckets)
      answers[i] = group.damage_above(batch, id) or (damaged[name] or of_line or { err = 'queued' }).err
    end
  end
  for i, id in ipairs(args.tasks) do
    if answers[i] == 'queued' then
      if task.read(base, id, { 'state' }).state == 'failed' then
        move.requeue(batch, id, records[i])
        replay.reopen(batch, id)
      else
        answers[i] = 'not_dead' -- named twice in this call
      end
    end
  end
  calls.close(batch)
  return answers
end
