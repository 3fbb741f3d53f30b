-- schedule_declare: a worker declares the schedules of its code. Of the versions that run, the last to appear counts: its schedules are put, those of the previous one removed.
-- args: version, starting int; schedules: (name, definition, next_due_at int)…
-- reply: answer, (name)…
local RUNS_MS = 60000
local KNOWN_MS = 86400000
local MAX = 50

local function decode(text)
  local ok, value = pcall(cjson.decode, text or '')
  return ok and type(value) == 'table' and value or nil
end

-- The versions as they were noted, and names as they were declared, without what somebody wrote there by hand.
local function noted_versions(text)
  local known = {}
  for _, entry in ipairs(decode(text) or {}) do
    local is_version = type(entry) == 'table' and type(entry[1]) == 'string' and type(entry[2]) == 'number'
    if is_version and type(entry[3]) == 'number' then known[#known + 1] = entry end
  end
  return known
end

local function noted_names(text)
  local known = {}
  for _, name in ipairs(decode(text) or {}) do
    if type(name) == 'string' then known[#known + 1] = name end
  end
  return known
end

-- While the server could not be reached nobody could give a sign of life: what ran when that began is taken to run
-- still, or the first worker that is back would take the others for gone.
local function after_silence(versions, now)
  local last = 0
  for _, entry in ipairs(versions) do last = math.max(last, entry[3]) end
  if now - last <= RUNS_MS / 2 then return end
  for _, entry in ipairs(versions) do
    if last - entry[3] <= RUNS_MS then entry[3] = now end
  end
end

-- The versions known ({version, when first, when last} each), and this one, which was seen now. A new one came after all
-- others, also within one millisecond and when the clock went back.
local function seen(known, version, now)
  local versions, first, own_first = {}, now, nil
  for _, entry in ipairs(known) do
    if entry[1] == version then
      own_first = entry[2]
    elseif now - entry[3] <= KNOWN_MS then
      versions[#versions + 1] = entry
      first = math.max(first, entry[2] + 1)
    end
  end
  -- Those that were seen last are kept: forgotten while it runs, one would come back as the newest.
  table.sort(versions, function(x, y) return x[3] > y[3] end)
  while #versions >= MAX do table.remove(versions) end
  versions[#versions + 1] = { version, own_first or first, now }
  table.sort(versions, function(x, y) return x[2] < y[2] or x[2] == y[2] and x[1] < y[1] end)
  return versions
end

return function(base, args)
  local meta, now, declared = keys.meta(base), clock.now(), {}
  local schedules = args.schedules
  for at = 1, #schedules, 3 do
    local name, definition = schedules[at], decode(schedules[at + 1])
    schedule.check(name, definition)
    declared[#declared + 1], declared[name] = name, definition
  end
  local known = errors.read('HMGET', meta, 'declared_version', 'declared_names', 'declared_seen')
  errors.read('HLEN', keys.schedules(base))
  errors.read('ZCARD', keys.schedule_due(base))
  if #declared == 0 and not known[1] then return { 'nothing' } end

  local names, known_versions = noted_names(known[2] or nil), noted_versions(known[3] or nil)
  -- A worker that starts may be the first after all were stopped: what ran before counts no more.
  if args.starting == 0 then after_silence(known_versions, now) end
  local versions, last = seen(known_versions, args.version, now), nil
  for _, entry in ipairs(versions) do
    if now - entry[3] <= RUNS_MS then last = entry[1] end
  end
  redis.call('HSET', meta, 'declared_seen', cjson.encode(versions))
  if last ~= args.version then return { 'superseded' } end
  if known[1] == args.version and args.starting == 0 then return { 'kept' } end
  local reply = { 'declared' }
  for _, name in ipairs(names) do
    local definition = not declared[name] and schedule.read(base, name)
    if definition and definition.source == 'code' then
      schedule.remove(base, name)
      reply[#reply + 1] = name
    end
  end
  for at = 1, #schedules, 3 do
    schedule.put(base, schedules[at], declared[schedules[at]], schedules[at + 2])
  end
  names = #declared > 0 and cjson.encode({ unpack(declared) }) or '[]'
  redis.call('HSET', meta, 'declared_version', args.version, 'declared_names', names)
  return reply
end
