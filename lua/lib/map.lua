-- Maps: one function called for each of many items. An item is only text in a list until it becomes a task; at most so many are
-- tasks at once as the map's window says. One that completes leaves its result, and no record.
local M = {}

-- The window of a map that has none, and the most that one call makes.
local WINDOW, MAKE_MOST = 2000, 1000

-- What an item or a result is kept as: its codec, a space, its bytes.
function M.pack(codec, bytes) return codec .. ' ' .. bytes end

function M.unpack(text)
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
    if redis.call('DEL', key, keys.steps(batch.base, ids[i]), keys.signals(batch.base, ids[i])) > 0 then
      redis.pcall('ZREM', keys.dead(batch.base), ids[i])
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
  for i = 1, math.min(room, left, waiting) do
    names[i] = clock.text(of.made + i - 1)
    ids[i] = group.id_of(of.id, names[i])
    places[i] = keys.task(base, ids[i])
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
  local more = { 'tries', '0', 'needs_version', task.VERSION_TEXT }
  for _, name in ipairs({ 'kwargs', 'headers', 'buckets', 'weight' }) do
    if of[name] then more[#more + 1], more[#more + 2] = name, of[name] end
  end
  local items = redis.call('LPOP', keys.items(base, of.id), count) or {}
  local state = line_name and 'limited' or 'queued'
  for i, item in ipairs(items) do
    local codec, args = M.unpack(item)
    redis.call('HSET', places[i], 'state', state, 'name', of.name, 'args', args, 'lane', lane_name, 'enqueued_at',
      batch.now_text, unpack(more))
    if codec ~= '' then redis.call('HSET', places[i], 'codec', codec) end
    if line_name then
      batches.add_to_line(batch, lane_name, line_name, ids[i], 'RPUSH')
    else
      batches.add(batch, 'back', lane_name, ids[i])
    end
  end
  for i = #names, count + 1, -1 do names[i] = nil end
  of.made, batch.made = of.made + #items, (batch.made or 0) + #items
  redis.call('HSET', keys.task(base, of.id), 'made', clock.text(of.made))
  bulk.write('SADD', keys.open(base, of.id), names)
  batches.count(batch, 'enqueued', #items)
  return waiting > #items
end

-- running -> complete for an item's task: its record gives way to its result. Replies an error text or nil, and whether it
-- stays where it is because of a damaged key.
function M.complete(batch, of, name, codec, result)
  local id, obstacle = group.id_of(of.id, name), group.damage(batch, of)
  if obstacle then return obstacle, true end
  if redis.call('DEL', keys.task(batch.base, id)) == 0 then
    batches.count(batch, 'ghosts')
    return 'not_found'
  end
  local completed = of.completed
  if not completed then
    completed, of.results = {}, of.keep_results ~= '0' and {} or nil
    of.completed, batch.members = completed, batch.members or {}
    batches.push(batch, 'maps', of)
  end
  completed[#completed + 1] = name
  local results = of.results
  if results then
    local at = #results
    results[at + 1], results[at + 2] = name, M.pack(codec or '', result)
  end
  batches.count(batch, 'completed')
  batches.ended(batch, id)
  if mail.is_awaited(batch.base, batch.now, batch.waited_until) then
    batch.outcomes = batch.outcomes or {}
    batch.outcomes[id] = { state = 'complete', finished_at = batch.now_text, result = result, result_codec = codec }
  end
end

return M
