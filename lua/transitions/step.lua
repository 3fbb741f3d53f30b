-- step: queued, limited, scheduled, running, blocked -> queued, limited, scheduled, running, complete, failed, aborted, expired, held, skipped, away. A worker's round trip: renew the lease, settle, promote up to 100 due tasks, claim.
-- args: worker, seq int, lease_ms int, result_ttl_ms int, lanes json, want int, hand_off int; outcomes: (id, token, outcome, run_ms int, value, details)…
-- reply: more, wait_ms, refused, (id, token, reason)…, (id, token, name, args, kwargs, codec, headers, lane, tries, enqueued_at)…
local PROMOTE_LIMIT = 100

local DETAILS = { codec = 'string', traceback = 'string', delay_ms = 'number', max_age_ms = 'number', limit = 'string',
  key = 'string', wait = 'string' }

-- Most outcomes have none.
local NO_DETAILS = {}

-- The outcomes of the call with their details unfolded.
local function read_outcomes(outcomes)
  for at = 1, #outcomes, 6 do
    local outcome, details = outcomes[at + 2], NO_DETAILS
    if outcomes[at + 5] ~= '' then
      details = object.decode(outcomes[at + 5], DETAILS, 'details')
      if details.key then limits.bucket(details.limit or '', details.key) end
    end
    outcomes[at + 5] = details
    if not attempt.OUTCOMES[outcome] then errors.raise(errors.bad_argument('unknown outcome ' .. outcome)) end
  end
  return outcomes
end

-- The same step again, after its reply was lost: nothing happens twice, it is answered again.
local function repeat_step(base, worker, first_token, answers)
  local reply = { 1, -1, 0 }
  local ok, said = pcall(cjson.decode, answers or '[]')
  if ok and type(said) == 'table' and #said % 3 == 0 then
    reply[3] = #said / 3
    for i = 1, #said do reply[3 + i] = tostring(said[i]) end
  end
  if first_token ~= '' then claim.since(base, worker, number.of(first_token, 0), reply) end
  return reply
end

-- The reply so far: what was refused, and room for what is known at the end.
local function answer(refusals)
  local reply = { 0, -1, #refusals / 3, n = 3 + #refusals }
  for i = 1, #refusals do reply[3 + i] = refusals[i] end
  return reply
end

return function(base, args)
  local worker, seq, now, now_text = args.worker, args.seq, clock.read()
  local lanes, want = lane.names(args.lanes), math.min(args.want, 1000)
  local outcomes = read_outcomes(args.outcomes)
  member.require(base, worker)
  local row = keys.worker(base, worker)
  local last = errors.read('HMGET', row, 'seq', 'first_token', 'quarantined', 'passes', 'timer_at', 'answers',
    'idle', 'handed')
  local last_seq = number.of(last[1], 0)
  if seq < last_seq then errors.raise(errors.old_step(seq, last_seq)) end
  if seq > last_seq + 1 then errors.raise(errors.lost_steps(worker, seq, last_seq)) end
  local tokens = attempt.tokens(base, worker, outcomes)
  local pauses, waited_until, has_lines = claim.check(base)
  member.renew(base, worker, now, args.lease_ms)
  if seq == last_seq then return repeat_step(base, worker, last[2] or '', last[6]) end

  local batch = batches.open(base, now, now_text)
  batch.pauses, batch.waited_until, batch.has_lines, batch.worker = pauses, waited_until, has_lines, worker
  attempt.settle(batch, worker, outcomes, tokens, args.result_ttl_ms)
  -- For the same step again: mostly all became what was asked for.
  if batch.refusals then
    redis.call('HSET', row, 'answers', cjson.encode(batch.refusals))
  elseif last[6] then
    redis.call('HDEL', row, 'answers')
  end
  local more_due = move.promote(batch, PROMOTE_LIMIT)
  if has_lines and opening.open_due(batch) then more_due = true end
  calls.flush(batch)
  -- What was handed over since the last step, and is not settled by now: whether the worker has it is not known.
  local handed, first_handed = {}, last[8] and last[8] ~= '' and last[8]
  if first_handed then claim.since(base, worker, number.of(first_handed, 0), handed) end
  local reply, earlier = answer(batch.refusals or {}), { quarantined = last[3], passes = last[4] or nil }
  local from = reply.n
  local claimed, first_token, more = claim.take(batch, worker, lanes, want, earlier, args.result_ttl_ms, reply)
  if #handed > 0 then first_token = first_handed end
  if args.hand_off == 1 and want > 0 and claimed == 0 and more == 0 and #handed == 0 then
    local terms = { lanes = args.lanes, want = want, lease_ms = args.lease_ms, result_ttl_ms = args.result_ttl_ms }
    redis.call('HSET', row, 'seq', seq, 'first_token', first_token, 'idle', cjson.encode(terms), 'handed', '')
    member.offer(base, worker, lanes, batch.now_text)
  elseif last[7] and last[7] ~= '' or first_handed then
    redis.call('HSET', row, 'seq', seq, 'first_token', first_token, 'idle', '', 'handed', '')
  else
    redis.call('HSET', row, 'seq', seq, 'first_token', first_token)
  end
  calls.close(batch)

  if more_due then more = 1 end
  local wait_ms = -1
  if claimed == want then
    -- It has no room for what falls due: the timer is for one that has.
    if last[5] then timer.drop(base, worker) end
  elseif claimed == 0 and more == 0 then
    wait_ms = timer.wait_ms(batch, worker)
  end
  if batch.refusals and #batch.refusals > from - 3 then
    -- Claiming came upon damaged keys.
    local claims = reply
    reply = answer(batch.refusals)
    for i = from + 1, claims.n do reply[#reply + 1] = claims[i] end
  end
  local at = #reply
  for i = 1, #handed do reply[at + i] = handed[i] end
  reply[1], reply[2], reply.n = more, wait_ms, nil
  return reply
end
