-- heartbeat: scheduled, held, running, blocked, queued, complete -> queued, limited, failed, aborted, skipped. A worker renews its lease; promotes due tasks, gives back held ones and reaps dead workers, a bounded number per call.
-- args: worker, lease_ms int, result_ttl_ms int, generation int, max_lost int, abandoned_threads int, stalled_ms int
-- reply: mailbox, more, (id, token)…
local PROMOTE_LIMIT = 100
local GIVE_BACK_LIMIT = 500

return function(base, args)
  local worker = args.worker
  member.require(base, worker)
  local mailbox = worker .. ':' .. args.generation
  local row = keys.worker(base, worker)
  local known = errors.read('HMGET', row, 'mailbox', 'abandoned_threads', 'stalled_since')
  local old_mailbox, abandoned_threads = known[1], clock.text(args.abandoned_threads)
  local beat = member.last_beat(base)
  local aborts, settled = member.aborts(base, worker)
  local batch = batches.open(base, clock.read())
  batch.worker = worker

  member.renew(base, worker, batch.now, args.lease_ms)
  if old_mailbox ~= mailbox then
    redis.call('HSET', row, 'mailbox', mailbox)
    if old_mailbox then redis.call('DEL', keys.mailbox(base, old_mailbox)) end
  end
  if args.stalled_ms > 0 then
    if not known[3] then redis.call('HSET', row, 'stalled_since', clock.text(batch.now - args.stalled_ms)) end
  elseif known[3] then
    redis.call('HDEL', row, 'stalled_since')
  end
  if abandoned_threads ~= (known[2] or '0') then redis.call('HSET', row, 'abandoned_threads', abandoned_threads) end
  local more = move.promote(batch, PROMOTE_LIMIT) and 1 or 0
  if reap.dead_workers(batch, beat, args.lease_ms, args.result_ttl_ms, args.max_lost) then more = 1 end
  if beat[3] and pauses.go_on(batch, GIVE_BACK_LIMIT) then more = 1 end
  if move.take_over(batch, GIVE_BACK_LIMIT) then more = 1 end
  if beat[4] and opening.go_on(batch) then more = 1 end
  if chores.go_on(batch) then more = 1 end
  claim.wake_for_quarantined(base)
  if #settled > 0 then redis.call('SREM', keys.aborts(base, worker), unpack(settled)) end
  calls.close(batch)
  lane.remove_empty(base)
  unique.sweep(base)

  local reply = { keys.mailbox(base, mailbox), more }
  for i = 1, #aborts do reply[2 + i] = aborts[i] end
  return reply
end
