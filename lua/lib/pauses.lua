-- Pauses as they are kept, for those who make and end them. Each has an id that people can read: `send()` for a task's
-- name, `send(customer=42)` for one with an argument of a value, `*` for any name, `*()` for the whole queue, `order-17~*` for
-- a workflow.
local M = {}

local WHOLE = '*()'
-- A claim reads them all.
local MAX = 500

local function bad(what) errors.raise(errors.bad_argument(what)) end

-- The pause that a call names: its id, and its definition as it is kept.
function M.named(args)
  local name, argument, value = args.task ~= '' and args.task or pause_rules.ANY, args.argument, args.value
  local rule = { task = name ~= pause_rules.ANY and name or nil }
  if argument == '' then return name .. '()', rule end
  if not string.find(argument, '^[%w_\128-\255]+$') then
    bad('argument must be the name of a parameter, or a position from 0')
  end
  local ok, list = pcall(cjson.decode, '[' .. value .. ']')
  local is_text = ok and #list == 1 and type(list[1]) == 'string' and string.find(value, '^".*"$')
  if not is_text and not string.find(value, '^%-?%d+$') and value ~= 'true' and value ~= 'false' then
    bad('value must be the JSON of a string, an integer or a boolean')
  end
  if #value > payload.MAX_VALUE then bad('value must not be longer than ' .. payload.MAX_VALUE .. ' bytes') end
  rule.argument, rule.value = argument, value
  return name .. '(' .. argument .. '=' .. value .. ')', rule
end

local function tell_claims(base)
  local flag
  if redis.call('HEXISTS', keys.pauses(base), WHOLE) == 1 then
    flag = pause_rules.QUEUE
  elseif redis.call('EXISTS', keys.pauses(base)) == 1 then
    flag = pause_rules.TASKS
  end
  if flag then
    redis.call('HSET', keys.meta(base), 'paused', flag)
  else
    redis.call('HDEL', keys.meta(base), 'paused')
  end
end

-- Refuse the call while nothing is written yet.
local function check(base, id, is_new)
  errors.read('HGET', keys.meta(base), 'paused')
  errors.read('ZCARD', keys.held(base, id))
  if is_new and errors.read('HLEN', keys.pauses(base)) >= MAX then
    bad('there are ' .. MAX .. ' pauses already: resume some, or pause by task name')
  end
end

-- What did not change is left alone: its text may have another order of fields.
local function write(base, id, rule, changed)
  if changed then redis.call('HSET', keys.pauses(base), id, cjson.encode(rule)) end
  tell_claims(base)
end

local function remove(base, id)
  redis.call('HDEL', keys.pauses(base), id)
  tell_claims(base)
end

-- Add positions (task name -> position) that `rule` does not know yet. Replies whether there were any.
local function learn(rule, positions)
  local known, learned = rule.positions or {}, false
  for name, position in pairs(positions or {}) do
    learned = learned or not known[name]
    known[name] = known[name] or position
  end
  rule.positions = next(known) and known or nil
  return learned
end

-- Something may start again: wake workers for all that is ready.
local function wake_all(base)
  local quarantined = redis.pcall('ZCARD', keys.quarantined(base))
  quarantined = errors.of(quarantined) and 0 or quarantined
  local lanes = redis.pcall('SMEMBERS', keys.lanes(base))
  for _, name in ipairs(errors.of(lanes) and {} or lanes) do
    local ready, lines = redis.pcall('LLEN', keys.ready(base, name)), redis.pcall('ZCARD', keys.ring(base, name))
    lane.wake(base, name, quarantined + (errors.of(ready) and 0 or ready) + (errors.of(lines) and 0 or lines))
  end
end

-- What `rule` is about does not start any more. One that is there stays, and learns positions.
function M.begin(base, id, rule, positions)
  local before = pause_rules.read(base, id)
  check(base, id, not before)
  if before and not before.resuming then rule = before else rule.paused_at = clock.now() end
  local learned = rule.argument and learn(rule, positions)
  write(base, id, rule, rule ~= before or learned)
end

-- held -> queued, limited: a pause ends, as far as `limit` goes. `goes_on`: its end was begun before. Replies what `resume` does.
function M.finish(base, id, named, limit, goes_on)
  local rule = pause_rules.read(base, id)
  check(base, id)
  -- One that was made anew meanwhile is not the one whose end was begun.
  local is_over = goes_on and not (rule and rule.resuming)
  if is_over or not rule and redis.call('EXISTS', keys.held(base, id)) == 0 then return { 'not_paused', 0, 0 } end
  local batch = batches.open(base, clock.read())
  local moved, left = move.give_back(batch, id, limit)
  if left then
    rule = rule or named
    local changed = not rule.resuming
    rule.resuming = true
    write(base, id, rule, changed)
  else
    remove(base, id)
  end
  calls.close(batch)
  wake_all(base)
  return { 'resumed', moved, left and moved > 0 and 1 or 0 }
end

-- Go on with pauses whose end was asked for, should its caller be gone. Replies whether there may be more to do.
function M.go_on(batch, limit)
  local entries = redis.pcall('HGETALL', keys.pauses(batch.base))
  if errors.of(entries) then return false end
  for i = 1, #entries, 2 do
    local ok, rule = pcall(cjson.decode, entries[i + 1])
    if ok and type(rule) == 'table' and rule.resuming then
      local moved, left = move.give_back(batch, entries[i], limit)
      if not left then remove(batch.base, entries[i]) end
      if moved > 0 or not left then return true end
    end
  end
  return false
end

return M
