-- outbox: what there is to tell other queues, as calls of functions there.
-- args: limit int
-- reply: (entry, life, queue, function, arguments)…
-- What one page has at the most, in bytes.
local PAGE = 1048576

local CALL = { 'state', 'queue', 'life', 'name', 'lane', 'args', 'kwargs', 'codec', 'headers', 'inputs', 'delay_ms',
  'expire_ms', 'limits', 'abort_requested', 'afresh' }
local OUTCOME = { 'state', 'home', 'life', 'result', 'result_codec', 'error', 'traceback', 'tries', 'started_at',
  'history' }

-- What becomes of each kind of entry: the queue, the function and its arguments; nil: there is nothing to say any more.
local SAY = {}

-- A member begins, with its inputs resolved.
function SAY.begin(holder, id)
  local r = task.read(holder.base, id, CALL)
  if not r or not outbox.is_due('begin', r) then return nil end
  local args, codec = r.args or '[]', r.codec
  local home = keys.queue(holder.base)
  if r.inputs then args, codec = inputs.resolve(holder, id, args, codec, r.inputs, home) end
  local options = {}
  local function add(name, json) options[#options + 1] = json and '"' .. name .. '":' .. json end
  add('home', cjson.encode(home))
  add('life', cjson.encode(r.life))
  add('idempotency_key', cjson.encode(home .. ' ' .. r.life))
  add('codec', codec and cjson.encode(codec))
  add('headers', r.headers and cjson.encode(r.headers))
  add('delay_ms', number.of(r.delay_ms) and r.delay_ms)
  add('expire_ms', number.of(r.expire_ms) and r.expire_ms)
  add('limits', r.limits)
  add('afresh', r.afresh and 'true')
  local call = { outbox.guest_id(home, id), r.name or '', r.lane or task.DEFAULT_LANE, args, r.kwargs or '',
    '{' .. table.concat(options, ',') .. '}' }
  return r.queue, 'enqueue', call, r.life
end

-- It is to stop.
function SAY.abort(holder, id)
  local r = task.read(holder.base, id, CALL)
  if not r or not outbox.is_due('abort', r) then return nil end
  local home = keys.queue(holder.base)
  return r.queue, 'abort_guest', { outbox.guest_id(home, id), home, r.life }, r.life
end

-- It has ended, here.
function SAY.ended(holder, id)
  local r = task.read(holder.base, id, OUTCOME)
  if not r or not outbox.is_due('ended', r) then return nil end
  local outcome = { outbox.home_id(r.home, id), r.life, r.state, r.result or '', r.result_codec or '', r.error or '',
    r.traceback or '', r.tries or '0', r.started_at or '', r.history or '' }
  return r.home, 'home_ended', outcome, r.life
end

return function(base, args)
  local reply, bytes, holder = {}, 0, { base = base }
  for _, entry in ipairs(errors.read('LRANGE', keys.outbox(base), 0, args.limit - 1)) do
    local kind, id = outbox.split(entry)
    local queue, name, call, life
    if SAY[kind] then queue, name, call, life = SAY[kind](holder, id) end
    local packed = call and mail.pack_list(call, #call) or ''
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = entry, life or '', queue or ''
    reply[at + 4], reply[at + 5] = name or '', packed
    bytes = bytes + #packed
    if bytes > PAGE then break end
  end
  return reply
end
