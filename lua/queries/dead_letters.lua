-- dead_letters: a page of dead letters by task, error and time, the newest first.
-- args: task, error, since_at int, before_at int, limit int
-- reply: next_before_at, (id, failed_at, name, lane)…
-- No more tasks than this fail within one millisecond.
local MAX_AT_ONCE = 5000

-- A time of the caller's: negative is so long before now, 0 is none.
local function bound(time, none)
  if time == 0 then return none end
  return clock.text(time < 0 and clock.now() + time or time)
end

-- Entries with their times, and the time before which the next page begins ('0': there is none). A page holds all of
-- a millisecond or nothing of it, so whatever is removed meanwhile, the next one misses nothing.
local function page_of(base, since, before, limit)
  local key = keys.dead(base)
  local page = errors.read('ZREVRANGEBYSCORE', key, before, since, 'WITHSCORES', 'LIMIT', 0, limit)
  local last, count = page[#page], #page
  if count < 2 * limit then return page, '0' end
  if page[2] == last then
    return errors.read('ZREVRANGEBYSCORE', key, last, last, 'WITHSCORES', 'LIMIT', 0, MAX_AT_ONCE), last
  end
  while page[count] == last do
    page[count - 1], page[count] = nil, nil
    count = count - 2
  end
  return page, page[count]
end

return function(base, args)
  local before = bound(args.before_at, '+inf')
  if before ~= '+inf' then before = '(' .. before end
  local page, next_before = page_of(base, bound(args.since_at, '-inf'), before, args.limit)
  local wanted, reply = string.lower(args.error), { next_before }
  for i = 1, #page, 2 do
    local record, err = task.read(base, page[i], { 'state', 'name', 'lane', args.error ~= '' and 'error' or nil })
    -- A record that somebody overwrote is listed where nothing is asked of it; one that is gone is not.
    local fits = err and args.task == '' and args.error == ''
    if record and record.state == 'failed' then
      fits = (args.task == '' or record.name == args.task)
        and (args.error == '' or string.find(string.lower(record.error or ''), wanted, 1, true))
    end
    if fits then
      local at = #reply
      reply[at + 1], reply[at + 2] = page[i], page[i + 1]
      reply[at + 3], reply[at + 4] = record and record.name or '', record and record.lane or ''
    end
  end
  return reply
end
