-- fsck_page: checks one page of the queue against the invariants.
-- args: section, cursor, limit int
-- reply: cursor, seen, (kind, id, detail)…
-- Places are compared with records here; whether a queued record lies in its ready list is for the caller to find out
-- by walking both (`queued` and `entry` rows), and to confirm with the section `task:<id>`. So, too, what is `not_in_line`,
-- not near an end of it. A `group` is for the caller to walk: `open:<group>`; and what has `ended`: `recount:<workflow>`.
-- What is `away_without_outbox` is for the
-- caller to ask for in the queue that should have it (`detail`: that, and its id and life there, as netstrings).

local function line_of(record) return (record.lane or '') .. ':' .. (record.buckets or '') end

-- With a workflow its pause ends.
local function check_pauses(base, add)
  for _, id in ipairs(errors.read('HKEYS', keys.pauses(base))) do
    local rule = pause_rules.read(base, id)
    if place.outlives_its_workflow(base, rule) then add('ghost_in_pauses', id, rule.workflow) end
  end
end

-- One key of the queue: its type, whether it has an owner, and for a record its place.
local function check_key(base, key, add)
  local name = string.sub(key, #base + 1)
  local kind, rest = string.match(name, '^([a-z_]+):?(.*)$')
  if not place.TYPES[kind] then return add('unknown_key', name, '') end
  local actual = redis.call('TYPE', key).ok
  if actual == 'none' then return end
  if actual ~= place.TYPES[kind] then return add('wrong_type', name, actual) end
  if place.OF_WORKERS[kind] and place.lacks('ZSCORE', keys.workers(base), rest) then
    return add('no_such_worker', name, rest)
  end
  if kind == 'held' and rest ~= pause_rules.NEWER and place.lacks('HEXISTS', keys.pauses(base), rest) then
    return add('no_such_pause', name, '')
  end
  if kind == 'pauses' and place.lacks('HEXISTS', keys.meta(base), 'paused') then
    return add('unseen_pauses', name, '')
  end
  if kind == 'pauses' then return check_pauses(base, add) end
  if kind == 'line' and not line.has_place(base, rest) then return add('not_in_turn', name, rest) end
  if place.OF_GROUPS[kind] then
    if place.lacks('HEXISTS', keys.task(base, rest), 'kind') then return add('no_such_group', name, rest) end
    if kind == 'open' then add('group', rest, '') end
  end
  if place.OF_TASKS[kind] and place.is_forgotten(base, rest) then return add('no_such_task', name, rest) end
  if rest ~= '' and place.WITH_TTL[kind] and redis.call('PTTL', key) == -1 then return add('no_ttl', name, '') end
  if kind ~= 'task' then return end
  local record = task.read(base, rest, place.FIELDS)
  if record.kind == 'workflow' and record.dead and task.is_finished(record.state) then add('ended', rest, '') end
  if place.stays(base, rest, record) then add('no_ttl', name, '') end
  local problem = place.misplaced(base, rest, record) or place.lost(base, rest, record)
    or place.disconnected(base, rest, record) or place.untold(base, rest, record)
  if problem then
    add(problem, rest, record.state or '')
  elseif outbox.is_silent(base, rest, record, (clock.read())) then
    local there = outbox.guest_id(keys.queue(base), rest)
    add('away_without_outbox', rest, mail.pack(record.queue or '', there, record.life or ''))
  elseif place.oversleeps(base, rest, record) then
    add('not_woken', rest, record.waits_for)
  elseif record.state == 'queued' and not place.is_quarantined(record) then
    add('queued', rest, record.lane or '')
  elseif record.state == 'limited' and not place.is_near_an_end(place.list(base, record), rest) then
    add('not_in_line', rest, line_of(record))
  end
end

local function scan_keys(base, cursor, limit, add)
  local pattern = string.gsub(base, '[%[%]%*%?\\]', '\\%0') .. '*'
  local page = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', limit)
  for _, key in ipairs(page[2]) do check_key(base, key, add) end
  return page[1], #page[2]
end

-- An entry of a place must belong to a record that names this place.
local function check_entry(base, id, kind, of, add)
  local record, err = task.read(base, id, place.FIELDS)
  if err then return add('wrong_type', 'task:' .. id, '') end
  if not place.FITS[kind](record, of) then
    add('ghost_in_' .. kind, id, of ~= '' and of or record.state or 'no record')
  end
end

-- From the end towards the front: what is taken off the front meanwhile cannot hide an entry.
local function walk_ready(base, name, cursor, limit, add)
  local key = keys.ready(base, name)
  local last = tonumber(cursor) - 1
  if last < 0 then last = errors.read('LLEN', key) - 1 end
  if last < 0 then return '0', 0 end
  local first = math.max(last - limit + 1, 0)
  local ids = errors.read('LRANGE', key, first, last)
  if #ids > 0 then
    local is_tombstone = errors.read('SMISMEMBER', keys.tombstones(base, name), unpack(ids))
    for i, id in ipairs(ids) do
      if is_tombstone[i] == 0 then
        check_entry(base, id, 'ready', name, add)
        add('entry', id, name)
      end
    end
  end
  return tostring(first), #ids
end

-- How the other places are walked, and how many values an entry has.
local SCANS = {
  scheduled = { 'ZSCAN', 2 }, dead = { 'ZSCAN', 2 }, quarantined = { 'ZSCAN', 2 }, running = { 'HSCAN', 2 },
  held = { 'ZSCAN', 2 }, tombstones = { 'SSCAN', 1 }, workflows = { 'ZSCAN', 2 },
}

local function scan_place(base, kind, of, cursor, limit, add)
  local command, width = unpack(SCANS[kind])
  local key = of == '' and keys[kind](base) or keys[kind](base, of)
  local page = errors.read(command, key, cursor, 'COUNT', limit)
  for i = 1, #page[2], width do check_entry(base, page[2][i], kind, of, add) end
  return page[1], #page[2] / width
end

-- What of a group has not ended, by the group.
local function scan_open(base, of, cursor, limit, add)
  local page = errors.read('SSCAN', keys.open(base, of), cursor, 'COUNT', limit)
  for _, name in ipairs(page[2]) do
    local id = group.id_of(of, name)
    local record, err = task.read(base, id, { 'state' })
    local problem = err and 'wrong_type' or place.is_over(base, id, record)
    if problem then add(problem, err and 'task:' .. id or id, err and '' or of) end
  end
  return page[1], #page[2]
end

-- A workflow that has ended must have as many dead letters as it counts. The cursor also says how many that were at first.
local function recount_dead(base, id, cursor, limit, add)
  local record = task.read(base, id, { 'state', 'kind', 'dead' })
  if not record or record.kind ~= 'workflow' or not task.is_finished(record.state) then return '0', 0 end
  local told = clock.text(math.max(number.of(record.dead, 0), 0))
  local from, told_at_first = string.match(cursor, '^(.+)%-(%d+)$')
  -- Meanwhile one ran again, or was discarded.
  if told_at_first and told_at_first ~= told then return '0', 0 end
  local dead, more, looked = recount.count(base, id, from or '', limit)
  if more then return more .. '-' .. told, looked end
  if dead and dead ~= number.of(record.dead, 0) then add('wrong_dead', id, record.dead or '') end
  return '0', looked
end

-- A lost worker is on its way out and needs no row.
local function scan_workers(base, cursor, limit, add)
  local page = errors.read('ZSCAN', keys.workers(base), cursor, 'COUNT', limit)
  for i = 1, #page[2], 2 do
    local worker, expiry = page[2][i], tonumber(page[2][i + 1])
    if expiry > 0 and redis.call('EXISTS', keys.worker(base, worker)) == 0 then add('no_row', worker, '') end
  end
  return page[1], #page[2] / 2
end

-- A load must be that of a member, and what it holds.
local function scan_loads(base, cursor, limit, add)
  local page = errors.read('ZSCAN', keys.loads(base), cursor, 'COUNT', limit)
  for i = 1, #page[2], 2 do
    local worker, load = page[2][i], page[2][i + 1]
    local claimed = member.claimed(base, worker)
    if claimed ~= false and claimed ~= tonumber(load) then add('wrong_load', worker, load) end
  end
  return page[1], #page[2] / 2
end

-- Schedules and the times when they fall due next, each of which must have the other.
local HALVES = {
  schedules = { scan = 'HSCAN', look_up = 'ZSCORE', other = 'schedule_due', finding = 'not_in_schedule_due' },
  schedule_due = { scan = 'ZSCAN', look_up = 'HEXISTS', other = 'schedules', finding = 'ghost_in_schedule_due' },
}

local function scan_schedules(base, section, cursor, limit, add)
  local half = HALVES[section]
  local page = errors.read(half.scan, keys[section](base), cursor, 'COUNT', limit)
  for i = 1, #page[2], 2 do
    if place.lacks(half.look_up, keys[half.other](base), page[2][i]) then add(half.finding, page[2][i], '') end
  end
  return page[1], #page[2] / 2
end

-- What runs by `busy` must be what the leases name.
local function scan_busy(base, cursor, limit, add)
  local page = errors.read('HSCAN', keys.busy(base), cursor, 'COUNT', limit)
  local counted = limits.count_busy(base)
  for i = 1, #page[2], 2 do
    local bucket = page[2][i]
    if page[2][i + 1] ~= tostring(counted[bucket] or 0) then add('wrong_busy', bucket, page[2][i + 1]) end
    counted[bucket] = nil
  end
  -- Those that are not there at all; looked for once.
  if cursor == '0' and page[1] == '0' then
    for bucket in pairs(counted) do add('wrong_busy', bucket, '') end
  end
  return page[1], #page[2] / 2
end

-- One task, whole and at once: the confirmation of what the pages suspected. In a long ready list only the ends are
-- searched, where everything lies that moved of late.
local function check_task(base, id, add)
  local record, err = task.read(base, id, place.FIELDS)
  if err then return add('wrong_type', 'task:' .. id, '') end
  if not record.state then return end
  local problem = place.misplaced(base, id, record) or place.lost(base, id, record)
    or place.disconnected(base, id, record) or place.untold(base, id, record)
  if problem then return add(problem, id, record.state) end
  if place.oversleeps(base, id, record) then return add('not_woken', id, record.waits_for) end
  if record.state == 'queued' and not place.is_quarantined(record) then
    local name = record.lane or ''
    if not place.is_near_an_end(place.list(base, record), id) then add('not_in_ready', id, name) end
    if errors.read('SISMEMBER', keys.tombstones(base, name), id) == 1 then add('ghost_in_tombstones', id, name) end
  elseif record.state == 'limited' and not place.is_near_an_end(place.list(base, record), id) then
    add('not_in_line', id, line_of(record))
  end
end

return function(base, args)
  local reply = { '0', 1 }
  local function add(kind, id, detail)
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = kind, id, detail
  end
  local section, of = string.match(args.section, '^([a-z_]+):?(.*)$')
  local cursor, seen = unpack(reply)
  if not string.find(args.cursor, section == 'recount' and '^%d[%d-]*$' or '^%d+$') then
    errors.raise(errors.bad_argument('cursor must be a number'))
  end
  if section == 'records' then
    cursor, seen = scan_keys(base, args.cursor, args.limit, add)
  elseif section == 'ready' then
    cursor, seen = walk_ready(base, of, args.cursor, args.limit, add)
  elseif section == 'open' then
    cursor, seen = scan_open(base, of, args.cursor, args.limit, add)
  elseif section == 'recount' then
    cursor, seen = recount_dead(base, of, args.cursor, args.limit, add)
  elseif section == 'workers' then
    cursor, seen = scan_workers(base, args.cursor, args.limit, add)
  elseif section == 'busy' then
    cursor, seen = scan_busy(base, args.cursor, args.limit, add)
  elseif section == 'loads' then
    cursor, seen = scan_loads(base, args.cursor, args.limit, add)
  elseif section == 'task' then
    check_task(base, of, add)
  elseif HALVES[section] then
    cursor, seen = scan_schedules(base, section, args.cursor, args.limit, add)
  elseif SCANS[section] then
    cursor, seen = scan_place(base, section, of, args.cursor, args.limit, add)
  else
    errors.raise(errors.bad_argument('unknown section ' .. args.section))
  end
  -- Not by `unpack`, which is bounded by Lua's stack: a scan may answer more than it was asked for.
  reply[1], reply[2] = cursor, seen
  return reply
end
