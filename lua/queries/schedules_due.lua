-- schedules_due: the schedules that are due, the longest overdue first, and when the next one will be.
-- args: offset int, limit int
-- reply: now, next_due_at, (name, due_at, definition)…
return function(base, args)
  local key, now, limit = keys.schedule_due(base), clock.now(), args.limit
  local page = errors.read('ZRANGEBYSCORE', key, '-inf', clock.text(now), 'WITHSCORES', 'LIMIT', args.offset, limit)
  local following = errors.read('ZRANGEBYSCORE', key, '(' .. clock.text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return schedule.describe(base, page, { now, tonumber(following[2] or -1) })
end
