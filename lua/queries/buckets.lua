-- buckets: the buckets that are in use: of which attempts run, or tasks wait.
-- args: name, cursor, limit int
-- reply: cursor, (bucket, definition, is_declared, is_put, running, waiting, is_exact, opens_at, share)…
-- First those of which some run, then, from a cursor `w:0` on, those under which lines wait, and from `s:0` on those of other lines.
local NEXT = { [''] = 'w:0', w = 's:0' }

-- A page of a hash that has a field for each bucket: its next cursor, and the buckets.
local function fields(key, cursor, limit)
  local page, buckets = errors.read('HSCAN', key, cursor, 'COUNT', limit), {}
  for i = 1, #page[2], 2 do buckets[#buckets + 1] = page[2][i] end
  return page[1], buckets
end

-- A page of the buckets that lines have, by name.
local function of_lines(in_lines, offset, limit)
  local all, buckets = {}, {}
  for bucket in pairs(in_lines) do all[#all + 1] = bucket end
  table.sort(all)
  for i = offset + 1, math.min(offset + limit, #all) do buckets[#buckets + 1] = all[i] end
  return offset + limit < #all and clock.text(offset + limit) or '0', buckets
end

return function(base, args)
  local section, cursor = string.match(args.cursor, '^([ws]?):?(%d+)$')
  if not cursor then errors.raise(errors.bad_argument('cursor must be what the last page returned')) end
  local counted, found = figures.count(base, args.name), {}
  local buckets
  if section == 's' then
    cursor, buckets = of_lines(counted.buckets, tonumber(cursor), args.limit)
  else
    cursor, buckets = fields(section == 'w' and keys.blocked_lanes(base) or keys.busy(base), cursor, args.limit)
  end
  for _, bucket in ipairs(buckets) do
    local is_told = section ~= '' and errors.read('HEXISTS', keys.busy(base), bucket) == 1
      or section == 's' and errors.read('HEXISTS', keys.blocked_lanes(base), bucket) == 1
    if not is_told and (args.name == '' or limits.name(bucket) == args.name) then found[#found + 1] = bucket end
  end
  if cursor == '0' then
    cursor = NEXT[section] or '0'
  elseif section ~= '' then
    cursor = section .. ':' .. cursor
  end
  return figures.describe(base, { cursor }, found, counted)
end
