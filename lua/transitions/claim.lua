-- claim: queued, limited, blocked -> running, limited, aborted, expired, held, failed, skipped. A worker takes tasks that are ready; each comes with a lease token.
-- args: worker, lanes json, want int, result_ttl_ms int
-- reply: more, (id, token, name, args, kwargs, codec, headers, lane, tries, enqueued_at)…
-- `unpack` is bounded by Lua's stack.
local MAX = 500

return function(base, args)
  local worker, lanes = args.worker, lane.names(args.lanes)
  member.require(base, worker)
  local row = keys.worker(base, worker)
  local last = errors.read('HMGET', row, 'quarantined', 'passes')
  errors.read('HLEN', keys.running(base, worker))
  local pauses, _, has_lines = claim.check(base)
  local batch = batches.open(base, clock.read())
  batch.pauses, batch.has_lines = pauses, has_lines
  local reply = { 0, n = 1 }
  local want = math.min(args.want, MAX)
  local earlier = { quarantined = last[1], passes = last[2] or nil }
  _, _, reply[1] = claim.take(batch, worker, lanes, want, earlier, args.result_ttl_ms, reply)
  calls.close(batch)
  -- A record somebody overwrote cannot be claimed: its entry is dropped, and `fsck` names the key.
  return reply
end
