-- workflow: a workflow, and a page of its members.
-- args: id, offset int, limit int
-- reply: state, kind, (name, kind, task, state, after, size, complete, failed, skipped, aborted, error, queue)…
return function(base, args)
  local found = errors.read('HMGET', keys.task(base, args.id), 'state', 'kind')
  local reply = { found[1] or 'not_found', found[2] or '' }
  if found[2] ~= 'workflow' then return reply end
  for _, name in ipairs(errors.read('LRANGE', keys.nodes(base, args.id), args.offset, args.offset + args.limit - 1)) do
    local record = task.read(base, group.id_of(args.id, name), { 'kind', 'name', 'state', 'after', 'size', 'complete',
      'failed', 'skipped', 'aborted', 'error', 'queue' }) or {}
    for _, value in ipairs({ name, record.kind or '', record.name or '', record.state or '', record.after or '',
      record.size or '0', record.complete or '0', record.failed or '0', record.skipped or '0', record.aborted or '0',
      record.error or '', record.queue or '' }) do
      reply[#reply + 1] = value
    end
  end
  return reply
end
