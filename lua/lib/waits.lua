-- Steps whose results are kept, waits, and signals: what is asked of them while a task runs, and while it waits.
local M = {}

M.LARGEST_SIGNAL = 65536
local MOST_KEPT, LARGEST, LARGEST_SUM = 1000, 1048576, 16777216
local LONGEST_NAME, MOST_NAMES, MOST_SIGNALS = 200, 100, 1000

function M.refuse(what) errors.raise(errors.bad_argument(what)) end

function M.check_name(name)
  if name == '' or #name > LONGEST_NAME then
    M.refuse('the name of a step or a wait must be 1 to ' .. LONGEST_NAME .. ' bytes')
  end
end

function M.check_signal(name)
  if type(name) ~= 'string' or #name > LONGEST_NAME or not string.find(name, '^[^%s%c]+$') then
    M.refuse('the name of a signal must be 1 to ' .. LONGEST_NAME .. ' bytes without spaces')
  end
end

function M.check_signals(names)
  if type(names) ~= 'table' or #names > MOST_NAMES then
    M.refuse('signals must be a JSON array of up to ' .. MOST_NAMES .. ' names')
  end
  for name in pairs(names) do
    if type(name) ~= 'number' then M.refuse('signals must be a JSON array of names') end
  end
  for _, name in ipairs(names) do M.check_signal(name) end
end

function M.check_codec(codec)
  if string.find(codec, '%s') then M.refuse('a codec must have no spaces') end
end

-- The record of a task that runs under this token; nil: another attempt has it now.
function M.of_attempt(base, args)
  if not member.holds(base, args.worker, args.id, args.token) then return nil end
  local record, err = task.read(base, args.id, { 'state', 'steps', 'needs_version', 'tries' })
  if err then errors.raise({ err = err }) end
  return record.state == 'running' and record or nil
end

-- Kind, codec and value of a memo, and its text; nil where there is none.
function M.read(base, id, name)
  local text = errors.read('HGET', keys.steps(base, id), name)
  if not text then return nil end
  local kind, codec, value = memos.unpack(text)
  if not kind then errors.raise(errors.wrong_type(keys.steps(base, id))) end
  return kind, codec, value, text
end

-- Refuse one more memo, with so many bytes, where a task has as much as it may have.
function M.check_room(base, id, record, name, bytes)
  local what = ' of task ' .. id
  if bytes > LARGEST then
    M.refuse('step ' .. name .. what .. ' returned ' .. bytes .. ' bytes; up to ' .. LARGEST
      .. ' are kept. Return where it is instead')
  elseif errors.read('HLEN', keys.steps(base, id)) >= MOST_KEPT then
    M.refuse('step ' .. name .. what .. ' is one too many: ' .. MOST_KEPT
      .. ' steps and waits of a task are kept. Do more in each')
  elseif number.of(record.steps, 0) + bytes > LARGEST_SUM then
    M.refuse('step ' .. name .. what .. ' returned ' .. bytes .. ' bytes, and its steps together would have more than '
      .. LARGEST_SUM .. '. Return where it is instead')
  end
end

-- A task keeps so many bytes more: only this version knows what to do with them.
function M.note(base, now, id, record, bytes)
  local fields = { 'steps', clock.text(number.of(record.steps, 0) + bytes) }
  if number.of(record.needs_version, 0) < task.VERSION then
    fields[3], fields[4] = 'needs_version', task.VERSION_TEXT
    -- Without it a claim does not ask for that.
    if not record.tries then fields[5], fields[6] = 'tries', '0' end
  end
  redis.call('HSET', keys.task(base, id), unpack(fields))
  memos.keep(base, now, id)
end

-- What a task was sent: fields of its signals, how many of them wait, the next number, and whether one had this nonce.
function M.signals(base, id, nonce)
  local fields, waiting, last, is_known = errors.read('HKEYS', keys.signals(base, id)), 0, 0, false
  for _, field in ipairs(fields) do
    local at, its_nonce, name = string.match(field, '^(%d+) (%S*) (%S*)$')
    if at then
      last = math.max(last, tonumber(at))
      if name ~= '' then waiting = waiting + 1 end
      is_known = is_known or nonce ~= '' and its_nonce == nonce
    end
  end
  return fields, waiting, last + 1, is_known
end

function M.check_signals_left(id, waiting)
  if waiting >= MOST_SIGNALS then
    M.refuse(waiting .. ' signals wait for task ' .. id .. ' already, as many as may')
  end
end

-- A wait is decided: it has this signal. Of one that has a nonce that stays, so that it is known when it is sent again. Replies
-- its codec and its value.
function M.take(base, id, memo, field, name)
  local signals = keys.signals(base, id)
  local text = redis.call('HGET', signals, field) or ''
  local codec, value = string.match(text, '^(%S*) (.*)$')
  codec, value = codec or '', value or text
  redis.call('HSET', keys.steps(base, id), memo, memos.pack('signal:' .. name, codec, value))
  redis.call('HDEL', signals, field)
  local at, nonce = string.match(field, '^(%d+) (%S*)')
  if nonce ~= '' then redis.call('HSET', signals, at .. ' ' .. nonce .. ' ', '') end
  return codec, value
end

return M
