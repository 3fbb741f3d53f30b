-- What people are told of limits and of what waits in lines. Nothing counts it as tasks come and go: who asks has the lengths of
-- the lines read, of a bounded number of them.
local M = {}

-- Lines that are looked at in one call, and buckets.
local LOOK_AT = 2000

-- Some lines of a queue, each as `visit(lane, line)`: up to `most`, those under `first`, a bucket, before the others; or, `by_lane`,
-- of each lane up to `most` that have their turn and as many that are blocked. Replies whether these were all.
function M.each_line(base, most, visit, first, by_lane)
  local lanes, left, is_all = errors.read('HKEYS', keys.limited(base)), {}, true
  if #lanes == 0 then return true end
  local function look(lane_name, place, kind)
    local part = by_lane and kind .. lane_name or ''
    local bound = left[part] or most
    local names = errors.read('ZRANGE', place, 0, bound)
    if #names > bound then names[#names], is_all = nil, false end
    left[part] = bound - #names
    for _, name in ipairs(names) do visit(lane_name, name) end
  end
  local function look_under(bucket, its_lanes)
    for _, name in ipairs(limits.lanes(its_lanes)) do look(name, keys.blocked(base, name, bucket), 'blocked:') end
  end
  if first then look_under(first, errors.read('HGET', keys.blocked_lanes(base), first)) end
  for _, name in ipairs(lanes) do look(name, keys.ring(base, name), 'ring:') end
  local page = errors.read('HSCAN', keys.blocked_lanes(base), '0', 'COUNT', most)
  for i = 1, #page[2], 2 do
    if page[2][i] ~= first then look_under(page[2][i], page[2][i + 1]) end
  end
  return is_all and page[1] == '0'
end

-- How many tasks wait and run, by bucket and by limit; and the buckets of lines. `only`: of this limit; `first`: the bucket that
-- is asked for.
function M.count(base, only, first)
  local waiting, running, in_lines, names = {}, {}, {}, {}
  local function add(counts, bucket, by, last)
    local name = names[bucket] or limits.name(bucket)
    names[bucket] = name
    if name ~= bucket then counts[bucket] = (counts[bucket] or 0) + by end
    if name ~= last then counts[name] = (counts[name] or 0) + by end
    return name
  end
  local is_all = M.each_line(base, LOOK_AT, function(lane_name, line_name)
    if only == '' or string.find(line_name, only, 1, true) then
      local length, last = errors.read('LLEN', keys.line(base, lane_name, line_name)), nil
      -- In order of their names: a task with two keys of a limit is one of those that wait for it.
      for _, bucket in ipairs((limits.parse(line_name))) do
        last, in_lines[bucket] = add(waiting, bucket, length, last), true
      end
    end
  end, first)
  local busy = errors.read('HSCAN', keys.busy(base), '0', 'COUNT', LOOK_AT)
  for i = 1, #busy[2], 2 do add(running, busy[2][i], number.of(busy[2][i + 1], 0)) end
  return { waiting = waiting, running = running, buckets = in_lines, is_all = is_all and busy[1] == '0' }
end

-- As JSON, the same in every call.
local function encode(fields)
  local names, parts = {}, {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    local value = fields[name]
    parts[i] = cjson.encode(name) .. ':' .. (type(value) == 'number' and number.text(value) or cjson.encode(value))
  end
  return '{' .. table.concat(parts, ',') .. '}'
end

-- At least so many tasks of a key wait, where not all lines were looked at: those that have no other limit.
local function alone(base, bucket)
  local total = 0
  for _, lane_name in ipairs(errors.read('HKEYS', keys.limited(base))) do
    total = total + errors.read('LLEN', keys.line(base, lane_name, bucket))
  end
  return total
end

-- Add to a reply what is known of buckets: of one without a key, that of all keys of its limit. `counted`: what `count` replies.
function M.describe(base, reply, buckets, counted)
  if #buckets == 0 then return reply end
  local definitions, err = limits.definitions(base, buckets)
  if err then errors.raise(err) end
  local encoded, now = {}, clock.now()
  for i, bucket in ipairs(buckets) do
    local name, definition, at = limits.name(bucket), definitions[i] or {}, #reply
    local waiting, running = counted.waiting[bucket] or 0, counted.running[bucket] or 0
    if not counted.is_all then
      waiting = math.max(waiting, alone(base, bucket))
      running = math.max(running, number.of(errors.read('HGET', keys.busy(base), bucket), 0))
    end
    local is_put = errors.read('HEXISTS', keys.overrides(base), name) == 1
      or errors.read('HEXISTS', keys.overrides(base), bucket) == 1
    encoded[definition] = encoded[definition] or encode(definition)
    reply[at + 1], reply[at + 2] = bucket, encoded[definition]
    reply[at + 3], reply[at + 4] = errors.read('HEXISTS', keys.limits(base), name), is_put and 1 or 0
    reply[at + 5], reply[at + 6], reply[at + 7] = running, waiting, counted.is_all and 1 or 0
    reply[at + 8] = number.of(errors.read('ZSCORE', keys.opens(base), bucket), 0)
    reply[at + 9] = string.format('%.4g', adaptive.share_of(base, bucket, definition, now))
  end
  return reply
end

return M
