-- find: a page of one place: the tasks of a name, with a text, or with an argument.
-- args: place, which, offset int, limit int, task, text, argument, value, positions json
-- reply: next_offset, looked, size, (id, number, state, name, lane, tries, args, kwargs, codec, error)…
local FIELDS = { 'state', 'name', 'lane', 'tries', 'args', 'kwargs', 'codec', 'error' }
-- Records of so many bytes together are looked at in one call, and one more.
local MOST_BYTES = 1048576

-- Whether a record has a text, in upper or lower case.
local function has_text(id, record, text)
  for _, part in ipairs({ id, record.name or '', record.error or '', record.args or '', record.kwargs or '' }) do
    if string.find(string.lower(part), text, 1, true) then return true end
  end
  return false
end

-- What asks whether a record has an argument, or nil where none is asked for.
local function argument_of(args)
  if args.argument == '' then return nil end
  local find, canonical = payload.reader()
  local is_json, wanted = pcall(canonical, args.value)
  if not is_json or not wanted or #wanted > payload.MAX_VALUE then
    errors.raise(errors.bad_argument('value must be the JSON of a string, an integer or a boolean'))
  end
  local position = tonumber(args.argument)
  return function(record)
    local at = position or tonumber(args.positions[record.name])
    local is_read, value = find(record.args, record.kwargs, record.codec, at, not position and args.argument or nil)
    return is_read and value == wanted
  end
end

return function(base, args)
  local first, text, has_argument = args.offset, string.lower(args.text), argument_of(args)
  local page = listing.page(base, args.place, args.which, first, first + args.limit - 1)
  local size, next_offset, looked, bytes = listing.size(base, args.place, args.which), first + args.limit, 0, 0
  local reply = { 0, 0, size }
  for i = 1, #page, 2 do
    local id = page[i]
    if bytes > MOST_BYTES then
      -- Of a list the numbers are positions.
      local is_list = args.place == 'queued' or args.place == 'limited'
      next_offset = is_list and page[i + 1] or first + (i - 1) / 2
      break
    end
    local record = task.read(base, id, FIELDS) or {}
    looked = looked + 1
    for _, field in ipairs(FIELDS) do bytes = bytes + #(record[field] or '') end
    if (args.task == '' or record.name == args.task) and (not has_argument or has_argument(record))
      and (text == '' or has_text(id, record, text)) then
      local at = #reply
      reply[at + 1], reply[at + 2], reply[at + 3] = id, page[i + 1], record.state or ''
      reply[at + 4], reply[at + 5], reply[at + 6] = record.name or '', record.lane or '', record.tries or ''
      reply[at + 7], reply[at + 8] = history.short(record.args or ''), history.short(record.kwargs or '')
      reply[at + 9], reply[at + 10] = record.codec or '', history.short(record.error or '')
    end
  end
  reply[1], reply[2] = next_offset < size and next_offset or 0, looked
  return reply
end
