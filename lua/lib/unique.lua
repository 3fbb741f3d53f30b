-- Keys of unique tasks: who has them. The last task of a key is kept in the hash `unique` until it ends, and where a time is
-- what counts, in `window:<key>`. Whether it is in the way of another call is judged when that comes (admit.lua), by its
-- record: a claim need not know.
local M = {}

-- For how long a call whose reply was lost still finds the task that took its arguments, after that has ended.
local REPEAT_MS = 60000
-- How many entries a heartbeat looks at.
local LOOK_AT = 10

-- Who has a key, of tasks that have it until they end; nil: nobody. Replies an error text, too, where the place is damaged.
function M.holder(base, key)
  local id = redis.pcall('HGET', keys.unique(base), key)
  if errors.of(id) then return nil, errors.wrong_type(keys.unique(base)).err end
  return id or nil
end

-- Who has the window of a key, as `holder`, and how long it lasts. Where the clock is not the server's own it may have ended
-- although its key is there.
function M.window(base, key)
  local place = keys.window(base, key)
  local id = redis.pcall('GET', place)
  if errors.of(id) then return nil, errors.wrong_type(place).err end
  local left_ms = id and redis.call('PTTL', place) or 0
  return left_ms > 0 and id or nil, nil, left_ms
end

-- A new task has the key, for a time or until it ends.
function M.take(base, key, id, window_ms)
  if not window_ms then return redis.call('HSET', keys.unique(base), key, id) end
  return redis.call('SET', keys.window(base, key), id, 'PX', clock.text(window_ms))
end

-- A task has ended, or is about to: its key is free. A damaged key keeps no task from ending, hence pcall.
function M.free(base, id)
  local known = redis.pcall('HMGET', keys.task(base, id), 'unique', 'replaced_by')
  local key, replaced_by = known[1], known[2]
  if not key then return end
  if redis.pcall('HGET', keys.unique(base), key) == id then redis.call('HDEL', keys.unique(base), key) end
  if replaced_by then redis.call('SET', keys.window(base, key), id, 'PX', REPEAT_MS, 'NX') end
end

-- A dead letter waits again: it has its key again if nobody else has.
function M.take_back(base, id)
  local key = redis.call('HGET', keys.task(base, id), 'unique')
  if key then redis.pcall('HSETNX', keys.unique(base), key, id) end
end

-- Drop some of the entries whose task has ended without anybody's freeing its key: version 1 did it, or its record was deleted.
function M.sweep(base)
  local entries = redis.pcall('HRANDFIELD', keys.unique(base), LOOK_AT, 'WITHVALUES')
  for i = 1, errors.of(entries) and 0 or #entries, 2 do
    local record = task.read(base, entries[i + 1], { 'state', 'unique' })
    if record and (not record.state or task.is_finished(record.state) or record.unique ~= entries[i]) then
      redis.call('HDEL', keys.unique(base), entries[i])
    end
  end
end

return M
