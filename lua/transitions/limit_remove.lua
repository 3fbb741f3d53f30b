-- limit_remove: takes back what was put over a limit or one key of it; without that, the limit that code declared, until that code declares it again.
-- args: name, key
-- reply: `removed`, or `not_found`
return function(base, args)
  local bucket = limits.bucket(args.name, args.key)
  errors.read('HLEN', keys.overrides(base))
  errors.read('HLEN', keys.limits(base))
  limits.check_keys(base)
  local removed = redis.call('HDEL', keys.overrides(base), bucket)
  if removed == 0 and bucket == args.name then removed = redis.call('HDEL', keys.limits(base), bucket) end
  if removed == 0 then return 'not_found' end
  local batch = batches.open(base, clock.read())
  limits.open(batch, bucket)
  opening.limits_changed(batch, { bucket })
  calls.close(batch)
  return 'removed'
end
