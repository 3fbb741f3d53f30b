-- join: a worker process joins under a new identity and gets the keys to block on.
-- args: worker, lease_ms int, info json, lanes json, generation int
-- reply: the keys to block on, in this order: its mailbox, then the wake list of each lane
return function(base, args)
  local lanes, worker = lane.names(args.lanes), args.worker
  if worker == '' then errors.raise(errors.bad_argument('worker must not be empty')) end
  local now = clock.now()
  -- Reaping may have begun: from then on this identity is refused.
  if tonumber(errors.read('ZSCORE', keys.workers(base), worker) or 1) <= 0 then
    errors.raise(errors.lease_lost(worker))
  end
  errors.read('HGET', keys.worker(base, worker), 'mailbox')
  errors.read('HGET', keys.meta(base), 'timer_at')
  for _, name in ipairs(lanes) do lane.check(base, name) end
  -- A command of workers alone: the user of a producer is refused here, and leaves no worker behind.
  errors.read('ZREVRANGEBYSCORE', keys.workers(base), 0, 0, 'LIMIT', 0, 1)
  local is_json, info = pcall(cjson.encode, args.info)
  if not is_json then errors.raise(errors.bad_argument('info cannot be stored: ' .. info)) end

  local mailbox = worker .. ':' .. args.generation
  member.renew(base, worker, now, args.lease_ms)
  redis.call('HSET', keys.worker(base, worker), 'info', info,
    'lanes', cjson.encode({ unpack(lanes) }),
    'joined_at', now, 'mailbox', mailbox)
  member.count_load(base, worker)

  local reply = { keys.mailbox(base, mailbox) }
  for i, name in ipairs(lanes) do reply[i + 1] = keys.wake(base, name) end
  return reply
end
