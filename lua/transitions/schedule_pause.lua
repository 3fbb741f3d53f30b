-- schedule_pause: somebody pauses a schedule or lets it go on; while paused its occurrences pass by.
return function(base, args)
  local definition = schedule.read(base, args.name)
  if not definition then return 'not_found' end
  definition.paused = args.paused == 1 or nil
  schedule.write(base, args.name, definition)
  return 'ok'
end
