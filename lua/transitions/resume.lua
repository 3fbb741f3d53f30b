-- resume: held -> queued, limited. A pause ends; what was held under it goes back to the front of its lane, a bounded number per call.
-- args: task, argument, value, limit int, resuming int
-- reply: answer, moved, more
return function(base, args)
  local id, named = pauses.named(args)
  return pauses.finish(base, id, named, args.limit, args.resuming == 1)
end
