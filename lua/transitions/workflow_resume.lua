-- workflow_resume: held -> queued, limited. The pause of a workflow ends; what was held under it goes back to the front of its lane, a bounded number per call.
-- args: id, limit int, resuming int
-- reply: answer, moved, more
return function(base, args)
  return pauses.finish(base, pause_rules.of_workflow(args.id), { workflow = args.id }, args.limit, args.resuming == 1)
end
