-- JSON objects in calls: a field that is not known is refused, as one that is misspelt would else be passed over.
local M = {}

-- Refuse a field that `kinds` (name -> type) does not have, or has with another type. `what`: the object, in the refusal.
function M.check(fields, kinds, what)
  for name, value in pairs(fields) do
    local kind = kinds[name]
    if type(value) ~= kind then
      local problem = kind and name .. ' must be a ' .. kind or 'unknown field ' .. name
      errors.raise(errors.bad_argument('in ' .. what .. ', ' .. problem))
    end
  end
  return fields
end

-- The fields of the object that a text holds, checked.
function M.decode(text, kinds, what)
  local ok, fields = pcall(cjson.decode, text)
  if not ok or type(fields) ~= 'table' then errors.raise(errors.bad_argument(what .. ' must be a JSON object')) end
  return M.check(fields, kinds, what)
end

return M
