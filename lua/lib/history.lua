-- The attempts of a task that did not succeed, kept in its record as a JSON array: bounded, the newest last.
local M = {}

local MAX = 20
local MAX_ERROR = 500

-- A text cut to its bound, not within a character.
function M.short(text)
  if #text <= MAX_ERROR then return text end
  return (string.gsub(string.sub(text, 1, MAX_ERROR), '[\192-\255][\128-\191]*$', '')) .. '...'
end

-- `history` (text or nil) with one attempt more: when it ended, how long it ran (nil: nobody knows), on which worker,
-- with what error.
function M.add(history, try, ended_at, run_ms, worker, error_text)
  local ok, attempts = pcall(cjson.decode, history or '[]')
  if not ok or type(attempts) ~= 'table' then attempts = {} end
  attempts[#attempts + 1] =
    { try = try, ended_at = ended_at, run_ms = run_ms, worker = worker, error = M.short(error_text) }
  while #attempts > MAX do table.remove(attempts, 1) end
  return cjson.encode(attempts)
end

return M
