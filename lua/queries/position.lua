-- position: which place a task is in, its position there (as in `list`), and how long its record is kept.
-- args: id, limit int
-- reply: place, which, position, length, kept_ms
local RANKED = { scheduled = 'ZRANK', held = 'ZRANK', quarantined = 'ZRANK', dead = 'ZREVRANK' }

-- The place that a record names, and whose it is: the lane's, the pause's, the worker's.
local function place_of(record)
  local state = record.state
  if state == 'queued' and place.is_quarantined(record) then return 'quarantined', '' end
  if state == 'queued' then return 'queued', record.lane or task.DEFAULT_LANE end
  if state == 'limited' then return 'limited', (record.lane or '') .. ':' .. (record.buckets or '') end
  if state == 'held' then return 'held', record.pause or '' end
  if state == 'running' then return 'running', record.worker or '' end
  if state == 'scheduled' then return 'scheduled', '' end
  return state == 'failed' and not record.kind and 'dead' or '', ''
end

return function(base, args)
  local record, err = task.read(base, args.id, place.FIELDS)
  if err then return { err = err } end
  local kept_ms = redis.call('PTTL', keys.task(base, args.id))
  local name, of = place_of(record)
  local position, length
  if name == 'queued' or name == 'limited' then
    local key = place.list(base, record)
    position, length = errors.read('LPOS', key, args.id, 'MAXLEN', args.limit), errors.read('LLEN', key)
  elseif name == 'running' then
    length = errors.read('HLEN', keys.running(base, of))
  elseif RANKED[name] then
    local key = keys[name](base, of)
    position, length = errors.read(RANKED[name], key, args.id), errors.read('ZCARD', key)
  end
  return { name, of, position or -1, length or 0, kept_ms }
end
