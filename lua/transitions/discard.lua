-- discard: failed -> none. Dead letters are deleted unrun.
return function(base, args)
  local b, answers = batch.open(base, clock.now()), {}
  errors.read('ZCARD', keys.dead(base))
  for i, t in ipairs(args.tasks) do
    local record, err = task.read(base, t.id, { 'state' })
    if err then
      answers[i] = err
    elseif record.state == 'failed' then
      task.erase(base, t.id)
      batch.count(b, 'removed')
      answers[i] = 'removed'
    else
      answers[i] = 'not_dead'
    end
  end
  batch.close(b)
  return answers
end
