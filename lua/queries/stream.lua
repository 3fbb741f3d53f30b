-- stream: a page of the chunks that a task emitted.
-- args: id, after_token int, after_number int, limit int
-- reply: more, (token, number, tries, codec, chunk)…
-- What one page has at the most, in bytes, but for its first chunk.
local PAGE = 1048576

return function(base, args)
  local key, token, place = keys.stream(base, args.id), args.after_token, args.after_number
  local record, err = task.read(base, args.id, { 'state', 'streamed' })
  if err then return { err = err } end
  local length = errors.read('LLEN', key)
  -- What is there is of an earlier task of this id, or of this one before it ran again as if new.
  if record.state and not record.streamed then length = 0 end
  local from = chunks.find(key, 0, length, function(entry)
    return entry.token > token or entry.token == token and entry.number > place
  end)
  local first = from < length and chunks.at(key, from)
  if not first then return { '0' } end
  local stop = chunks.find(key, from + 1, math.min(length, from + args.limit), function(entry)
    return entry.total - first.total > PAGE
  end)
  local reply = { stop < length and '1' or '0' }
  for _, text in ipairs(errors.read('LRANGE', key, from, stop - 1)) do
    local entry = chunks.unpack(text)
    if entry then
      local at = #reply
      reply[at + 1], reply[at + 2], reply[at + 3] = clock.text(entry.token), clock.text(entry.number), entry.tries
      reply[at + 4], reply[at + 5] = entry.codec, entry.chunk
    end
  end
  return reply
end
