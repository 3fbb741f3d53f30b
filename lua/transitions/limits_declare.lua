-- limits_declare: what code says of its limits. The last to declare one counts.
-- args: limits: (name, definition)…
-- reply: how many are new or have changed
return function(base, args)
  local declared, changed, names = args.limits, {}, {}
  for at = 1, #declared, 2 do
    limits.check(declared[at], declared[at + 1])
    names[#names + 1] = declared[at]
  end
  if #names == 0 then return 0 end
  local known = errors.read('HMGET', keys.limits(base), unpack(names))
  limits.check_keys(base)
  for i, name in ipairs(names) do
    if known[i] ~= declared[2 * i] then
      redis.call('HSET', keys.limits(base), name, declared[2 * i])
      changed[#changed + 1] = name
    end
  end
  local batch = batches.open(base, clock.read())
  opening.limits_changed(batch, changed)
  calls.close(batch)
  return #changed
end
