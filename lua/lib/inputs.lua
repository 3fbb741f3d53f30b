-- Results of tasks as arguments of those that follow them: nothing is copied when a task ends, its followers read its result when
-- they are claimed.
local M = {}

-- A larger result, and what there is beyond so many bytes in all, is left for the worker to ask for.
local LARGEST, LARGEST_IN_ALL = 65536, 262144
-- In front of the codec of a call that came with its inputs.
local WITH = 'with+'

-- The arguments and the codec of a claim whose record has `inputs`: netstrings of the arguments, then of each input its
-- parameter, its shape (`one`, `list`, `map`), how many results it has, and of each of them its source, state, codec and value.
-- What did not complete has its error for a value; a `reference`, the id of the task that has the result.
function M.resolve(base, id, args, codec, inputs)
  local ok, wanted = pcall(cjson.decode, inputs)
  local group_id = group.split(id)
  if not ok or type(wanted) ~= 'table' or not group_id then return args, codec end
  local parts, size = { args }, 0
  local function add(part) parts[#parts + 1] = part end
  for _, input in ipairs(wanted) do
    local parameter, source = input[1], input[2]
    local is_map = type(source) == 'string' and string.sub(source, 1, 1) == '*'
    local sources = type(source) == 'table' and source or { source }
    add(parameter)
    add(is_map and 'map' or type(source) == 'table' and 'list' or 'one')
    add(clock.text(#sources))
    for _, name in ipairs(is_map and {} or sources) do
      local of = group.id_of(group_id, name)
      local found = task.read(base, of, { 'state', 'result', 'result_codec', 'error' }) or {}
      local result = found.result or ''
      add(name)
      if found.state ~= 'complete' then
        add(found.state or 'not_found')
        add('')
        add(found.error or found.state or 'its record is gone')
      elseif #result > LARGEST or size + #result > LARGEST_IN_ALL then
        add('reference')
        add('')
        add(of)
      else
        size = size + #result
        add('complete')
        add(found.result_codec or '')
        add(result)
      end
    end
    if is_map then
      add(string.sub(source, 2))
      add('map')
      add('')
      add(group.id_of(group_id, string.sub(source, 2)))
    end
  end
  return mail.pack_list(parts, #parts), WITH .. (codec or '')
end

return M
