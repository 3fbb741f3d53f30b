-- trim: failed -> discarded. Dead letters beyond an age or a number are discarded, the oldest first, a bounded portion a call.
-- args: ttl_ms int, most int, limit int, result_ttl_ms int
-- reply: removed, more
return function(base, args)
  local limit = args.limit
  if limit < 1 or limit > 1000 then errors.raise(errors.bad_argument('limit must be from 1 to 1000')) end
  local dead, b = keys.dead(base), batch.open(base, clock.now())
  local too_many, too_old = 0, 0
  if args.most >= 0 then too_many = errors.read('ZCARD', dead) - args.most end
  if args.ttl_ms > 0 then too_old = errors.read('ZCOUNT', dead, '-inf', clock.text(b.now - args.ttl_ms)) end
  local count = math.max(too_many, too_old, 0)
  if count == 0 then return { 0, 0 } end
  local ids = errors.read('ZRANGE', dead, 0, math.min(count, limit) - 1)
  redis.call('ZREM', dead, unpack(ids))
  local removed = 0
  for _, id in ipairs(ids) do
    if move.discard(b, id, 'failed', args.result_ttl_ms) then removed = removed + 1 end
  end
  batch.close(b)
  return { removed, count > limit and 1 or 0 }
end
