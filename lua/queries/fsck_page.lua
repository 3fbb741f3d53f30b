-- fsck_page: check one page of the queue against the invariants.
-- Places are compared with records here; whether a queued record lies in its ready list is for the caller to find out
-- by walking both (`queued` and `entry` rows), and to confirm with the section `task:<id>`.

local TYPES = {
  task = 'hash', ready = 'list', tombs = 'set', wake = 'list', scheduled = 'zset', running = 'hash', held = 'zset',
  suspects = 'zset', workers = 'zset', worker = 'hash', aborts = 'set', mailbox = 'list', waiters = 'set',
  log = 'list', dead = 'zset', pauses = 'hash', schedules = 'hash', schedule_due = 'zset', lanes = 'set',
  meta = 'hash', stats = 'hash',
}
local FIELDS = { 'state', 'lane', 'worker', 'lost', 'held_by' }

local function is_suspect(record)
  return tonumber(record.lost or 0) >= 2
end

-- Whether a place lacks an id. One of another type lacks all.
local function lacks(command, key, id)
  local found = redis.pcall(command, key, id)
  return not found or found == 0 or type(found) == 'table'
end

-- What is wrong with a record whose place can be looked up directly; nil: nothing, or it is for the ready list to say.
local function misplaced(base, id, record)
  local state = record.state
  if state == 'scheduled' then
    return lacks('ZSCORE', keys.scheduled(base), id) and 'not_in_scheduled'
  elseif state == 'running' then
    return lacks('HGET', keys.running(base, record.worker or ''), id) and 'not_in_running'
  elseif state == 'held' then
    return lacks('ZSCORE', keys.held(base, record.held_by or ''), id) and 'not_in_held'
  elseif state == 'failed' then
    return lacks('ZSCORE', keys.dead(base), id) and 'not_in_dead'
  elseif state == 'queued' then
    return is_suspect(record) and lacks('ZSCORE', keys.suspects(base), id) and 'not_in_suspects'
  end
  return not task.is_finished(state) and 'unknown_state'
end

-- One key of the queue: its type, whether it has an owner, and for a record its place.
local function check_key(base, key, add)
  local name = string.sub(key, #base + 1)
  local kind, rest = string.match(name, '^([a-z_]+):?(.*)$')
  if not TYPES[kind] then return add('unknown_key', name, '') end
  local actual = redis.call('TYPE', key).ok
  if actual == 'none' then return end
  if actual ~= TYPES[kind] then return add('wrong_type', name, actual) end
  if (kind == 'running' or kind == 'worker' or kind == 'aborts')
    and lacks('ZSCORE', keys.workers(base), rest) then
    return add('no_such_worker', name, rest)
  end
  if kind == 'held' and lacks('HEXISTS', keys.pauses(base), rest) then return add('no_such_pause', name, '') end
  if kind == 'pauses' and lacks('HEXISTS', keys.meta(base), 'paused') then return add('unseen_pauses', name, '') end
  if (kind == 'mailbox' or kind == 'waiters' or kind == 'log') and redis.call('PTTL', key) == -1 then
    return add('no_ttl', name, '')
  end
  if kind ~= 'task' then return end
  local record = task.read(base, rest, FIELDS)
  local problem = misplaced(base, rest, record)
  if problem then
    add(problem, rest, record.state or '')
  elseif record.state == 'queued' and not is_suspect(record) then
    add('queued', rest, record.lane or '')
  end
end

local function scan_keys(base, cursor, limit, add)
  local pattern = string.gsub(base, '[%[%]%*%?\\]', '\\%0') .. '*'
  local page = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', limit)
  for _, key in ipairs(page[2]) do check_key(base, key, add) end
  return page[1], #page[2]
end

-- An entry of a place must belong to a record that names this place.
local function check_entry(base, id, place, fits, add)
  local record, err = task.read(base, id, FIELDS)
  if err then return add('wrong_type', 'task:' .. id, '') end
  if not fits(record) then add('ghost_in_' .. place, id, record.state or 'no record') end
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
    local is_tomb = errors.read('SMISMEMBER', keys.tombs(base, name), unpack(ids))
    for i, id in ipairs(ids) do
      if is_tomb[i] == 0 then
        check_entry(base, id, 'ready', function(r)
          return r.state == 'queued' and r.lane == name and not is_suspect(r)
        end, add)
        add('entry', id, name)
      end
    end
  end
  return tostring(first), #ids
end

local function fits_suspects(record) return record.state == 'queued' and is_suspect(record) end
local SCANNED = {
  scheduled = { 'ZSCAN', 2, function(record) return record.state == 'scheduled' end },
  dead = { 'ZSCAN', 2, function(record) return record.state == 'failed' end },
  held = { 'ZSCAN', 2, function(record, id) return record.state == 'held' and record.held_by == id end },
  suspects = { 'ZSCAN', 2, fits_suspects },
  running = { 'HSCAN', 2, function(record, worker) return record.state == 'running' and record.worker == worker end },
  -- A mark on a task that is queued in this lane would have it skipped.
  tombs = { 'SSCAN', 1, function(record, name)
    return record.state ~= 'queued' or record.lane ~= name or is_suspect(record)
  end },
}

local function scan_place(base, place, of, cursor, limit, add)
  local command, width, fits = unpack(SCANNED[place])
  local key = of == '' and keys[place](base) or keys[place](base, of)
  local page = errors.read(command, key, cursor, 'COUNT', limit)
  for i = 1, #page[2], width do
    check_entry(base, page[2][i], place, function(record) return fits(record, of) end, add)
  end
  return page[1], #page[2] / width
end

local function scan_workers(base, cursor, limit, add)
  local page = errors.read('ZSCAN', keys.workers(base), cursor, 'COUNT', limit)
  for i = 1, #page[2], 2 do
    if redis.call('EXISTS', keys.worker(base, page[2][i])) == 0 then add('no_row', page[2][i], '') end
  end
  return page[1], #page[2] / 2
end

-- One task, whole and at once: the confirmation of what the pages suspected.
local function check_task(base, id, add)
  local record, err = task.read(base, id, FIELDS)
  if err then return add('wrong_type', 'task:' .. id, '') end
  if not record.state then return end
  local problem = misplaced(base, id, record)
  if problem then return add(problem, id, record.state) end
  if record.state == 'queued' and not is_suspect(record) then
    local name = record.lane or ''
    if not errors.read('LPOS', keys.ready(base, name), id) then add('not_in_ready', id, name) end
    if errors.read('SISMEMBER', keys.tombs(base, name), id) == 1 then add('ghost_in_tombs', id, name) end
  end
end

return function(base, args)
  if args.limit < 1 or args.limit > 1000 then errors.raise(errors.bad_argument('limit must be from 1 to 1000')) end
  if not string.find(args.cursor, '^%d+$') then errors.raise(errors.bad_argument('cursor must be a number')) end
  local findings = {}
  local function add(kind, id, detail)
    local at = #findings
    findings[at + 1], findings[at + 2], findings[at + 3] = kind, id, detail
  end
  local section, of = string.match(args.section, '^([a-z]+):?(.*)$')
  local cursor, seen = '0', 1
  if section == 'records' then
    cursor, seen = scan_keys(base, args.cursor, args.limit, add)
  elseif section == 'ready' then
    cursor, seen = walk_ready(base, of, args.cursor, args.limit, add)
  elseif section == 'workers' then
    cursor, seen = scan_workers(base, args.cursor, args.limit, add)
  elseif section == 'task' then
    check_task(base, of, add)
  elseif SCANNED[section] then
    cursor, seen = scan_place(base, section, of, args.cursor, args.limit, add)
  else
    errors.raise(errors.bad_argument('unknown section ' .. args.section))
  end
  return { cursor, seen, unpack(findings) }
end
