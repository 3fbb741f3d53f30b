-- outbox_done: away, blocked -> aborted, skipped, failed. Other queues were told, and have answered: what is settled by that leaves the outbox, the rest waits behind the others.
-- args: entries: (entry, life, answer)…
-- reply: how many have left the outbox
local FIELDS = { 'state', 'home', 'life', 'queue', 'abort_requested', 'finished_at', 'result_ttl_ms', 'steps' }
-- How long a queue remembers a guest of whose end its home knows, so that whoever is late with its beginning begins nothing.
local KEPT_MS = 600000
-- And one that failed and has steps, so that it can go on where it was.
local RESUMED_MS = 604800000
-- Answers after which there is nothing more to carry.
local SAID = { queued = true, scheduled = true, limited = true, accepted = true, aborted = true, requested = true,
  finished = true, ended = true, not_found = true }
-- Answers after which a member that was to stop has stopped: it is not there, or waited there, where nobody may be who would carry
-- how it ended.
local STOPPED = { not_found = true, aborted = true }

-- away -> aborted.
local function stop(batch, id, record)
  if record.state ~= 'away' then return end
  move.finish(batch, id, 'aborted', { 'error', 'aborted' }, task.kept_ms(record, 0))
end

-- A guest has ended, and its home knows; or has none any more: then it is what any task is that has ended.
local function let_go(batch, id, record, is_homeless)
  if not record.home or not task.is_finished(record.state) then return end
  local key = keys.task(batch.base, id)
  if is_homeless then redis.call('HDEL', key, 'home', 'life') end
  if is_homeless and record.state == 'failed' then
    redis.call('ZADD', keys.dead(batch.base), clock.text(number.of(record.finished_at, batch.now)), id)
  elseif record.steps and memos.outlive(record.state) then
    redis.call('PEXPIRE', key, RESUMED_MS)
    memos.expire(batch.base, id, RESUMED_MS)
    children.keep(batch, id)
  else
    redis.call('PEXPIRE', key, KEPT_MS)
    memos.drop(batch, id)
  end
end

return function(base, args)
  local entries, batch, done = args.entries, batches.open(base, clock.read()), 0
  errors.read('LLEN', keys.outbox(base))
  errors.read('ZCARD', keys.dead(base))
  for at = 1, #entries, 3 do
    local entry, life, answer = entries[at], entries[at + 1], entries[at + 2]
    local kind, id = outbox.split(entry)
    local record = id and task.read(base, id, FIELDS) or {}
    local is_current = life ~= '' and record.life == life
    -- Another worker may have carried it: one that is not there would be looked for in all of a long list.
    local is_there = outbox.has(base, entry)
    local has_stopped = is_current and kind == 'abort' and STOPPED[answer]
    local obstacle = has_stopped and group.damage_above(batch, id)
    if obstacle then
      batches.refuse(batch, id, '', obstacle)
    elseif life ~= '' and not SAID[answer] then
      -- Behind the others.
      if is_there then
        redis.call('LREM', keys.outbox(base), 1, entry)
        redis.call('RPUSH', keys.outbox(base), entry)
      end
    elseif is_current or not outbox.is_due(kind, record) then
      if is_there then done = done + redis.call('LREM', keys.outbox(base), 1, entry) end
      if has_stopped then stop(batch, id, record) end
      if is_current and kind == 'ended' then let_go(batch, id, record, answer == 'not_found') end
    end
  end
  calls.close(batch)
  return done
end
