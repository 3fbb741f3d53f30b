-- schedule_pause: pauses or resumes a schedule; while it is paused, its occurrences are skipped.
-- args: name, paused int
-- reply: `ok` or `not_found`
return function(base, args)
  local definition = schedule.read(base, args.name)
  if not definition then return 'not_found' end
  local paused = args.paused == 1
  if (definition.paused or false) == paused then return 'ok' end
  definition.paused = paused or nil
  schedule.write(base, args.name, definition)
  return 'ok'
end
