-- progress: running -> running. The attempt's holder tells how far it is: a fraction and a message, more of its notes, lines of its log.
-- What was said last may arrive just after the task has ended; then its own worker's word counts still.
local MOST_LINES = 1000

local function is_holder(base, args, record)
  if errors.read('HGET', keys.running(base, args.worker), args.id) == args.token then return true end
  return record.worker == args.worker and task.is_finished(record.state)
end

-- The notes of a record with those of `more` in their place.
local function merged(meta, more)
  local ok, all = pcall(cjson.decode, meta or '{}')
  if not ok or type(all) ~= 'table' then all = {} end
  for name, value in pairs(more) do all[name] = value end
  return cjson.encode(all)
end

return function(base, args)
  local id, log = args.id, keys.log(base, args.id)
  if type(args.meta) ~= 'table' then errors.raise(errors.bad_argument('meta must be a JSON object')) end
  if args.log_ttl_ms <= 0 then errors.raise(errors.bad_argument('log_ttl_ms must be positive')) end
  local record, err = task.read(base, id, { 'state', 'worker', 'meta' })
  if err then return { err = err } end
  if not record.state or not is_holder(base, args, record) then return 'stale' end
  errors.read('LLEN', log)

  if args.progress ~= '' then redis.call('HSET', keys.task(base, id), 'progress', args.progress) end
  if next(args.meta) then redis.call('HSET', keys.task(base, id), 'meta', merged(record.meta, args.meta)) end
  if #args.lines > 0 then
    local texts = {}
    for i, line in ipairs(args.lines) do texts[i] = line.text end
    redis.call('RPUSH', log, unpack(texts))
    redis.call('LTRIM', log, -MOST_LINES, -1)
    redis.call('PEXPIRE', log, args.log_ttl_ms)
  end
  return 'ok'
end
