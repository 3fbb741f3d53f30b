-- Pages of ids by place, as people go through them.
local M = {}

local SORTED = { scheduled = keys.scheduled, held = keys.held, dead = keys.dead, quarantined = keys.quarantined,
  unknown_tasks = keys.unknown_tasks }

-- Leave out of a page of a ready list what a claim would skip.
local function ready_page(base, lane_name, first, last)
  local ids = errors.read('LRANGE', keys.ready(base, lane_name), first, last)
  if #ids == 0 then return {} end
  local is_tombstone, page = errors.read('SMISMEMBER', keys.tombstones(base, lane_name), unpack(ids)), {}
  for i, id in ipairs(ids) do
    if is_tombstone[i] == 0 then page[#page + 1], page[#page + 2] = id, first + i - 1 end
  end
  return page
end

-- A line, `<lane>:<line>`; what is there no more is passed over when its turn comes, and named here, too.
local function line_page(base, which, first, last)
  local page = {}
  for i, id in ipairs(errors.read('LRANGE', base .. 'line:' .. which, first, last)) do
    page[2 * i - 1], page[2 * i] = id, first + i - 1
  end
  return page
end

local function running_page(base, worker, first, last)
  local claims, page = member.claims(base, worker), {}
  for i = first + 1, math.min(last + 1, #claims) do
    page[#page + 1], page[#page + 2] = claims[i].id, claims[i].token
  end
  return page
end

local COUNTED = { queued = { 'LLEN', keys.ready }, running = { 'HLEN', keys.running } }

-- Ids and numbers in turn, from position `first` to `last`.
function M.page(base, place, which, first, last)
  if place == 'queued' then return ready_page(base, which, first, last) end
  if place == 'limited' then return line_page(base, which, first, last) end
  if place == 'running' then return running_page(base, which, first, last) end
  local key = SORTED[place]
  if not key then
    errors.raise(errors.bad_argument(
      'place must be queued, limited, scheduled, held, running, dead, quarantined or unknown_tasks'))
  end
  return errors.read(place == 'dead' and 'ZREVRANGE' or 'ZRANGE', key(base, which), first, last, 'WITHSCORES')
end

-- How many entries a place has, those included that a claim would skip.
function M.size(base, place, which)
  if place == 'limited' then return errors.read('LLEN', base .. 'line:' .. which) end
  local command, key = unpack(COUNTED[place] or { 'ZCARD', SORTED[place] })
  return errors.read(command, key(base, which))
end

return M
