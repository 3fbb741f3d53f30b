-- schedule_declare: a worker says what recurs by its code. Of the versions of the code that run, the one that came last counts: its schedules are put, those of the one before go.
local RUNS_MS = 60000
local KNOWN_MS = 86400000
local MOST = 50

local function decode(text)
  local ok, value = pcall(cjson.decode, text or '')
  return ok and type(value) == 'table' and value or nil
end

-- The versions known, in the order in which they came: {version, when first, when last} each. This one was seen now.
local function seen(text, version, now)
  local versions, own = {}, { version, now, now }
  for _, entry in ipairs(decode(text) or {}) do
    local is_whole = type(entry) == 'table' and tonumber(entry[2]) and tonumber(entry[3])
    if is_whole and entry[1] == version then
      own[2] = entry[2]
    elseif is_whole and now - entry[3] <= KNOWN_MS then
      versions[#versions + 1] = entry
    end
  end
  -- Those that were seen last are kept: forgotten while it runs, one would come back as the newest.
  table.sort(versions, function(x, y) return x[3] > y[3] end)
  while #versions >= MOST do table.remove(versions) end
  versions[#versions + 1] = own
  table.sort(versions, function(x, y) return x[2] < y[2] or x[2] == y[2] and x[1] < y[1] end)
  return versions
end

return function(base, args)
  local meta, now, declared = keys.meta(base), clock.now(), {}
  for i, record in ipairs(args.schedules) do
    local definition = decode(record.definition)
    schedule.check(record.name, definition)
    declared[i], declared[record.name] = record.name, definition
  end
  local known = errors.read('HMGET', meta, 'declared_version', 'declared_names', 'declared_seen')
  errors.read('HLEN', keys.schedules(base))
  errors.read('ZCARD', keys.schedule_due(base))
  if #declared == 0 and not known[1] then return { 'nothing' } end

  local names = decode(known[2] or nil) or {}
  local versions, last = seen(known[3] or nil, args.version, now), nil
  for _, entry in ipairs(versions) do
    if now - entry[3] <= RUNS_MS then last = entry[1] end
  end
  redis.call('HSET', meta, 'declared_seen', cjson.encode(versions))
  if last ~= args.version then return { 'superseded' } end
  if known[1] == args.version and args.start == 0 then return { 'kept' } end
  local reply = { 'declared' }
  for _, name in ipairs(names) do
    local definition = not declared[name] and schedule.read(base, name)
    if definition and definition.source == 'code' then
      schedule.remove(base, name)
      reply[#reply + 1] = name
    end
  end
  for _, record in ipairs(args.schedules) do
    schedule.put(base, record.name, declared[record.name], record.next_due_at)
  end
  names = #declared > 0 and cjson.encode({ unpack(declared) }) or '[]'
  redis.call('HSET', meta, 'declared_version', args.version, 'declared_names', names)
  return reply
end
