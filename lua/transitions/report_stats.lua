-- report_stats: a worker reports how often its tasks ran since its last report, and for how long.
-- args: tasks: (name, completed int, failed int, retried int, aborted int, run_ms int, waits int, wait_ms int)…
-- reply: `ok`
-- In the order in which a task's field has them.
local FIGURES = { 'completed', 'failed', 'retried', 'aborted', 'run_ms', 'waits', 'wait_ms' }

return function(base, args)
  if #args.tasks == 0 then return 'ok' end
  local key, names, figures = keys.task_stats(base, stats.minute(clock.now())), {}, {}
  for i, counted in ipairs(args.tasks) do names[i] = counted.name end
  -- A damaged key costs figures, nothing else, hence pcall.
  local known = redis.pcall('HMGET', key, unpack(names))
  if errors.of(known) then return 'ok' end
  for i, counted in ipairs(args.tasks) do
    local ok, before = pcall(cjson.decode, figures[counted.name] or known[i] or '[]')
    local sums = {}
    for at, figure in ipairs(FIGURES) do
      sums[at] = clock.text(number.of(ok and type(before) == 'table' and before[at], 0) + counted[figure])
    end
    -- What a later version keeps behind them stays.
    for at = #FIGURES + 1, ok and type(before) == 'table' and #before or 0 do sums[at] = cjson.encode(before[at]) end
    figures[counted.name] = '[' .. table.concat(sums, ',') .. ']'
  end
  local fields = {}
  for name, text in pairs(figures) do fields[#fields + 1], fields[#fields + 2] = name, text end
  redis.call('HSET', key, unpack(fields))
  redis.call('EXPIRE', key, stats.MINUTE_TTL_S)
  return 'ok'
end
