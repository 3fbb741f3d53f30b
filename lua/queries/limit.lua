-- limit: one limit, or one key of it.
-- args: name, key
-- reply: (bucket, definition, is_declared, is_put, running, waiting, is_exact, opens_at, share)?
return function(base, args)
  local bucket = limits.bucket(args.name, args.key)
  local found, err = limits.definitions(base, { bucket })
  if err then errors.raise(err) end
  if not found[1] then return {} end
  return figures.describe(base, {}, { bucket }, figures.count(base, args.name, bucket))
end
