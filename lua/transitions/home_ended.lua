-- home_ended: away, blocked -> complete, failed, aborted, expired, discarded, queued, limited, scheduled, away, skipped. A task of a workflow has ended in the other queue that it was handed to.
-- args: id, life, state, result, codec, error, traceback, tries, started_at, history
-- reply: `ended`; `accepted` (it was told before, or of an earlier life) or `not_found` (there is no such member of a workflow any more)
return function(base, args)
  local id, state = args.id, args.state
  if not task.is_finished(state) or state == 'skipped' then
    errors.raise(errors.bad_argument('a task cannot have ended as ' .. state))
  end
  local record, err = task.read(base, id, { 'state', 'life', 'result_ttl_ms' })
  if err then return { err = err } end
  if not record.life then return 'not_found' end
  if record.state ~= 'away' or record.life ~= args.life then return 'accepted' end
  local batch = batches.open(base, clock.read())
  err = group.damage_above(batch, id) or state == 'failed' and batches.obstacle(batch, 'ZCARD', keys.dead(base))
  if err then return { err = err } end
  local key, fields = keys.task(base, id), {}
  local function add(name, value)
    if value ~= '' then fields[#fields + 1], fields[#fields + 2] = name, value end
  end
  add('tries', args.tries)
  add('started_at', args.started_at)
  add('history', args.history)
  add('traceback', args.traceback)
  if state == 'complete' then
    add('result_codec', args.codec)
    local written = redis.call('HSET', key, 'state', state, 'finished_at', batch.now_text, 'result', args.result,
      unpack(fields))
    err = move.ended(batch, id, key, 'completed', written, task.kept_ms(record, 0))
  else
    add('error', args.error ~= '' and args.error or state)
    err = move.finish(batch, id, state, fields, state == 'failed' and -1 or task.kept_ms(record, 0))
  end
  if err then return { err = err } end
  calls.close(batch)
  return 'ended'
end
