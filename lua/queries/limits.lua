-- limits: the limits that are declared, and those that operators put something for, or for one of their keys.
-- args: cursor, limit int
-- reply: cursor, (bucket, definition, is_declared, is_put, running, waiting, is_exact, opens_at, share)…
return function(base, args)
  local buckets = {}
  -- Few are declared in code: the first page has them all.
  if args.cursor == '0' then buckets = errors.read('HKEYS', keys.limits(base)) end
  local page = errors.read('HSCAN', keys.overrides(base), args.cursor, 'COUNT', args.limit)
  for i = 1, #page[2], 2 do
    if errors.read('HEXISTS', keys.limits(base), page[2][i]) == 0 then buckets[#buckets + 1] = page[2][i] end
  end
  return figures.describe(base, { page[1] }, buckets, figures.count(base, ''))
end
