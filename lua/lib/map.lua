-- Maps: one function called for each of many items. An item is only text in a list until it becomes a task; at most so many are
-- tasks at once as the map's window says. One that completes leaves its result, and no record.
local M = {}

-- The window of a map that has none, and the most that one call makes.
local WINDOW, MAKE_MOST = 2000, 1000

-- What an item or a result is kept as: its codec, a space, its bytes.
function M.pack(codec, bytes) return codec .. ' ' .. bytes end

function M.unpack(text)
  -- Most have no codec.
  if string.byte(text) == 32 then return '', string.sub(text, 2) end
  local at = string.find(text, ' ', 1, true) or 0
  return at > 1 and string.sub(text, 1, at - 1) or '', string.sub(text, at + 1)
end

-- A page of calls, each a codec and arguments, behind those that a map has. Replies `added`, and how many it has then.
function M.extend(base, id, offset, size, page)
  if offset ~= size then
    errors.raise(errors.bad_argument('map ' .. id .. ' has ' .. clock.text(size) .. ' items: the next page begins'
      .. ' there, not at ' .. clock.text(offset)))
  end
  errors.read('LLEN', keys.items(base, id))
  local texts = {}
  for i = 1, #page / 2 do texts[i] = M.pack(page[2 * i - 1], page[2 * i]) end
  bulk.write('RPUSH', keys.items(base, id), texts)
  redis.call('HSET', keys.task(base, id), 'size', clock.text(size + #texts))
  return { 'added', size + #texts }
end

-- How many of these calls, which are next, can become tasks. A task that is no part of the workflow may have the id of one: that
-- waits until it has ended. What has ended makes room.
local function unobstructed(batch, ids, places)
  if bulk.of_keys('EXISTS', places) == 0 then return #ids end
  for i, key in ipairs(places) do
    local record, err = task.read(batch.base, ids[i], { 'state' })
    if err then batches.refuse(batch, ids[i], '', err) end
    if err or record.state and not task.is_finished(record.state) then return i - 1 end
    if redis.call('DEL', key) == 1 then
      redis.pcall('ZREM', keys.dead(batch.base), ids[i])
      memos.drop(batch, ids[i])
    end
  end
  return #ids
end

-- none -> queued, limited: as many of a map's items become tasks as its window has room for. Replies whether any is left.
function M.make(batch, of)
  local base = batch.base
  local waiting = redis.call('LLEN', keys.items(base, of.id))
  if waiting == 0 then return false end
  local window = number.of(of.max_concurrent, 0)
  if window < 1 then window = WINDOW end
  local room, left = window - redis.call('SCARD', keys.open(base, of.id)), MAKE_MOST - (batch.made or 0)
  if room < 1 then return true end
  if left < 1 then
    group.later(batch, of.id)
    return true
  end
  local ids, places, names = {}, {}, {}
  local prefix, from, format = group.id_of(of.id, ''), of.made - 1, string.format
  local place = keys.task(base, prefix)
  for i = 1, math.min(room, left, waiting) do
    local name = format('%d', from + i)
    names[i], ids[i], places[i] = name, prefix .. name, place .. name
  end
  local lane_name, line_name = of.lane or task.DEFAULT_LANE, of.buckets
  local obstacle = line_name and line.damage(base, lane_name, line_name)
  if not obstacle and errors.of(redis.pcall('LLEN', keys.ready(base, lane_name))) then
    obstacle = errors.wrong_type(keys.ready(base, lane_name))
  end
  if obstacle then
    batches.refuse(batch, of.id, '', obstacle.err)
    -- Its own ends look again.
    if room == window then group.later(batch, of.id) end
    return true
  end
  local count = unobstructed(batch, ids, places)
  if count == 0 then return true end
  local more = {}
  for _, name in ipairs({ 'kwargs', 'headers', 'buckets', 'weight' }) do
    if of[name] then more[#more + 1], more[#more + 2] = name, of[name] end
  end
  local bare = not (of.headers or line_name) and task.BARE or '0'
  local items = redis.call('LPOP', keys.items(base, of.id), count) or {}
  local call, state, version = redis.call, line_name and 'limited' or 'queued', task.VERSION_TEXT
  local now_text, its_name = batch.now_text, of.name
  for i, item in ipairs(items) do
    local tries, codec, args = bare, M.unpack(item)
    if codec ~= '' then tries = '0' end
    if more[1] then
      call('HSET', places[i], 'state', state, 'name', its_name, 'args', args, 'lane', lane_name, 'enqueued_at',
        now_text, 'tries', tries, 'needs_version', version, unpack(more))
    else
      call('HSET', places[i], 'state', state, 'name', its_name, 'args', args, 'lane', lane_name, 'enqueued_at',
        now_text, 'tries', tries, 'needs_version', version)
    end
    if codec ~= '' then call('HSET', places[i], 'codec', codec) end
    if line_name then batches.add_to_line(batch, lane_name, line_name, ids[i], 'RPUSH') end
  end
  for i = #names, #items + 1, -1 do names[i], ids[i] = nil, nil end
  if not line_name then batches.add_all(batch, 'back', lane_name, ids) end
  of.made, batch.made = of.made + #items, (batch.made or 0) + #items
  redis.call('HSET', keys.task(base, of.id), 'made', clock.text(of.made))
  bulk.write('SADD', keys.open(base, of.id), names)
  batches.count(batch, 'enqueued', #items)
  return waiting > #items
end

-- What is gathered of a map's calls that complete, until they are counted (flow.lua): their names and results, the records that
-- are to go, how many there are, and whether anybody may wait for one.
local function begin_completing(batch, of)
  local completed = { names = {}, records = {}, results = of.keep_results ~= '0' and {}, n = 0,
    is_awaited = mail.is_awaited(batch.base, batch.now, batch.waited_until) }
  of.completed, batch.members = completed, batch.members or {}
  batches.push(batch, 'maps', of)
  return completed
end

-- running -> complete for an item's task: its record gives way to its result. Replies an error text or nil, and whether it
-- stays where it is because of a damaged key.
function M.complete(batch, of, id, name, codec, result)
  local obstacle = not of.is_sound and group.damage(batch, of)
  if obstacle then return obstacle, true end
  local key = keys.task(batch.base, id)
  if not batch.are_there and redis.call('DEL', key) == 0 then
    batches.count(batch, 'ghosts')
    return 'not_found'
  end
  local completed = of.completed or begin_completing(batch, of)
  local n, results = completed.n + 1, completed.results
  completed.n, completed.names[n] = n, name
  if batch.are_there then completed.records[n] = key end
  if results then results[2 * n - 1], results[2 * n] = name, M.pack(codec or '', result) end
  if completed.is_awaited then
    batches.ended(batch, id)
    batch.outcomes = batch.outcomes or {}
    batch.outcomes[id] = { state = 'complete', finished_at = batch.now_text, result = result, result_codec = codec }
  end
end

return M
