-- What a task keeps from one attempt to the next. `steps:<id>`: by name, what a step returned, or what a wait came to, as kind,
-- codec and value with a space between. `signals:<id>`: what it was sent. Both go with its end, unless it may run again.
local M = {}

-- Stands among those who wait for the end of a task that has any.
M.WAITER = 'steps:'
-- The longest wait; and for so long after the last thing that was kept an end looks for them.
M.LONGEST_MS = 31536000000

function M.pack(kind, codec, value) return kind .. ' ' .. codec .. ' ' .. value end

-- Kind, codec and value; nil: somebody else wrote it.
function M.unpack(text) return string.match(text, '^(%S+) (%S*) (.*)$') end

-- What a wait that is not decided is for: names of signals (name -> true), and until when (ms); nil: it is none.
function M.pending(text)
  local kind, names, deadline = M.unpack(text or '')
  if kind ~= 'until' then return nil end
  local ok, list = pcall(cjson.decode, names)
  local asked = {}
  for _, name in ipairs(ok and type(list) == 'table' and list or {}) do asked[name] = true end
  return asked, number.of(deadline, math.huge)
end

-- The oldest of the signals of these fields that is asked for: its field, and its name.
function M.oldest(fields, asked)
  local first, found, its_name = math.huge, nil, nil
  for _, field in ipairs(fields) do
    local at, name = string.match(field, '^(%d+) %S* (%S+)$')
    if name and asked[name] and tonumber(at) < first then first, found, its_name = tonumber(at), field, name end
  end
  return found, its_name
end

-- For how long (ms) a task is to wait for what one of its memos says; nil: it is there, or the time is over. Replies an error
-- text, too, where a key is damaged.
function M.left_ms(batch, id, name)
  local kept, signals = keys.steps(batch.base, id), keys.signals(batch.base, id)
  local obstacle = batches.obstacle(batch, 'HLEN', kept) or batches.obstacle(batch, 'HLEN', signals)
  if obstacle then return nil, obstacle end
  local asked, deadline = M.pending(redis.call('HGET', kept, name) or nil)
  if not asked or deadline <= batch.now or M.oldest(redis.call('HKEYS', signals), asked) then return nil end
  return math.min(deadline - batch.now, M.LONGEST_MS)
end

-- An end of this task is to look for what it keeps.
function M.keep(base, now, id)
  mail.await(base, id, M.WAITER, M.LONGEST_MS)
  mail.note_wait(base, now, M.LONGEST_MS)
end

-- What a task keeps that has ended, and that only another queue may have run again, goes after that time; nobody looks for it then.
function M.expire(base, id, ttl_ms)
  redis.call('PEXPIRE', keys.steps(base, id), ttl_ms)
  redis.call('PEXPIRE', keys.signals(base, id), ttl_ms)
  redis.pcall('SREM', keys.waiters(base, id), M.WAITER)
end

-- It runs again.
function M.take_up(base, now, id)
  redis.call('PERSIST', keys.steps(base, id))
  redis.call('PERSIST', keys.signals(base, id))
  M.keep(base, now, id)
end

-- A task in this state may run again, and go on from there.
function M.outlive(state) return state == 'failed' or state == 'skipped' end

-- It needs nothing of that any more, and so its children neither: both go when the call ends (parents.lua). Until then nothing new
-- can be kept under its id.
function M.drop(batch, id) batches.push(batch, 'forsaken', id) end

return M
