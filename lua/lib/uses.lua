-- What the options of a new task say of its limits: which buckets, and so which line it waits in.
local M = {}

local USE = { name = 'string', key = 'string', cost = 'number', weight = 'number' }
local MAX_BUCKETS, MAX_WEIGHT = 8, 1000000
-- Options that name limits alone, as most that name any: what they ask for is the same in every call.
local KNOWN, LONGEST = 2000, 300
local known, known_count = {}, 0

local function bad(what) errors.raise(errors.bad_argument(what)) end

function M.known(text) return known[text] end

-- What the options of this text ask for, if they may be remembered.
function M.remember(text, options, asked)
  if not asked or #text > LONGEST or next(options) ~= 'limits' or next(options, 'limits') then return end
  if known_count >= KNOWN then known, known_count = {}, 0 end
  known[text], known_count = asked, known_count + 1
end

-- What a record has besides its call: `own`, and that of its line if it has one (`asked`); nil where it has nothing. `tries` tells
-- a claim that there is more to ask for than the line, which it asks for anyway.
function M.fields(own, asked)
  local function add(name, value) own[#own + 1], own[#own + 2] = name, value end
  if #own > 0 or asked and asked.weight then add('tries', '0') end
  if asked then
    add('buckets', asked.line)
    -- Only this version can claim it.
    add('needs_version', task.VERSION_TEXT)
    if asked.weight then add('weight', asked.weight) end
  end
  return #own > 0 and own or nil
end

-- `limits` of a task's options, checked: the names, buckets and costs, the line that they make, its `weight` where that is not 1,
-- and the `fields` of a record that has nothing else; nil where there are none.
function M.read(uses)
  if not uses or #uses == 0 then return nil end
  if #uses > MAX_BUCKETS then bad('a task may have 1 to ' .. MAX_BUCKETS .. ' limits, not ' .. #uses) end
  local names, buckets, costs, parts, seen, weight, gathers = {}, {}, {}, {}, {}, nil, nil
  for i, use in ipairs(uses) do
    if type(use) ~= 'table' then bad('limits must be a list of objects') end
    object.check(use, USE, 'limits')
    local name, cost = use.name, use.cost or 1
    if not name or name == '' then bad('each of the limits needs a name') end
    limits.check_name(name)
    local bucket = limits.bucket(name, use.key)
    if seen[bucket] then bad('limit ' .. bucket .. ' is named twice') end
    if gather.is(name) then
      if gathers then bad('a task may have one batch, not ' .. gathers .. ' and ' .. name) end
      gathers = name
    end
    if not (cost >= 1 and cost < 2 ^ 53 and cost % 1 == 0) then
      bad('the cost of limit ' .. bucket .. ' must be a whole number >= 1')
    end
    if use.weight and not (use.weight > 0 and use.weight <= MAX_WEIGHT) then
      bad('the weight of limit ' .. bucket .. ' must be a number > 0, up to ' .. MAX_WEIGHT)
    end
    seen[bucket], names[i], buckets[i], costs[i] = true, name, bucket, cost
    parts[i] = cost > 1 and bucket .. '*' .. clock.text(cost) or bucket
    if use.weight then weight = math.max(weight or 0, use.weight) end
  end
  table.sort(parts)
  local asked = { names = names, buckets = buckets, costs = costs, line = table.concat(parts, ',') }
  if weight and weight ~= 1 then asked.weight = number.text(weight) end
  asked.fields = M.fields({}, asked)
  return asked
end

-- Why the queue does not take a task that asks for these, or nil and how many may wait in its line. `declared`: definitions that
-- this call has looked up already, by name.
function M.refusal(base, asked, declared)
  local most = math.huge
  for i, name in ipairs(asked.names) do
    if declared[name] == nil then
      local found, err, has_overrides = limits.definitions(base, { name })
      if err then errors.raise(err) end
      declared[name] = { definition = found[1], has_overrides = has_overrides }
    end
    local definition, cost = declared[name].definition, asked.costs[i]
    if not definition then return errors.no_limit(name) end
    if declared[name].has_overrides and asked.buckets[i] ~= name then
      definition = limits.with_override(base, definition, asked.buckets[i])
    end
    if definition.is_damaged then return errors.damaged_limit(base, asked.buckets[i]) end
    if definition.rate and cost > (definition.burst or 1) then
      return errors.bad_argument('a task costs ' .. cost .. ' of limit ' .. asked.buckets[i] .. ', whose burst is '
        .. (definition.burst or 1) .. ': it could never start')
    end
    most = math.min(most, definition.max_waiting or math.huge)
  end
  return nil, most
end

return M
