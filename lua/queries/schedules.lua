-- schedules: a page of the schedules, unordered. One that is there throughout is on at least one page.
-- args: cursor, limit int
-- reply: cursor, (name, due_at, definition)…
return function(base, args)
  if not string.find(args.cursor, '^%d+$') then errors.raise(errors.bad_argument('cursor must be a number')) end
  local page = errors.read('ZSCAN', keys.schedule_due(base), args.cursor, 'COUNT', args.limit)
  return schedule.describe(base, page[2], { page[1] })
end
