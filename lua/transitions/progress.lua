-- progress: running -> running. The attempt's worker reports its progress: a fraction and a message, notes, lines of its log.
-- args: worker, id, token, progress, result_ttl_ms int; told: (note, text)…
-- reply: `ok`, or `stale`: another attempt has the task now, nothing changed
-- What was said last may arrive just after the task has ended; then its own worker's word counts still.
local MAX_LINES, MAX_NOTES, MAX_NAME, MAX_NOTE = 1000, 100, 200, 8192

local function is_its_attempt(base, args, record)
  if member.holds(base, args.worker, args.id, args.token) then return true end
  return record.worker == args.worker and task.is_finished(record.state)
end

-- What was told, by kind: lines of the log, notes as names and values in turn, and the notes to drop. Of a note that is
-- named twice the last word counts.
local function sorted(told)
  local lines, notes, dropped, fields, last = {}, {}, {}, {}, {}
  for at = 1, #told, 2 do
    local note, text = told[at], told[at + 1]
    if #note > MAX_NAME or (note ~= '' and #text > MAX_NOTE) then
      errors.raise(errors.bad_argument('the name of a note must have at most ' .. MAX_NAME .. ' bytes, its value '
        .. MAX_NOTE))
    end
    if note == '' then
      lines[#lines + 1] = text
    else
      local field = task.note_field(note)
      if not last[field] then fields[#fields + 1] = field end
      last[field] = text
    end
  end
  for _, field in ipairs(fields) do
    if last[field] == '' then
      dropped[#dropped + 1] = field
    else
      notes[#notes + 1], notes[#notes + 2] = field, last[field]
    end
  end
  return lines, notes, dropped
end

-- Refuse notes that would make more of them than a record may have.
local function check_notes(base, id, notes, dropped)
  local names, count = {}, 0
  for _, field in ipairs(task.note_fields(base, id)) do names[field] = true end
  for i = 1, #notes, 2 do names[notes[i]] = true end
  for _, field in ipairs(dropped) do names[field] = nil end
  for _ in pairs(names) do count = count + 1 end
  if count > MAX_NOTES then
    errors.raise(errors.bad_argument('a task may have at most ' .. MAX_NOTES .. ' notes; with these, ' .. id
      .. ' would have ' .. count))
  end
end

return function(base, args)
  local key, log = keys.task(base, args.id), keys.log(base, args.id)
  if #args.progress > MAX_NOTE then
    errors.raise(errors.bad_argument('progress must have at most ' .. MAX_NOTE .. ' bytes'))
  end
  local lines, notes, dropped = sorted(args.told)
  local record, err = task.read(base, args.id, { 'state', 'worker', 'watched_until', 'result_ttl_ms', 'logged',
    'tries' })
  if err then return { err = err } end
  if not record.state or not is_its_attempt(base, args, record) then return 'stale' end
  if #notes > 0 then check_notes(base, args.id, notes, dropped) end
  errors.read('LLEN', log)

  if args.progress ~= '' then redis.call('HSET', key, 'progress', args.progress) end
  if #notes > 0 then redis.call('HSET', key, unpack(notes)) end
  if #dropped > 0 then redis.call('HDEL', key, unpack(dropped)) end
  if #lines > 0 then
    -- Of an earlier task of this id, if it is the first attempt: another one may have told its lines to an earlier version.
    if not record.logged then
      if number.of(record.tries, 1) <= 1 then redis.call('DEL', log) end
      redis.call('HSET', key, 'logged', '1')
    end
    redis.call('RPUSH', log, unpack(lines))
    redis.call('LTRIM', log, -MAX_LINES, -1)
    redis.call('PEXPIRE', log, clock.text(task.told_ms(record, args.result_ttl_ms)))
  end
  if record.watched_until and record.state == 'running' then
    waiters.changed(base, clock.now(), args.id, record.watched_until, args.told)
  end
  return 'ok'
end
