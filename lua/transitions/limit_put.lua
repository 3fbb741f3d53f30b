-- limit_put: an operator changes a limit, or one key of it, over what code declared; or puts one that no code declares.
-- args: name, key, definition
-- reply: `put`, or `same`
return function(base, args)
  local bucket = limits.bucket(args.name, args.key)
  limits.check(args.name, args.definition, true)
  local known = errors.read('HGET', keys.overrides(base), bucket)
  local declared = errors.read('HGET', keys.limits(base), args.name)
  limits.check_together(base, args.name, args.key, args.definition, declared)
  limits.check_keys(base)
  if known ~= args.definition then redis.call('HSET', keys.overrides(base), bucket, args.definition) end
  local batch = batches.open(base, clock.read())
  if not limits.open(batch, bucket) and known == args.definition then return 'same' end
  opening.limits_changed(batch, { bucket })
  calls.close(batch)
  return 'put'
end
