-- Since when the oldest task of each lane has been ready, with those that wait for their limits.
local M = {}

local LOOK_AT = 10
-- Lines of each lane that have their turn, and as many that are blocked.
local LINES = 100
local FIELDS = { 'state', 'lane', 'buckets', 'enqueued_at', 'due_at' }

local function since(record) return math.max(number.of(record.enqueued_at, 0), number.of(record.due_at, 0)) end

-- The first of a lane that a claim would not skip: since when it has been ready; nil when it is not among the first few.
local function first(base, lane_name)
  local ids = errors.read('LRANGE', keys.ready(base, lane_name), 0, LOOK_AT - 1)
  if #ids == 0 then return nil end
  local is_tombstone = errors.read('SMISMEMBER', keys.tombstones(base, lane_name), unpack(ids))
  for i, id in ipairs(ids) do
    if is_tombstone[i] == 0 then return since(task.read(base, id, FIELDS) or {}) end
  end
end

-- The same of a line.
local function first_of_line(base, lane_name, line_name)
  for _, id in ipairs(errors.read('LRANGE', keys.line(base, lane_name, line_name), 0, LOOK_AT - 1)) do
    local record = task.read(base, id, FIELDS)
    if record and record.state == 'limited' and record.lane == lane_name and record.buckets == line_name then
      return since(record)
    end
  end
end

-- Lane and time (ms) in turn, by name; a lane in which nothing is ready is left out.
function M.of_lanes(base)
  local reply, oldest, names = {}, {}, {}
  local function add(name, at)
    if not at or at == 0 then return end
    if not oldest[name] then names[#names + 1] = name end
    oldest[name] = math.min(oldest[name] or at, at)
  end
  for _, name in ipairs(errors.read('SMEMBERS', keys.lanes(base))) do add(name, first(base, name)) end
  local function add_line(name, line_name) add(name, first_of_line(base, name, line_name)) end
  figures.each_line(base, LINES, add_line, nil, true)
  table.sort(names)
  for _, name in ipairs(names) do reply[#reply + 1], reply[#reply + 2] = name, oldest[name] end
  return reply
end

return M
