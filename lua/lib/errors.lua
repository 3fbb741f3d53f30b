-- One function per refusal. `raise` ends the call with it; the generated wrapper turns it into the reply.
local M = {}

local function refusal(code, message)
  return { err = 'ARDIQ_' .. code .. ' ' .. message }
end

function M.bad_argument(what)
  return refusal('BAD_ARGUMENT', what)
end

function M.duplicate(key, id)
  return refusal('DUPLICATE', 'not enqueued: the key ' .. key .. ' belongs to the task ' .. id)
end

function M.full(where, most, bound)
  local waiting = most == '1' and '1 task waits' or most .. ' tasks wait'
  return refusal('QUEUE_FULL', 'not enqueued: ' .. waiting .. ' ' .. where
    .. ', as many as may. Try again later, or raise max_waiting of ' .. bound .. '.')
end

function M.no_limit(name)
  return refusal('NO_LIMIT', 'limit ' .. name .. ' is not declared in this queue. Start a worker whose code declares'
    .. ' it, or put it there: ardiq limits put ' .. name)
end

function M.lease_lost(worker, why)
  why = why or 'is not a member of this queue: its lease expired, or it never joined'
  return refusal('LEASE_LOST', 'worker ' .. worker .. ' ' .. why .. '. Drop what was not started and join under a new'
    .. ' identity.')
end

function M.old_step(seq, last)
  return refusal('OLD_STEP', 'step ' .. seq .. ' came after step ' .. last .. ' was answered; nothing was changed')
end

function M.lost_steps(worker, seq, last)
  return M.lease_lost(worker, 'sent step ' .. seq .. ' after step ' .. last .. ': the server lost the steps between, as'
    .. ' may happen in a failover')
end

local function damaged(key, what, remedy)
  return refusal('WRONG_TYPE', 'key ' .. key .. ' does not hold what ' .. what .. ': something else wrote it. '
    .. remedy)
end

function M.wrong_type(key)
  return damaged(key, 'Ardiq keeps there', 'Look at it with redis-cli TYPE, then rename or delete it.')
end

function M.damaged_limit(base, bucket)
  return damaged(keys.limits(base) .. ' or ' .. keys.overrides(base), 'limit ' .. bucket .. ' may be',
    'Start a worker whose code declares it; or to remove what was put: ardiq limits remove ' .. bucket)
end

function M.raise(err)
  error(err, 0)
end

-- The error text of a redis.pcall reply, or nil.
function M.of(reply)
  return type(reply) == 'table' and reply.err or nil
end

-- A command that refuses the whole call when its key has another type; nothing may be written before it.
function M.read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then M.raise(M.wrong_type(key)) end
  return M.raise(reply)
end

return M
