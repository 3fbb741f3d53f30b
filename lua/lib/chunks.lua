-- What a task streams: the entries of `stream:<id>`, in the order of their attempts and of their numbers. Lease tokens only
-- grow, so a token and a number say how far a reader is, whatever was dropped meanwhile.
local M = {}

-- An entry: the token of its attempt, its number there, the try, how many bytes were streamed up to it, the codec (which may
-- be empty) and the chunk.
function M.pack(token, at, tries, total, codec, chunk)
  return table.concat({ clock.text(token), clock.text(at), tries, clock.text(total), codec, chunk }, ' ')
end

-- The entry at an index, or nil where there is none, or somebody wrote something else there.
function M.at(key, index)
  return M.unpack(errors.read('LRANGE', key, index, index)[1])
end

function M.unpack(entry)
  local token, at, tries, total, codec, chunk = string.match(entry or '', '^(%d+) (%d+) (%d+) (%d+) (%S*) (.*)$')
  if not token then return nil end
  return { token = number.of(token, 0), number = number.of(at, 0), tries = tries, total = number.of(total, 0),
    codec = codec, chunk = chunk }
end

-- The first index in [low, high) whose entry fits, where all after it do, too; else `high`.
function M.find(key, low, high, fits)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = M.at(key, middle)
    if entry and fits(entry) then high = middle else low = middle + 1 end
  end
  return low
end

return M
