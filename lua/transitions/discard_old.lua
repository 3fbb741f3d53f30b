-- discard_old: failed -> discarded. Dead letters beyond an age or a number are discarded, the oldest first, a bounded number per call.
-- args: dead_ttl_ms int, dead_limit int, limit int, result_ttl_ms int
-- reply: discarded, more
return function(base, args)
  local limit = args.limit
  local dead, batch = keys.dead(base), batches.open(base, clock.read())
  local too_many, too_old = 0, 0
  if args.dead_limit >= 0 then too_many = errors.read('ZCARD', dead) - args.dead_limit end
  if args.dead_ttl_ms > 0 then
    too_old = errors.read('ZCOUNT', dead, '-inf', clock.text(batch.now - args.dead_ttl_ms))
  end
  local count = math.max(too_many, too_old, 0)
  if count == 0 then return { 0, 0 } end
  local ids = errors.read('ZRANGE', dead, 0, math.min(count, limit) - 1)
  redis.call('ZREM', dead, unpack(ids))
  local removed = 0
  for _, id in ipairs(ids) do
    if move.discard(batch, id, 'failed', args.result_ttl_ms) then removed = removed + 1 end
  end
  calls.close(batch)
  return { removed, count > limit and 1 or 0 }
end
