-- release: running -> queued, aborted. The holder hands a task back unstarted, to the front of its lane; no try is charged.
return function(base, args)
  return attempt.settle_one(base, args, { outcome = 'release' })
end
