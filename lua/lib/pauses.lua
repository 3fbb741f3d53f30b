-- Pauses as they are kept, for those who make and end them. Each has an id that people can read: `send()` for a task's
-- name, `send(customer=42)` for one with an argument of a value, `*` for any name, `*()` for the whole queue.
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

-- The definition under an id, or nil.
function M.read(base, id)
  local text = errors.read('HGET', keys.pauses(base), id)
  local ok, rule = pcall(cjson.decode, text or '')
  return ok and type(rule) == 'table' and rule or nil
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
function M.check(base, id, is_new)
  errors.read('HGET', keys.meta(base), 'paused')
  errors.read('ZCARD', keys.held(base, id))
  if is_new and errors.read('HLEN', keys.pauses(base)) >= MAX then
    bad('there are ' .. MAX .. ' pauses already: resume some, or pause by task name')
  end
end

-- What did not change is left alone: its text may have another order of fields.
function M.write(base, id, rule, changed)
  if changed then redis.call('HSET', keys.pauses(base), id, cjson.encode(rule)) end
  tell_claims(base)
end

function M.remove(base, id)
  redis.call('HDEL', keys.pauses(base), id)
  tell_claims(base)
end

-- Add positions (task name -> position) that `rule` does not know yet. Replies whether there were any.
function M.learn(rule, positions)
  local known, learned = rule.positions or {}, false
  for name, position in pairs(positions or {}) do
    learned = learned or not known[name]
    known[name] = known[name] or position
  end
  rule.positions = next(known) and known or nil
  return learned
end

-- Something may start again: wake workers for all that is ready.
function M.wake_all(base)
  local quarantined = redis.pcall('ZCARD', keys.quarantined(base))
  quarantined = errors.of(quarantined) and 0 or quarantined
  local lanes = redis.pcall('SMEMBERS', keys.lanes(base))
  for _, name in ipairs(errors.of(lanes) and {} or lanes) do
    local ready, lines = redis.pcall('LLEN', keys.ready(base, name)), redis.pcall('ZCARD', keys.ring(base, name))
    lane.wake(base, name, quarantined + (errors.of(ready) and 0 or ready) + (errors.of(lines) and 0 or lines))
  end
end

-- Go on with pauses whose end was asked for, should its caller be gone. Replies whether there may be more to do.
function M.go_on(batch, limit)
  local entries = redis.pcall('HGETALL', keys.pauses(batch.base))
  if errors.of(entries) then return false end
  for i = 1, #entries, 2 do
    local ok, rule = pcall(cjson.decode, entries[i + 1])
    if ok and type(rule) == 'table' and rule.resuming then
      local moved, left = move.give_back(batch, entries[i], limit)
      if not left then M.remove(batch.base, entries[i]) end
      if moved > 0 or not left then return true end
    end
  end
  return false
end

return M
