-- enqueue: none, complete, failed, aborted, expired, discarded, queued -> queued, scheduled, running, held, expired. A client adds tasks; an id already waiting or running is left as it is. A few tasks in empty lanes are claimed at once for workers that have nothing to do, and put into their mailboxes.
-- args: tasks: (id, name, lane, args, kwargs, options)…
-- reply: one string per task, in order: `queued`, `scheduled`, `exists` (unfinished under this id, nothing added), `accepted` (this very call was already carried out), or an error
-- Everything is read and refused before the first write, so a refused batch leaves nothing behind.

local WAITER_TTL_MS = 3600000
-- A task without options.
local PLAIN = {}
local OPTIONS = {
  delay_ms = 'number', due_at = 'number', expire_ms = 'number', codec = 'string', headers = 'string',
  idempotency_key = 'string', waiter = 'string', waiter_ttl_ms = 'number', result_ttl_ms = 'number',
}

-- What an `options` object asks for: when the task falls due (nil: at once), and the fields it adds to the record.
local function read_options(text, now)
  local options = object.decode(text, OPTIONS, 'options')
  if options.delay_ms and options.due_at then errors.raise(errors.bad_argument('give delay_ms or due_at, not both')) end
  local waiter_ttl_ms = options.waiter_ttl_ms or WAITER_TTL_MS
  if waiter_ttl_ms <= 0 then errors.raise(errors.bad_argument('waiter_ttl_ms must be positive')) end
  local fields = {}
  local function add(name, value)
    if value and value ~= '' then fields[#fields + 1], fields[#fields + 2] = name, value end
  end
  local delay_ms, due_at, expire_ms = options.delay_ms or 0, options.due_at, options.expire_ms or 0
  if delay_ms > 0 then due_at = now + delay_ms end
  due_at = due_at and due_at > now and math.floor(due_at) or nil
  add('due_at', due_at and clock.text(due_at))
  add('expires_at', expire_ms > 0 and clock.text(now + expire_ms))
  add('codec', options.codec)
  add('headers', options.headers)
  add('idempotency_key', options.idempotency_key)
  add('result_ttl_ms', options.result_ttl_ms and clock.text(options.result_ttl_ms))
  local waiter = options.waiter ~= '' and options.waiter or nil
  return { due_at = due_at, fields = fields, idempotency_key = options.idempotency_key, waiter = waiter,
    waiter_ttl_ms = waiter_ttl_ms }
end

-- What is there under an id already: an answer, or nil and whether a finished record must make room.
local function look_up(base, id, idempotency_key)
  local record, err = task.read(base, id, { 'state', 'idempotency_key' })
  if err then return err end
  if not record.state then return nil, false end
  -- A random id needs no key: only a repeat of its own call can find it.
  if record.idempotency_key == idempotency_key then return 'accepted' end
  if not task.is_finished(record.state) then return 'exists' end
  return nil, true
end

-- The client that enqueued wants to be told; when its repeated call finds the task finished, at once.
local function tell_or_await(base, id, plan, answer, is_first)
  local record = answer == 'accepted' and task.read(base, id, mail.OUTCOME)
  if record and task.is_finished(record.state) then
    mail.post(base, plan.waiter, { mail.finished(id, mail.outcome(record)) })
  else
    mail.await(base, id, plan.waiter, plan.waiter_ttl_ms, is_first)
  end
end

return function(base, args)
  local tasks, now = args.tasks, clock.now()
  local records, lanes, batch = {}, {}, batches.open(base, now)
  for i, t in ipairs(tasks) do
    if t.id == '' or t.name == '' or t.lane == '' then
      errors.raise(errors.bad_argument('a task needs an id, a name and a lane'))
    end
    records[i] = keys.task(base, t.id)
    if not batch.seen[t.lane] then
      lanes[#lanes + 1], batch.seen[t.lane] = t.lane, lane.check(base, t.lane)
    end
  end
  if #tasks == 0 then return {} end

  local some_exist = redis.call('EXISTS', unpack(records)) > 0
  local answers, plans, replace, seen, is_first, some_later, longest_wait_ms = {}, {}, {}, {}, {}, false, 0
  local added = 0
  for i, t in ipairs(tasks) do
    local plan = t.options ~= '' and read_options(t.options, now) or PLAIN
    if seen[t.id] then
      answers[i] = 'exists'
    elseif some_exist then
      answers[i], replace[i] = look_up(base, t.id, plan.idempotency_key)
    end
    if not answers[i] then added = added + 1 end
    seen[t.id], plans[i] = true, plan
    some_later = some_later or plan.due_at
    if plan.waiter then
      longest_wait_ms = math.max(longest_wait_ms, plan.waiter_ttl_ms)
      -- Named twice in this call, it has one by then.
      is_first[i] = errors.read('SCARD', keys.waiters(base, t.id)) == 0 and answers[i] ~= 'exists'
    end
    if replace[i] then errors.read('ZCARD', keys.dead(base)) end
  end
  if some_later then
    errors.read('ZCARD', keys.scheduled(base))
    errors.read('HGET', keys.meta(base), 'timer_at')
  end
  local offers = added > 0 and not some_later and hand_off.offers(batch, lanes, added)

  for _, name in ipairs(lanes) do
    if batch.seen[name].is_new then redis.call('SADD', keys.lanes(base), name) end
  end
  for i, t in ipairs(tasks) do
    local plan = plans[i]
    if not answers[i] then
      if replace[i] then move.remove(base, t.id) end
      answers[i] = move.create(batch, records[i], t, plan)
    end
    if plan.waiter then tell_or_await(base, t.id, plan, answers[i], is_first[i]) end
  end
  if longest_wait_ms > 0 then mail.note_wait(base, now, longest_wait_ms) end
  if offers then hand_off.give(batch, offers, lanes, added) end
  batches.close(batch)
  return answers
end
