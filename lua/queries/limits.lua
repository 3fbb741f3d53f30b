-- limits: the limits that are declared, and what operators put over them or their keys.
-- args: cursor, limit int
-- reply: cursor, (bucket, declared, override, running, blocked, opens_at)…
return function(base, args)
  local reply = { '0' }
  local function add(bucket, declared, override)
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = bucket, declared or '', override or ''
    reply[at + 4], reply[at + 5], reply[at + 6] = limits.figures(base, bucket)
  end
  -- Few are declared in code: the first page has them all.
  if args.cursor == '0' then
    local declared = errors.read('HGETALL', keys.limits(base))
    for i = 1, #declared, 2 do
      add(declared[i], declared[i + 1], errors.read('HGET', keys.overrides(base), declared[i]))
    end
  end
  local page = errors.read('HSCAN', keys.overrides(base), args.cursor, 'COUNT', args.limit)
  for i = 1, #page[2], 2 do
    if redis.call('HEXISTS', keys.limits(base), page[2][i]) == 0 then add(page[2][i], '', page[2][i + 1]) end
  end
  reply[1] = page[1]
  return reply
end
