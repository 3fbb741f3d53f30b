-- audit_add: notes what somebody has done to the queue; of each text 500 bytes are kept.
-- args: user, client, action, subject, number int, outcome
-- reply: `added`
local MAX, KEPT_MS = 1000, '7776000000'  -- 90 days

return function(base, args)
  local key = keys.audit(base)
  errors.read('LLEN', key)
  local entry = { clock.now(), history.short(args.user), history.short(args.client), history.short(args.action),
    history.short(args.subject), args.number, history.short(args.outcome) }
  redis.call('LPUSH', key, cjson.encode(entry))
  redis.call('LTRIM', key, 0, MAX - 1)
  redis.call('PEXPIRE', key, KEPT_MS)
  return 'added'
end
