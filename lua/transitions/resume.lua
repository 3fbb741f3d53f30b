-- resume: held -> queued, limited. A pause ends; what was held under it goes back to the front of its lane, a bounded number per call.
-- args: task, argument, value, limit int, resuming int
-- reply: answer, moved, more
return function(base, args)
  local limit, id, named = args.limit, pauses.named(args)
  local rule = pauses.read(base, id)
  pauses.check(base, id)
  -- One that was made anew meanwhile is not the one whose end was begun.
  local is_over = args.resuming == 1 and not (rule and rule.resuming)
  if is_over or not rule and redis.call('EXISTS', keys.held(base, id)) == 0 then return { 'not_paused', 0, 0 } end
  local batch = batches.open(base, clock.read())
  local moved, left = move.give_back(batch, id, limit)
  if left then
    rule = rule or named
    local changed = not rule.resuming
    rule.resuming = true
    pauses.write(base, id, rule, changed)
  else
    pauses.remove(base, id)
  end
  calls.close(batch)
  pauses.wake_all(base)
  return { 'resumed', moved, left and moved > 0 and 1 or 0 }
end
