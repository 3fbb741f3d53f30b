-- enqueue: none, complete, failed, aborted, expired, discarded, queued, limited, scheduled -> queued, scheduled, limited, running, held, expired, aborted. A client adds tasks; an id already waiting or running is left as it is, and what has the key of another adds nothing, or replaces its arguments, which aborts children of the old ones. A few tasks in empty lanes are claimed at once for workers that have nothing to do, and put into their mailboxes.
-- args: tasks: (id, name, lane, args, kwargs, options)…
-- reply: one string per task, in order: `queued`, `scheduled`, `limited`, `exists` (unfinished under this id, nothing added), `accepted` (this very call was already carried out), `exists <id>` (the task of that id has the key), `replaced <id>` (that task, which waits, has these arguments now), or an error
-- Everything is read and refused before the first write, so a refused batch leaves nothing behind.

local WAITER_TTL_MS = 3600000
-- What there is to say of a task without options that is new, as most are.
local PLAIN = {}
local OPTIONS = {
  delay_ms = 'number', due_at = 'number', expire_ms = 'number', codec = 'string', headers = 'string',
  idempotency_key = 'string', waiter = 'string', waiter_ttl_ms = 'number', result_ttl_ms = 'number',
  unique = 'table', debounce = 'table', throttle = 'table', limits = 'table', max_waiting = 'number',
  home = 'string', life = 'string', afresh = 'boolean',
}

-- What an `options` object asks for: when the task falls due (nil: at once), its line (nil: none), and the fields it adds to the
-- record.
local function read_options(base, text, now, declared)
  local known = uses.known(text)
  if known then
    local refusal, most = uses.refusal(base, known, declared)
    if not refusal and most == math.huge then return known end
    return { line = not refusal and known.line or nil, fields = known.fields, most_waiting = most, refusal = refusal }
  end
  local options = object.decode(text, OPTIONS, 'options')
  if options.delay_ms and options.due_at then errors.raise(errors.bad_argument('give delay_ms or due_at, not both')) end
  local waiter_ttl_ms = options.waiter_ttl_ms or WAITER_TTL_MS
  if waiter_ttl_ms <= 0 then errors.raise(errors.bad_argument('waiter_ttl_ms must be positive')) end
  if options.max_waiting and number.of(options.max_waiting, 0) < 1 then
    errors.raise(errors.bad_argument('max_waiting must be at least 1'))
  end
  local fields = {}
  local function add(name, value)
    if value and value ~= '' then fields[#fields + 1], fields[#fields + 2] = name, value end
  end
  local rule = (options.unique or options.debounce or options.throttle) and admit.rule(options)
  local delay_ms, due_at, expire_ms = options.delay_ms or 0, options.due_at, options.expire_ms or 0
  if rule and rule.quiet_ms then delay_ms = rule.quiet_ms end
  if delay_ms > 0 then due_at = now + delay_ms end
  due_at = due_at and due_at > now and math.floor(due_at) or nil
  add('due_at', due_at and clock.text(due_at))
  add('expires_at', expire_ms > 0 and clock.text(now + expire_ms))
  add('codec', options.codec)
  add('headers', options.headers)
  add('idempotency_key', options.idempotency_key)
  add('result_ttl_ms', options.result_ttl_ms and clock.text(options.result_ttl_ms))
  add('unique', rule and rule.key)
  local asked, refusal, most = uses.read(options.limits), nil, nil
  if options.home then
    if not (options.life and options.idempotency_key) then
      errors.raise(errors.bad_argument('a guest needs life and idempotency_key'))
    end
    add('home', options.home)
    add('life', options.life)
    -- An earlier version would not tell its home.
    add('needs_version', not asked and task.VERSION_TEXT)
  end
  if asked then
    uses.remember(text, options, asked)
    refusal, most = uses.refusal(base, asked, declared)
  end
  local line_name = asked and not refusal and asked.line or nil
  local waiter = options.waiter ~= '' and not refusal and options.waiter or nil
  return { due_at = due_at, line = line_name, most_waiting = most, most_in_lane = options.max_waiting,
    refusal = refusal, fields = uses.fields(fields, asked), rule = rule, waiter = waiter, waiter_ttl_ms = waiter_ttl_ms,
    idempotency_key = options.idempotency_key, home = options.home,
    life = options.life, goes_on = options.life and not options.afresh }
end

-- What is there under an id already: an answer, or nil and whether a finished record must make room.
local function look_up(base, id, idempotency_key, life)
  local record, err = task.read(base, id, { 'state', 'idempotency_key', 'kind', 'home', 'life' })
  if err then return err end
  if not record.state then return nil, false end
  -- A random id needs no key: only a repeat of its own call can find it.
  if record.idempotency_key == idempotency_key then return 'accepted' end
  if not task.is_finished(record.state) then return 'exists' end
  -- A workflow stays as long as it is kept, and so does what is a part of it.
  if record.kind then return 'exists' end
  local answer = record.home and outbox.in_the_way(base, id, record, life)
  if answer then return answer end
  if string.find(id, '~', 1, true) and group.of({ base = base }, id) then return 'exists' end
  errors.read('ZCARD', keys.dead(base))
  return nil, true
end

-- A finished record makes room for a task; of a guest that failed, the next life goes on with its steps.
local function make_room(batch, id, plan)
  local base, bytes = batch.base, plan.goes_on and outbox.kept_for(batch.base, id, plan.life)
  if not bytes then return move.remove(batch, id) end
  redis.call('DEL', keys.task(base, id))
  memos.take_up(base, batch.now, id)
  children.keep(batch, id)
  local fields = plan.fields
  fields[#fields + 1], fields[#fields + 2] = 'steps', bytes
end

-- Why a task cannot wait in its line, or in its lane: as many do as may. `look`: what is known of the lane.
local function full(batch, lane_name, plan, look)
  local most, most_in_lane = plan.most_waiting or math.huge, plan.most_in_lane or math.huge
  if plan.due_at then return nil end
  if most < math.huge and batches.length_of_line(batch, lane_name, plan.line) >= most then
    return errors.full('for ' .. plan.line, clock.text(most), 'the limit').err
  end
  if most_in_lane < math.huge and look.ready - look.marked + look.limited + look.added >= most_in_lane then
    return errors.full('in lane ' .. lane_name, clock.text(most_in_lane), 'the lane').err
  end
end

-- The client that enqueued wants to be told; when its repeated call finds the task finished, at once.
local function tell_or_await(base, id, plan, answer)
  local record = answer == 'accepted' and task.read(base, id, mail.OUTCOME)
  if record and task.is_finished(record.state) then
    mail.post(base, plan.waiter, { mail.finished(id, mail.outcome(record)) })
  else
    mail.await(base, id, plan.waiter, plan.waiter_ttl_ms, plan.is_first)
  end
end

-- What becomes of a call, by its options, instead of a new task: an answer, or nil. An id without a key of its call is random,
-- and that of a guest no place of a workflow here.
local function instead_of(batch, tasks, at, plan, look)
  local refusal = plan.idempotency_key and not plan.home and group.reserved(batch, tasks[at])
  if refusal then return refusal end
  local call = plan.rule
    and { identity = plan.idempotency_key or tasks[at], args = tasks[at + 3], kwargs = tasks[at + 4] }
  return call and admit.call(batch, plan.rule, call, plan) or full(batch, tasks[at + 2], plan, look)
end

return function(base, args)
  local tasks, now, now_text = args.tasks, clock.read()
  if #tasks == 0 then return {} end
  local count, workers, first_lane = #tasks / 6, lane.count_workers(base), tasks[3]
  local lanes, seen = { first_lane }, { [first_lane] = lane.look(base, first_lane, workers) }
  -- Tombstones and records, which most calls find none of.
  local found = { keys.tombstones(base, first_lane), false }
  local answers, plans, ids, some_later, some_waiter = { false }, nil, count > 1 and {}, false, false
  local some_limited, some_guest, declared, sound = false, false, {}, {}
  local added = count
  for i = 1, count do
    local at = 6 * i - 5
    local id, lane_name, options = tasks[at], tasks[at + 2], tasks[at + 5]
    if id == '' or tasks[at + 1] == '' or lane_name == '' then
      errors.raise(errors.bad_argument('a task needs an id, a name and a lane'))
    end
    found[i + 1] = keys.task(base, id)
    if not seen[lane_name] then
      lanes[#lanes + 1], seen[lane_name] = lane_name, lane.look(base, lane_name, workers)
    end
    if ids then
      if ids[id] then answers[i], added = 'exists', added - 1 end
      ids[id] = true
    end
    if options ~= '' then
      local plan = read_options(base, options, now, declared)
      plans = plans or {}
      plans[i], some_later, some_waiter = plan, some_later or plan.due_at, some_waiter or plan.waiter
      some_guest = some_guest or plan.home
      if plan.rule then
        some_later = some_later or plan.rule.replaces or plan.rule.kind == 'throttle'
      end
      if plan.refusal and not answers[i] then answers[i], added = plan.refusal.err, added - 1 end
      if plan.most_in_lane and not seen[lane_name].limited then
        local look = seen[lane_name]
        look.limited, look.added = number.of(errors.read('HGET', keys.limited(base), lane_name), 0), 0
      end
      if plan.line then
        local err = line.damage(base, lane_name, plan.line, sound)
        if err then errors.raise(err) end
        some_limited = true
      end
    end
  end

  for i = 2, #lanes do found[count + i] = keys.tombstones(base, lanes[i]) end
  local existing = redis.call('EXISTS', unpack(found))
  if existing > 0 then
    for _, name in ipairs(lanes) do
      local marked = errors.read('SCARD', keys.tombstones(base, name))
      seen[name].marked = marked
      if marked > 0 then existing = existing - 1 end
    end
  end
  local replaced
  for i = 1, existing > 0 and count or 0 do
    if not answers[i] then
      local plan = plans and plans[i]
      local answer, replaces = look_up(base, tasks[6 * i - 5], plan and plan.idempotency_key, plan and plan.life)
      if answer then answers[i], added = answer, added - 1 end
      if replaces then
        replaced = replaced or {}
        replaced[i] = true
      end
    end
  end
  local longest_wait_ms = 0
  if some_waiter then
    for i, plan in pairs(plans) do
      if plan.waiter then
        longest_wait_ms = math.max(longest_wait_ms, plan.waiter_ttl_ms)
        -- Named twice in this call, it has one by then.
        plan.is_first = errors.read('SCARD', keys.waiters(base, tasks[6 * i - 5])) == 0 and answers[i] ~= 'exists'
      end
    end
  end
  if some_later then
    errors.read('ZCARD', keys.scheduled(base))
    errors.read('HGET', keys.meta(base), 'timer_at')
  end
  local batch = batches.open(base, now, now_text)
  batch.seen = seen
  local offers = added > 0 and workers > 0 and not (some_later or some_limited or some_guest)
    and hand_off.offers(batch, lanes, added)

  for _, name in ipairs(added > 0 and lanes or {}) do
    if seen[name].is_new then redis.call('SADD', keys.lanes(base), name) end
  end
  for i = 1, count do
    local at, plan = 6 * i - 5, plans and plans[i] or PLAIN
    local instead = plans and not answers[i] and instead_of(batch, tasks, at, plan, seen[tasks[at + 2]])
    if instead then
      answers[i], added = instead, added - 1
    elseif not answers[i] then
      if replaced and replaced[i] then make_room(batch, tasks[at], plan) end
      answers[i] =
        move.create(batch, found[i + 1], tasks[at], tasks[at + 1], tasks[at + 2], tasks[at + 3], tasks[at + 4], plan)
      if plans then
        if plan.rule then admit.added(batch, tasks[at], plan) end
        local look = seen[tasks[at + 2]]
        if look.added and not plan.due_at then look.added = look.added + 1 end
      end
    end
    if plan.home and (answers[i] == 'accepted' or answers[i] == 'exists') then outbox.answer_again(base, tasks[at]) end
    if plan.waiter and not instead then tell_or_await(base, tasks[at], plan, answers[i]) end
  end
  stats.add(base, now, 'enqueued', added)
  if longest_wait_ms > 0 then mail.note_wait(base, now, longest_wait_ms) end
  if offers and added > 0 then hand_off.give(batch, offers, lanes, added) end
  calls.close(batch)
  return answers
end
