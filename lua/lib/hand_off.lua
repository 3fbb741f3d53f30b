-- Hand-off: what is enqueued while a worker has nothing to do is claimed for it in the same call, and goes into its mailbox.
-- A worker offers itself with a step that found nothing. Whatever comes next ends the offer: a hand-off, its next step, its end.
-- What waits in lines is left to steps: a worker of version 1 knows no lines, and a message tells of no batch.
local M = {}

-- Larger calls are left to workers to share.
local MOST = 16
-- A worker that gave no sign of life for that part of its lease, or for that long, may be dead, and what it is handed would
-- wait until the lease is over. A living one beats four times a lease, and every second.
local SILENT, SILENT_MS = 1 / 3, 3000

-- What a worker offers, as its row has it, or nil: it does not, it is gone, or its keys are damaged.
local function read_offer(batch, worker)
  local base = batch.base
  local row = redis.pcall('HMGET', keys.worker(base, worker), 'idle', 'mailbox', 'quarantined', 'passes', 'timer_at')
  if errors.of(row) or not row[1] or row[1] == '' or not row[2] then return nil end
  local expiry = redis.pcall('ZSCORE', keys.workers(base), worker)
  if type(expiry) ~= 'string' or errors.of(redis.pcall('HLEN', keys.running(base, worker))) then return nil end
  local ok, terms = pcall(cjson.decode, row[1])
  if not ok or type(terms) ~= 'table' then return nil end
  for _, name in ipairs({ 'want', 'lease_ms', 'result_ttl_ms' }) do
    if type(terms[name]) ~= 'number' then return nil end
  end
  if tonumber(expiry) - batch.now < terms.lease_ms - math.min(terms.lease_ms * SILENT, SILENT_MS) then return nil end
  local has_lanes, names = pcall(lane.names, terms.lanes)
  if not has_lanes then return nil end
  return { worker = worker, mailbox = row[2], lanes = names, want = terms.want, result_ttl_ms = terms.result_ttl_ms,
    earlier = { quarantined = row[3], passes = row[4] or nil }, has_timer = row[5] }
end

-- Who has nothing to do, longest first, for `count` tasks of these lanes; nil where something waits in one of them, or
-- nobody offers. Only reads. A damaged key costs speed, never a task.
function M.offers(batch, lanes, count)
  if count > MOST then return nil end
  for _, name in ipairs(lanes) do
    if batch.seen[name].ready > 0 then return nil end
  end
  local found, offers, stale = {}, {}, {}
  for _, name in ipairs(lanes) do
    local workers = redis.pcall('ZRANGE', keys.idle(batch.base, name), 0, count - 1)
    for _, worker in ipairs(errors.of(workers) and {} or workers) do
      if found[worker] == nil then found[worker] = read_offer(batch, worker) or false end
      if not found[worker] then
        batches.push(stale, name, worker)
      elseif not found[worker].is_listed then
        found[worker].is_listed, offers[#offers + 1] = true, found[worker]
      end
    end
  end
  if next(found) == nil then return nil end
  local ok, pauses, _, has_lines = pcall(claim.check, batch.base)
  if not ok or pauses and pauses.whole then return nil end
  for _, name in ipairs(has_lines and lanes or {}) do
    if redis.pcall('ZCARD', keys.ring(batch.base, name)) ~= 0 then return nil end
  end
  return { workers = offers, stale = stale, pauses = pauses, has_lines = has_lines }
end

-- Claim what this call made ready for those who offered, evenly; for what is left, workers are woken as ever.
function M.give(batch, offers, lanes, count)
  local base = batch.base
  batch.pauses, batch.has_lines, batch.is_hand_off = offers.pauses, offers.has_lines, true
  for name, workers in pairs(offers.stale) do redis.call('ZREM', keys.idle(base, name), unpack(workers)) end
  for _, name in ipairs(lanes) do batch.seen[name].is_offered = true end
  calls.flush(batch)
  local full = {}
  for i, offer in ipairs(offers.workers) do
    local share = i < #offers.workers and math.ceil(count / (#offers.workers - i + 1)) or MOST
    local claims, row = { n = 0 }, keys.worker(base, offer.worker)
    local taken, first_token = claim.take(batch, offer.worker, offer.lanes, math.min(offer.want, share), offer.earlier,
      offer.result_ttl_ms, claims)
    if taken > 0 then
      count = math.max(count - taken, 0)
      member.withdraw(base, offer.worker, offer.lanes)
      redis.call('HSET', row, 'idle', '', 'handed', first_token)
      mail.post(base, offer.mailbox, { mail.pack('claimed') .. mail.pack_list(claims, claims.n) })
      if taken == offer.want and offer.has_timer then full[#full + 1] = offer.worker end
    end
    if count == 0 then break end
  end
  -- They have no room for what falls due: the timer is for one that has. Only now, or a later claim would take the token
  -- of the worker that is woken for it.
  for _, worker in ipairs(full) do timer.drop(base, worker) end
  for _, name in ipairs(lanes) do
    local left = redis.call('LLEN', keys.ready(base, name))
    if left > 0 then
      local tokens = redis.call('LLEN', keys.wake(base, name))
      lane.wake(base, name, left - tokens, tokens)
    end
  end
end

return M
