-- What other queues are to be told, in the order in which it came up. Of a workflow's queue: that a member of it begins in another
-- queue, or is to stop there; of that queue: that it has ended. A worker carries it there, until it is answered; since an entry may
-- be carried more than once, it names a life of the member, and a queue does with each life what it is told once.
local M = {}

-- How far into the list an entry is looked for.
local WINDOW = 5000
-- After how long another queue is told again of what it has: it may have lost it, or its answer.
local AGAIN_MS = 60000

-- An entry is one of `begin`, `abort` and `ended`, a space and an id. What else is to be said, the record says when it is read.
function M.entry(kind, id) return kind .. ' ' .. id end

-- Whether it is seen to be there: not far behind others.
function M.has(base, entry) return type(redis.pcall('LPOS', keys.outbox(base), entry, 'MAXLEN', WINDOW)) == 'number' end

-- Whether it is not there. In a list that is longer than is looked at none is missing: it may lie behind, and would be added again
-- and again while a queue is away.
function M.lacks(base, entry)
  local length = redis.pcall('LLEN', keys.outbox(base))
  return (errors.of(length) or length <= WINDOW) and not M.has(base, entry)
end

function M.split(entry) return string.match(entry, '^(%l+) (.*)$') end

-- The id of a member in another queue, which may have workflows of the same id, as a third one may. Its `~` has its end looked at.
function M.guest_id(home, id) return id .. '@' .. home end

-- Of a guest, the id that it has at home.
function M.home_id(home, id) return string.sub(id, 1, -#home - 2) end

-- Whether an entry of this kind has something to say, by a record of `state queue abort_requested home`.
function M.is_due(kind, record)
  if kind == 'ended' then return record.home and task.is_finished(record.state) end
  if record.state ~= 'away' or not record.queue then return false end
  return kind == 'abort' or kind == 'begin' and not record.abort_requested
end

-- A life's number, and the workflow that it is of.
local function parts(life) return string.match(life or '', '^(%d*)(.*)$') end

-- What is to be answered where a guest has ended, as `record` says, and something else of its id begins in that life; nil: it makes
-- room. An earlier life has been there before; and what is not a later one waits until the home of this one knows.
function M.in_the_way(base, id, record, life)
  local number_text, workflow = parts(record.life)
  local its_number_text, its_workflow = parts(life)
  if life and workflow == its_workflow then
    if number.of(its_number_text, 0) < number.of(number_text, 0) then return 'accepted' end
    -- Where it is noted that it keeps something.
    errors.read('SCARD', keys.waiters(base, id))
    return nil
  end
  return redis.call('PTTL', keys.task(base, id)) == -1 and 'exists' or nil
end

-- How many bytes of results of its steps a guest has kept that failed, for that later life of it; nil: none.
function M.kept_for(base, id, life)
  local record = task.read(base, id, { 'state', 'life', 'steps' })
  local _, workflow = parts(record.life)
  local _, its_workflow = parts(life)
  return memos.outlive(record.state) and workflow == its_workflow and record.steps or nil
end

-- Why nothing can be added, or nil.
function M.damage(batch) return batches.obstacle(batch, 'LLEN', keys.outbox(batch.base)) end

function M.add(batch, entry)
  redis.call('RPUSH', keys.outbox(batch.base), entry)
  batch.is_outbound = true
end

-- blocked, failed -> away: a member begins in the other queue that its record names, in a new life. Replies an error text where
-- that cannot be said.
function M.send(batch, id, record)
  local obstacle = M.damage(batch)
  if obstacle then return obstacle end
  local key = keys.task(batch.base, id)
  local number_text, workflow = parts(redis.call('HGET', key, 'life') or nil)
  redis.call('HSET', key, 'state', 'away', 'needs', '0', 'enqueued_at', batch.now_text, 'sent_at', batch.now_text,
    'life', clock.text(number.of(number_text, 0) + 1) .. workflow)
  M.add(batch, M.entry('begin', id))
  waiters.changed(batch.base, batch.now, id, record.watched_until)
end

-- away -> away: it is to stop where it is. Replies an error text where that cannot be said.
function M.ask_abort(batch, id)
  local obstacle = M.damage(batch)
  if obstacle then return obstacle end
  redis.call('HSET', keys.task(batch.base, id), 'abort_requested', '1', 'sent_at', batch.now_text)
  M.add(batch, M.entry('abort', id))
end

-- A task has ended that may be a guest here: its home is to be told, and keeps it should it be a dead letter. Replies whether. Where
-- the place is damaged, its home asks again.
function M.note_end(batch, id)
  local found = redis.call('HMGET', keys.task(batch.base, id), 'home', 'state')
  if not found[1] then return false end
  if found[2] == 'failed' then redis.pcall('ZREM', keys.dead(batch.base), id) end
  if not M.damage(batch) then M.add(batch, M.entry('ended', id)) end
  return true
end

-- Whether another queue was told of a member so long ago that only that queue knows whether it has it. `record`: `state sent_at
-- abort_requested`.
function M.is_silent(base, id, record, now)
  return record.state == 'away' and now - number.of(record.sent_at, 0) >= AGAIN_MS
    and M.lacks(base, M.entry(record.abort_requested and 'abort' or 'begin', id))
end

-- away -> away: its queue is told again.
function M.say_again(batch, id, record)
  redis.call('HSET', keys.task(batch.base, id), 'sent_at', batch.now_text)
  M.add(batch, M.entry(record.abort_requested and 'abort' or 'begin', id))
end

-- What a guest has ended as is said again: its home asks for it, or what is to begin in its place.
function M.answer_again(base, id)
  local entry, record = M.entry('ended', id), task.read(base, id, { 'state', 'home' })
  if record and M.is_due('ended', record) and M.lacks(base, entry) then
    redis.pcall('RPUSH', keys.outbox(base), entry)
  end
end

-- A worker hears that there is something to carry: the one that makes this call, or any.
function M.tell(batch)
  local base = batch.base
  local worker = batch.worker or redis.pcall('ZRANDMEMBER', keys.workers(base))
  local mailbox = type(worker) == 'string' and redis.pcall('HGET', keys.worker(base, worker), 'mailbox')
  if type(mailbox) == 'string' then mail.post(base, mailbox, { mail.pack('outbox') }) end
end

return M
