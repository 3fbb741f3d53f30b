-- schedule: one schedule.
-- args: name
-- reply: (name, due_at, definition)?
return function(base, args)
  local due_at = schedule.due_at(base, args.name)
  return due_at and schedule.describe(base, { args.name, due_at }, {}) or {}
end
