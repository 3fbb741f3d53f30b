-- Results of tasks as arguments of those that follow them: nothing is copied when a task ends, its followers read its result when
-- they are claimed.
local M = {}

-- A larger result, and what there is beyond so many bytes in one call, is left for the worker to ask for.
local LARGEST, LARGEST_IN_ALL = 65536, 1048576
-- In front of the codec of a call that came with its inputs.
local WITH = 'with+'

-- The arguments and the codec of a claim whose record has `inputs`: netstrings of the arguments, then of each input its
-- parameter, its shape (`one`, `list`, `map`), how many results it has, and of each of them whose it is, state, codec and value.
-- What did not complete has its error for a value; a `reference`, and a `map`, the id of the task that has the results, with its
-- queue in the place of a codec where that is another one (`queue`).
function M.resolve(holder, id, args, codec, inputs, queue)
  local ok, wanted = pcall(cjson.decode, inputs)
  local group_id = group.split(id)
  if not ok or type(wanted) ~= 'table' or not group_id then return args, codec end
  local base, parts, size = holder.base, { args }, holder.input_bytes or 0
  local function add(...)
    for _, part in ipairs({ ... }) do parts[#parts + 1] = part end
  end
  for _, input in ipairs(wanted) do
    local parameter, source = input[1], input[2]
    local is_map = type(source) == 'string' and string.sub(source, 1, 1) == '*'
    local sources = type(source) == 'table' and source or { source }
    add(parameter, is_map and 'map' or type(source) == 'table' and 'list' or 'one', clock.text(#sources))
    for _, name in ipairs(is_map and {} or sources) do
      local of = group.id_of(group_id, name)
      local found = task.read(base, of, { 'state', 'result_codec', 'error' }) or {}
      -- A large one is not read to say where it is: many may follow it.
      local bytes = found.state == 'complete' and redis.call('HSTRLEN', keys.task(base, of), 'result')
      if not bytes then
        add(name, found.state or 'not_found', '', found.error or found.state or 'its record is gone')
      elseif bytes > LARGEST or size + bytes > LARGEST_IN_ALL then
        add(name, 'reference', queue or '', of)
      else
        size = size + bytes
        add(name, 'complete', found.result_codec or '', redis.call('HGET', keys.task(base, of), 'result') or '')
      end
    end
    if is_map then
      local name = string.sub(source, 2)
      add(name, 'map', queue or '', group.id_of(group_id, name))
    end
  end
  holder.input_bytes = size
  return mail.pack_list(parts, #parts), WITH .. (codec or '')
end

return M
