-- hurry: scheduled -> queued, limited. Scheduled tasks are ready now, as if their time had come: they wait for nothing but their turn.
-- args: tasks: (id)…
-- reply: one string per id: `queued` or `limited` (now, or before); or why nothing was changed: `running`, `held` (by a pause), `blocked` (it waits for other tasks), `waits` (for a signal, or in a sleep of its own), `finished`, `not_found`; or an error
local FIELDS = { 'state', 'lane', 'buckets', 'watched_until', 'waits_for' }
local NOT_SCHEDULED = { queued = true, limited = true, held = true, running = true }

-- Why it is not for this call to make a task ready, or nil.
local function refusal(record)
  if not record.state then return 'not_found' end
  if task.is_finished(record.state) then return 'finished' end
  if NOT_SCHEDULED[record.state] then return record.state end
  -- A state of a later version waits for something that this one does not know.
  if record.state ~= 'scheduled' then return 'blocked' end
  return record.waits_for and 'waits' or nil
end

return function(base, args)
  local batch, answers, scheduled = batches.open(base, clock.read()), {}, keys.scheduled(base)
  errors.read('ZCARD', scheduled)
  for i, id in ipairs(args.tasks) do
    local record, err = task.read(base, id, FIELDS)
    answers[i] = err or refusal(record)
    if not answers[i] then
      err = move.make_ready(batch, id, record, { 'due_at', batch.now_text })
      if not err then redis.call('ZREM', scheduled, id) end
      answers[i] = err or record.buckets and 'limited' or 'queued'
    end
  end
  calls.close(batch)
  return answers
end
