-- release: running, blocked -> queued, limited, aborted. The attempt's worker hands a task back unstarted, to the front of its lane; no try is charged.
-- args: worker, id, token, result_ttl_ms int
-- reply: `ok`, `stale` (another attempt has the task now: nothing changed) or what became of it instead
return function(base, args)
  return attempt.settle_one(base, args, 'release')
end
