-- Sharing claims between lanes by weight. Each claim moves its lane's pass on by a stride, the shorter the larger the
-- weight; the lane that is furthest behind goes next (stride scheduling: Waldspurger and Weihl, 1995). The passes are
-- the worker's.
local M = {}

-- Of weight 1; a multiple of every number up to 15, so that common weights are exact.
local STRIDE = 720720

local function stride(lanes, name)
  return math.max(math.floor(STRIDE / lanes.weights[name] + 0.5), 1)
end

-- The passes a worker's row holds (text or nil), one for each lane.
function M.read(text, lanes)
  local ok, passes = pcall(cjson.decode, text or '{}')
  if not ok or type(passes) ~= 'table' then passes = {} end
  local known = {}
  for _, name in ipairs(lanes) do known[name] = number.of(passes[name], 0) end
  return known
end

-- The position in `open` of the lane whose turn it is, and how many claims it may have in a row.
local function next_lane(open, lanes, passes)
  local at, second = 1, nil
  for i = 2, #open do
    local pass, least = passes[open[i]], passes[open[at]]
    if pass < least then
      at, second = i, least
    elseif not second or pass < second then
      second = pass
    end
  end
  if not second then return at, math.huge end
  return at, math.floor((second - passes[open[at]]) / stride(lanes, open[at])) + 1
end

-- Claim up to `want` tasks by `take(lane, count)`, which replies how many it got and whether there is no more to get.
-- An empty lane leaves its share to the others and saves up nothing. Replies how many were claimed.
function M.claim(lanes, passes, want, take)
  local open, taken = { unpack(lanes) }, 0
  while taken < want and #open > 0 do
    local at, count = next_lane(open, lanes, passes)
    local name = open[at]
    local got, is_dry = take(name, math.min(count, want - taken))
    taken, passes[name] = taken + got, passes[name] + got * stride(lanes, name)
    if is_dry then table.remove(open, at) end
  end
  local base = math.huge
  for _, name in ipairs(open) do base = math.min(base, passes[name]) end
  for name, pass in pairs(passes) do passes[name] = base < math.huge and math.max(pass - base, 0) or 0 end
  return taken
end

return M
