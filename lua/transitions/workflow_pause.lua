-- workflow_pause: keeps the tasks of a workflow from starting, those of its maps, too. It ends with the workflow.
-- args: id
-- reply: `paused`, `finished` (it has ended) or `not_found`
return function(base, args)
  local record, err = task.read(base, args.id, { 'state', 'kind' })
  if err then return { err = err } end
  if record.kind ~= 'workflow' then return 'not_found' end
  if task.is_finished(record.state) then return 'finished' end
  pauses.begin(base, pause_rules.of_workflow(args.id), { workflow = args.id })
  return 'paused'
end
