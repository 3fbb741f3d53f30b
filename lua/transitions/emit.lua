-- emit: running -> running. The attempt's worker adds chunks to the task's stream.
-- args: worker, id, token, number int, result_ttl_ms int; chunks: (codec, chunk)…
-- reply: `ok`, or `stale`: another attempt has the task now, nothing changed
local MAX_CHUNK, MAX_CHUNKS, MAX_BYTES = 65536, 10000, 16777216

-- Drop the oldest chunks that are too many: of the last one it is known how many bytes there were up to it.
local function trim(key, length, total)
  local function fits(entry) return total - entry.total + #entry.chunk <= MAX_BYTES end
  local from = math.max(0, length - MAX_CHUNKS)
  local first = chunks.at(key, from)
  if not first or not fits(first) then from = chunks.find(key, from, length - 1, fits) end
  if from > 0 then redis.call('LTRIM', key, from, -1) end
end

return function(base, args)
  local key, sent = keys.stream(base, args.id), args.chunks
  for at = 1, #sent, 2 do
    if #sent[at + 1] > MAX_CHUNK or string.find(sent[at], '%s') then
      errors.raise(errors.bad_argument('a chunk must have at most ' .. MAX_CHUNK .. ' bytes, its codec no space'))
    end
  end
  local record, err = task.read(base, args.id, { 'state', 'tries', 'watched_until', 'result_ttl_ms', 'streamed' })
  if err then return { err = err } end
  if record.state ~= 'running' or not member.holds(base, args.worker, args.id, args.token) then return 'stale' end
  local last, token = chunks.at(key, -1), number.of(args.token, 0)
  -- Of an earlier task of this id, or of this one before it ran again as if new, nothing is left.
  if not (last and record.streamed) then last = { token = 0, number = 0, total = 0 } end

  local entries, total, tries = {}, last.total, clock.text(number.of(record.tries, 0))
  for at = 1, #sent, 2 do
    local place = args.number + (at - 1) / 2
    -- What is there by now came with this very call, whose answer was lost.
    if last.token ~= token or last.number < place then
      total = total + #sent[at + 1]
      entries[#entries + 1] = chunks.pack(token, place, tries, total, sent[at], sent[at + 1])
    end
  end
  if #entries == 0 then return 'ok' end
  if not record.streamed then
    redis.call('DEL', key)
    redis.call('HSET', keys.task(base, args.id), 'streamed', '1')
  end
  trim(key, redis.call('RPUSH', key, unpack(entries)), total)
  redis.call('PEXPIRE', key, clock.text(task.told_ms(record, args.result_ttl_ms)))
  waiters.changed(base, clock.now(), args.id, record.watched_until)
  return 'ok'
end
