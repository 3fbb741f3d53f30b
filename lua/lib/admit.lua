-- Calls with the same key: what becomes of one that finds a task in its way. unique.lua knows who has the key.
local M = {}

local HOLDER = { 'state', 'lane', 'tries', 'enqueued_at', 'due_at', 'expires_at', 'unique', 'replaced_by',
  'buckets', 'waits_for', 'steps' }
-- What each rule may say.
local RULES = {
  unique = { key = 'string', ['until'] = 'string', ttl_ms = 'number', on_conflict = 'string' },
  debounce = { key = 'string', quiet_ms = 'number', most_ms = 'number' },
  throttle = { key = 'string', per_ms = 'number', trailing = 'boolean' },
}
local UNTIL = { start = true, finish = true, window = true }
local ON_CONFLICT = { keep = true, replace = true, reject = true }
-- How far what a key's time to live says of a window's end may be from what a record says.
local OFF_MS = 5
-- What a task has of its call, which another call replaces.
local OF_CALL = { 'kwargs', 'codec', 'headers', 'expires_at', 'result_ttl_ms', 'weight', 'steps', 'waited_ms' }

local function refuse(what) errors.raise(errors.bad_argument(what)) end

-- The rule that the options of a call name, checked, or nil.
function M.rule(options)
  local rule
  for name, kinds in pairs(RULES) do
    local given = options[name]
    if given and rule then refuse('give one of unique, debounce and throttle') end
    if given then
      rule = object.check(given, kinds, name)
      rule.kind = name
      for field, kind in pairs(kinds) do
        if kind == 'number' and rule[field] then
          if number.of(rule[field], 0) < 1 then refuse('in ' .. name .. ', ' .. field .. ' must be at least 1') end
          rule[field] = math.floor(rule[field])
        end
      end
    end
  end
  if not rule then return nil end
  if not rule.key or rule.key == '' then refuse(rule.kind .. ' needs a key') end
  if rule.kind == 'unique' then
    if not UNTIL[rule['until']] then refuse('in unique, until must be start, finish or window') end
    if (rule['until'] == 'window') ~= (rule.ttl_ms ~= nil) then refuse('in unique, ttl_ms is for until window') end
    rule.on_conflict = rule.on_conflict or 'keep'
    if not ON_CONFLICT[rule.on_conflict] then refuse('in unique, on_conflict must be keep, replace or reject') end
  elseif (options.delay_ms or 0) > 0 or options.due_at then
    refuse(rule.kind .. ' says itself when the task falls due: give no delay_ms or due_at')
  elseif rule.kind == 'debounce' then
    if not rule.quiet_ms then refuse('debounce needs quiet_ms') end
    if rule.most_ms and rule.most_ms < rule.quiet_ms then refuse('in debounce, most_ms must not be below quiet_ms') end
  elseif not rule.per_ms then
    refuse('throttle needs per_ms')
  end
  rule.window_ms = rule.ttl_ms or rule.per_ms
  rule.replaces = rule.on_conflict == 'replace' or rule.kind == 'debounce'
  return rule
end

-- The task that may be in the way (nil: none), an error text where that cannot be told, its record, how long its window
-- lasts, and `is_past`: it is no longer in the way, but took this call's arguments, perhaps.
local function holder_of(base, rule)
  local id, err, left_ms
  if not rule.window_ms then id, err = unique.holder(base, rule.key) end
  local is_past = not id and not rule.window_ms
  if not id and not err and (rule.window_ms or rule.replaces) then id, err, left_ms = unique.window(base, rule.key) end
  if not id then return nil, err end
  local record, damage = task.read(base, id, HOLDER)
  -- A later task may have the id.
  if not record or record.unique ~= rule.key then record = {} end
  return id, damage, record, left_ms, is_past
end

-- One that has begun, and waits for something of its own, counts as running.
local function waits(record, now)
  return task.is_waiting(record.state) and not record.waits_for and number.of(record.expires_at, math.huge) > now
end

-- Whether the holder is in the way of a unique or debounced call.
local function is_in_the_way(rule, record, now)
  if rule.window_ms or waits(record, now) then return true end
  return rule['until'] == 'finish' and (record.state == 'running' or record.waits_for ~= nil)
end

-- The waiting task `id` takes what the call says; where it is given, and the task is not due yet, its due time as well.
local function replace(batch, id, record, call, plan, due_at)
  local key, fields = keys.task(batch.base, id), plan.fields
  local written = { 'args', call.args == '' and '[]' or call.args, 'replaced_by', call.identity }
  local function add(name, value) written[#written + 1], written[#written + 2] = name, value end
  if call.kwargs ~= '' then add('kwargs', call.kwargs) end
  for i = 1, #fields, 2 do
    if fields[i] ~= 'due_at' and fields[i] ~= 'idempotency_key' then add(fields[i], fields[i + 1]) end
  end
  -- One that waits for another try begins anew, with the `tries` of the call.
  if number.of(record.tries, 0) > 0 then add('enqueued_at', batch.now_text) end
  due_at = record.state == 'scheduled' and due_at or nil
  if due_at then add('due_at', clock.text(due_at)) end
  if record.steps then memos.drop(batch, id) end
  redis.call('HDEL', key, unpack(OF_CALL))
  redis.call('HSET', key, unpack(written))
  if due_at then move.schedule(batch, id, record.lane or task.DEFAULT_LANE, due_at) end
  if record.state == 'limited' and plan.line and plan.line ~= record.buckets then
    if record.buckets then line.take_out(batch, record.lane or task.DEFAULT_LANE, record.buckets, id) end
    batches.add_to_line(batch, record.lane or task.DEFAULT_LANE, plan.line, id, 'RPUSH')
  end
  return 'replaced ' .. id
end

-- When a debounced task falls due after one more call.
local function quiet_until(rule, record, now)
  local first = number.of(record.tries, 0) > 0 and now or number.of(record.enqueued_at, now)
  return math.max(math.min(now + rule.quiet_ms, rule.most_ms and first + rule.most_ms or math.huge), now)
end

-- A throttled call within the window of an earlier one. The window ends a period after that was due.
local function throttle(batch, id, record, left_ms, rule, call, plan)
  local now = batch.now
  if rule.trailing == false then return 'exists ' .. id end
  local is_untried = number.of(record.tries, 0) == 0
  local was_delayed = record.due_at and is_untried
  if was_delayed and waits(record, now) then return replace(batch, id, record, call, plan) end
  local ends_at = now + left_ms
  -- A key's time to live is told by another clock, which may be a millisecond off. The record says when it began.
  local told = number.of(record.due_at or record.enqueued_at, 0) + rule.per_ms
  if math.abs(told - ends_at) <= OFF_MS then ends_at = told end
  -- One that was removed before its turn leaves that to this one.
  if was_delayed and task.is_finished(record.state) then ends_at = ends_at - rule.per_ms end
  plan.due_at = math.max(ends_at, now + 1)
  plan.fields[#plan.fields + 1], plan.fields[#plan.fields + 2] = 'due_at', clock.text(plan.due_at)
end

-- What becomes of a call under a rule: an answer, or nil: it is a new task, perhaps a delayed one.
function M.call(batch, rule, call, plan)
  local now = batch.now
  local id, err, record, left_ms, is_past = holder_of(batch.base, rule)
  if err or not id then return err end
  -- This very call, whose reply was lost.
  if record.replaced_by == call.identity then return 'replaced ' .. id end
  if is_past then return nil end
  if rule.kind == 'throttle' then return throttle(batch, id, record, left_ms, rule, call, plan) end
  if not is_in_the_way(rule, record, now) then return nil end
  if rule.on_conflict == 'reject' then return errors.duplicate(rule.key, id).err end
  if not rule.replaces or not waits(record, now) then return 'exists ' .. id end
  local due_at = rule.kind == 'debounce' and quiet_until(rule, record, now) or plan.due_at or now
  return replace(batch, id, record, call, plan, due_at)
end

-- The call has become a new task.
function M.added(batch, id, plan)
  local rule = plan.rule
  -- The window of a trailing call begins when that is due.
  local ahead_ms = rule.kind == 'throttle' and plan.due_at and plan.due_at - batch.now or 0
  unique.take(batch.base, rule.key, id, rule.window_ms and ahead_ms + rule.window_ms)
end

return M
