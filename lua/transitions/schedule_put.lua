-- schedule_put: a client makes a schedule or changes one; the time it falls due next stays unless its timing changed.
local KINDS = { args = 'string', kwargs = 'string', coalesce = 'boolean' }

return function(base, args)
  local name, definition = args.name, args.definition
  if name == '' then errors.raise(errors.bad_argument('a schedule needs a name')) end
  if type(definition) ~= 'table' or type(definition.task) ~= 'string' or type(definition.lane) ~= 'string' then
    errors.raise(errors.bad_argument('definition must be a JSON object with at least task and lane'))
  end
  for field, kind in pairs(KINDS) do
    if definition[field] ~= nil and type(definition[field]) ~= kind then
      errors.raise(errors.bad_argument('in a definition, ' .. field .. ' must be a ' .. kind))
    end
  end
  local before, due_at = schedule.read(base, name), schedule.due_at(base, name)
  local is_same = before and schedule.carry_over(before, definition)
  if not (is_same and due_at) then due_at = args.next_due_at end
  schedule.write(base, name, definition)
  redis.call('ZADD', keys.schedule_due(base), due_at, name)
  return due_at
end
