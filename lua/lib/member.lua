-- Membership of workers: leases, their rows, what they have claimed.
local M = {}

local ABORT_LIMIT = 1000

-- Refuse a worker that is not a member, before anything else.
function M.require(base, worker)
  local expiry = errors.read('ZSCORE', keys.workers(base), worker)
  if not expiry or tonumber(expiry) <= 0 then errors.raise(errors.lease_lost(worker)) end
end

function M.renew(base, worker, now, lease_ms)
  redis.call('ZADD', keys.workers(base), now + lease_ms, worker)
end

-- How many tasks a member has claimed, by its running hash; nil of others, false where a damaged key does not tell.
function M.claimed(base, worker)
  local expiry = redis.pcall('ZSCORE', keys.workers(base), worker)
  local count = redis.pcall('HLEN', keys.running(base, worker))
  if errors.of(expiry) or errors.of(count) then return false end
  return expiry and count or nil
end

-- Write down the load of a worker, anew. Replies whether it was another. A damaged `loads` costs a figure, hence pcall.
function M.count_load(base, worker)
  local claimed = M.claimed(base, worker)
  if claimed then return redis.pcall('ZADD', keys.loads(base), 'CH', claimed, worker) == 1 end
  return redis.pcall('ZREM', keys.loads(base), worker) == 1
end

-- A worker has claimed so many tasks more, or less. One whose load nobody wrote down yet is counted.
function M.change_load(base, worker, by)
  if not redis.pcall('ZADD', keys.loads(base), 'XX', 'INCR', by, worker) then M.count_load(base, worker) end
end

-- A worker found nothing to do: whoever enqueues finds it by each lane that it has room for. Its row says what it would
-- take; where it says nothing any more, such an entry is stale, and goes when somebody comes upon it.
function M.offer(base, worker, lanes, now)
  for _, name in ipairs(lanes) do
    if not (lanes.limits and lanes.limits[name] == 0) then
      redis.pcall('ZADD', keys.idle(base, name), now, worker)
    end
  end
end

function M.withdraw(base, worker, lanes)
  for _, name in ipairs(lanes) do redis.pcall('ZREM', keys.idle(base, name), worker) end
end

-- Remove a worker that has nothing claimed any more.
function M.remove(base, worker)
  local row = keys.worker(base, worker)
  local known = redis.pcall('HMGET', row, 'mailbox', 'lanes')
  if known[1] then redis.call('DEL', keys.mailbox(base, known[1])) end
  -- The lanes are text that somebody may have changed by hand.
  pcall(function() M.withdraw(base, worker, cjson.decode(known[2])) end)
  redis.call('DEL', row, keys.aborts(base, worker))
  redis.call('ZREM', keys.workers(base), worker)
  redis.pcall('ZREM', keys.loads(base), worker)
  timer.drop(base, worker)
end

-- What `running` has behind the token of a task that has a key: its own time to keep the result with a 0 in front, which
-- version 1 reads as the same, or -0 where it has none.
function M.with_key(own_ttl_ms) return own_ttl_ms and (string.gsub(own_ttl_ms, '^-?', '%00')) or '-0' end

-- A lease token as `running` has it: `12`, or `12/60000` where the task says itself how long its result is kept, so that
-- it need not be asked when it is complete; `12/060000` or `12/-0` where it has a key to free; then, after a space, the line
-- whose slots it has, or `+`: it follows another task of its batch, and has none. `expected`: the token that it probably has.
-- Replies the token, that time or `ttl_ms`, whether it has a key, the line or nil, and whether it follows another one.
function M.token(text, ttl_ms, expected)
  -- Most of those that are more than a token are that and a line.
  local rest = expected and text and string.sub(text, #expected + 2)
  if rest and rest ~= '' and rest ~= gather.FOLLOWS and expected .. ' ' .. rest == text then
    return expected, ttl_ms, false, rest, false
  end
  local token, own_ttl_ms, line_name = string.match(text or '', '^(-?%d+)/?(-?%d*) ?([^ ]*)$')
  if not token then return text, ttl_ms, false end
  local has_key = own_ttl_ms ~= '' and string.find(own_ttl_ms, '^-?0%d') ~= nil
  if own_ttl_ms == '-0' then own_ttl_ms, has_key = nil, true end
  local follows = line_name == gather.FOLLOWS
  return token, number.of(own_ttl_ms, ttl_ms), has_key, not follows and line_name ~= '' and line_name or nil, follows
end

-- Whether the attempt of that token runs there.
function M.holds(base, worker, id, token)
  return M.token(errors.read('HGET', keys.running(base, worker), id)) == token
end

-- What this worker is asked to abort: id and token in turn of what it still holds, and the ids that are settled. Where
-- there are very many, a part of them: the next call has others.
function M.aborts(base, worker)
  local asked, open, settled = errors.read('SRANDMEMBER', keys.aborts(base, worker), ABORT_LIMIT), {}, {}
  if #asked == 0 then return open, settled end
  local tokens = errors.read('HMGET', keys.running(base, worker), unpack(asked))
  for i, id in ipairs(asked) do
    -- A later task of the same id, which this worker may have by now, was not asked for.
    local wish = tokens[i] and redis.pcall('HGET', keys.task(base, id), 'abort_requested')
    if wish then
      open[#open + 1], open[#open + 2] = id, (M.token(tokens[i]))
    else
      settled[#settled + 1] = id
    end
  end
  return open, settled
end

-- running -> running. The wish to abort survives the worker in the record, and the worker is told: by token, since by
-- the time it hears of it a later task may have the id.
function M.ask_abort(base, id, worker)
  local mailbox = worker and errors.read('HGET', keys.worker(base, worker), 'mailbox')
  local lease = mailbox and errors.read('HGET', keys.running(base, worker), id)
  -- The token alone, also of a claim of a later version.
  local token = lease and string.match(lease, '^[^/ ]*')
  if token then errors.read('SADD', keys.aborts(base, worker), id) end
  redis.call('HSET', keys.task(base, id), 'abort_requested', 1)
  if token then mail.post(base, mailbox, { mail.pack('abort', id, token) }) end
end

-- What a worker has claimed, the oldest claim first; the hash has no order of its own. `line`: whose slots it has.
-- `is_foreign`: yet more follows, after another space. A later version wrote it, and its functions know what else is to be
-- done when such a claim ends.
function M.claims(base, worker)
  local entries, claimed = errors.read('HGETALL', keys.running(base, worker)), {}
  for i = 1, #entries, 2 do
    local lease = entries[i + 1]
    local token, _, _, line, follows = M.token(lease)
    claimed[#claimed + 1] = { id = entries[i], token = number.of(token, 0), line = line, follows = follows,
      is_foreign = string.find(lease, '^%d%S* %S* ') ~= nil }
  end
  table.sort(claimed, function(x, y) return x.token < y.token end)
  return claimed
end

-- When anybody beat last, until when nobody is reaped, what is paused, and whether tasks wait in lines.
function M.last_beat(base)
  return errors.read('HMGET', keys.meta(base), 'last_beat', 'reap_after', 'paused', 'limited')
end

return M
