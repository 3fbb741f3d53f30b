-- Messages to blocked processes. A message is a run of netstrings (`<length>:<bytes>,`), so that any bytes travel.
local M = {}

-- The fields an outcome is made of.
M.OUTCOME = { 'state', 'tries', 'enqueued_at', 'started_at', 'finished_at', 'result_codec', 'result', 'error' }

local TTL_MS, AHEAD_MS = 600000, 3600000
local MAX = 10000
local LARGEST_OUTCOME = 65536

-- `parts`: a list of `count` entries, perhaps more than a call takes arguments.
function M.pack_list(parts, count)
  local packed = {}
  for i = 1, count do
    local part = tostring(parts[i])
    packed[i] = #part .. ':' .. part .. ','
  end
  return table.concat(packed)
end

function M.pack(...) return M.pack_list({ ... }, select('#', ...)) end

-- Put messages into a mailbox. Nobody may ever read it, so it is bounded and ends by itself.
function M.post(base, name, messages)
  local key = keys.mailbox(base, name)
  local count = redis.pcall('RPUSH', key, unpack(messages))
  if errors.of(count) then return end
  if count > MAX then redis.call('LTRIM', key, -MAX, -1) end
  redis.call('PEXPIRE', key, TTL_MS)
end

-- The outcome of a finished record, in the order of `await`'s reply.
function M.outcome(record)
  local failed = record.state ~= 'complete'
  return {
    record.state, record.tries or '0', record.enqueued_at or '0', record.started_at or '0',
    record.finished_at or '0', not failed and record.result_codec or '',
    failed and (record.error or record.state) or record.result or '',
  }
end

-- What a waiter is told; beyond 64 KiB only that it ended, and it asks for the rest, unless nothing of it is kept.
function M.finished(id, outcome, is_gone)
  if #outcome[7] > LARGEST_OUTCOME and not is_gone then return M.pack('finished', id) end
  return M.pack('finished', id, unpack(outcome))
end

-- Note until when anybody may be waiting for a task, so that calls need not look for waiters where there are none.
-- `ttl_ms`: the longest wait that this call registered. An hour is added, so that it is written once an hour. Where the
-- key is damaged, all calls look, hence pcall.
function M.note_wait(base, now, ttl_ms)
  local key = keys.meta(base)
  local known = redis.pcall('HGET', key, 'waited_until')
  if not errors.of(known) and number.of(known, 0) < now + ttl_ms then
    redis.call('HSET', key, 'waited_until', clock.text(math.ceil(now + ttl_ms) + AHEAD_MS))
  end
end

-- Whether somebody may be waiting for any task. `noted`: what `meta` says of it, if known.
function M.is_awaited(base, now, noted)
  noted = noted or redis.pcall('HGET', keys.meta(base), 'waited_until')
  return errors.of(noted) or number.of(noted or 0, math.huge) > now
end

-- Register a mailbox to be told when a task ends. `is_first`: it is known that nobody waits for it.
function M.await(base, id, name, ttl_ms, is_first)
  local key = keys.waiters(base, id)
  errors.read('SADD', key, name)
  if is_first or redis.call('PTTL', key) < ttl_ms then redis.call('PEXPIRE', key, ttl_ms) end
end

return M
