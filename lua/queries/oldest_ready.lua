-- oldest_ready: since when the next task of each lane has been ready.
-- args: none
-- reply: now, (lane, since)…
local LOOK_AT = 10

-- The first of a lane that a claim would not skip; nil when it is not among the first few.
local function first(base, lane_name)
  local ids = errors.read('LRANGE', keys.ready(base, lane_name), 0, LOOK_AT - 1)
  if #ids == 0 then return nil end
  local is_tombstone = errors.read('SMISMEMBER', keys.tombstones(base, lane_name), unpack(ids))
  for i, id in ipairs(ids) do
    if is_tombstone[i] == 0 then return id end
  end
end

return function(base)
  local reply = { clock.now() }
  local lanes = errors.read('SMEMBERS', keys.lanes(base))
  table.sort(lanes)
  for _, name in ipairs(lanes) do
    local id = first(base, name)
    local record = id and task.read(base, id, { 'enqueued_at', 'due_at' }) or {}
    local since = math.max(number.of(record.enqueued_at, 0), number.of(record.due_at, 0))
    if since > 0 then reply[#reply + 1], reply[#reply + 2] = name, since end
  end
  return reply
end
