-- report_stats: a worker reports how often its tasks ran since its last report, and for how long.
-- args: tasks: (name, completed int, failed int, retried int, aborted int, run_ms int, waits int, wait_ms int)…
-- reply: `ok`
-- Of a task, behind its name; its field has them in the same order.
local FIGURES = 7

return function(base, args)
  local tasks, names, figures = args.tasks, {}, {}
  if #tasks == 0 then return 'ok' end
  local key = keys.task_stats(base, stats.minute(clock.now()))
  for at = 1, #tasks, 1 + FIGURES do names[#names + 1] = tasks[at] end
  -- A damaged key costs figures, nothing else, hence pcall.
  local known = redis.pcall('HMGET', key, unpack(names))
  if errors.of(known) then return 'ok' end
  for i, name in ipairs(names) do
    local ok, before = pcall(cjson.decode, figures[name] or known[i] or '[]')
    local sums, at = {}, (i - 1) * (1 + FIGURES) + 1
    for j = 1, FIGURES do
      sums[j] = clock.text(number.of(ok and type(before) == 'table' and before[j], 0) + tasks[at + j])
    end
    -- What a later version keeps behind them stays.
    for j = FIGURES + 1, ok and type(before) == 'table' and #before or 0 do sums[j] = cjson.encode(before[j]) end
    figures[name] = '[' .. table.concat(sums, ',') .. ']'
  end
  local fields = {}
  for name, text in pairs(figures) do fields[#fields + 1], fields[#fields + 2] = name, text end
  redis.call('HSET', key, unpack(fields))
  redis.call('EXPIRE', key, stats.MINUTE_TTL_S)
  return 'ok'
end
