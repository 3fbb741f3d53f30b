-- workflow_seal: blocked -> complete, failed, queued, limited, scheduled, skipped. All calls of a workflow's open map are there: it ends with the last of them, or now.
-- args: id
-- reply: `sealed`, `accepted` (before, or it has ended) or `not_found`
return function(base, args)
  local root, err = task.read(base, args.id, { 'state', 'kind', 'open_map' })
  if err then return { err = err } end
  if root.kind ~= 'workflow' then return 'not_found' end
  if not root.open_map or root.state ~= 'blocked' then return 'accepted' end
  local id = group.id_of(args.id, root.open_map)
  errors.read('HGET', keys.task(base, id), 'state')
  local batch = batches.open(base, clock.read())
  local of, own = group.read(batch, args.id), group.read(batch, id)
  err = group.damage(batch, of) or own and group.damage(batch, own)
  if err then return { err = err } end

  group.seal(batch, of)
  if own then edges.touch(batch, own) end
  calls.close(batch)
  return 'sealed'
end
