-- audit: what people did to the queue, the newest first.
-- args: offset int, limit int
-- reply: size, (acted_at, user, client, action, subject, number, outcome)…
return function(base, args)
  local key = keys.audit(base)
  local reply = { errors.read('LLEN', key) }
  for _, text in ipairs(errors.read('LRANGE', key, args.offset, args.offset + args.limit - 1)) do
    local ok, entry = pcall(cjson.decode, text)
    if ok and type(entry) == 'table' and #entry == 7 then
      local at = #reply
      for i, value in ipairs(entry) do reply[at + i] = type(value) == 'number' and value or tostring(value) end
    end
  end
  return reply
end
