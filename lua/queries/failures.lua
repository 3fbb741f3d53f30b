-- failures: the newest dead letters by task and kind of error, the most frequent first.
-- args: limit int
-- reply: looked, size, (name, kind, number, newest_at, oldest_at, id, error)…
-- Of an error, what stands before a colon, a space or a parenthesis: its class, as Python writes it.
local function kind_of(error_text) return string.match(error_text, '^[^%s:(]*') end

return function(base, args)
  local key, groups, named = keys.dead(base), {}, {}
  local page = errors.read('ZREVRANGE', key, 0, args.limit - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    local id, at = page[i], tonumber(page[i + 1])
    -- A record that is gone or that somebody overwrote is one of no task.
    local record = task.read(base, id, { 'name', 'error' }) or {}
    local name, text = record.name or '', record.error or ''
    local kind = kind_of(text)
    local group = named[name .. '\0' .. kind]
    if not group then
      group = { name = name, kind = kind, count = 0, newest_at = at, id = id, error = history.short(text) }
      named[name .. '\0' .. kind], groups[#groups + 1] = group, group
    end
    group.count, group.oldest_at = group.count + 1, at
  end
  -- The largest first, of equal ones that with the newest.
  for i, group in ipairs(groups) do group.at = i end
  table.sort(groups, function(x, y) return x.count > y.count or x.count == y.count and x.at < y.at end)
  local reply = { #page / 2, errors.read('ZCARD', key) }
  for _, group in ipairs(groups) do
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = group.name, group.kind, group.count
    reply[at + 4], reply[at + 5] = group.newest_at, group.oldest_at
    reply[at + 6], reply[at + 7] = group.id, group.error
  end
  return reply
end
