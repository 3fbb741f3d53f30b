-- workflows: a page of the workflows that have not ended, the newest first.
-- args: offset int, limit int
-- reply: (id, created_at)…
return function(base, args)
  return errors.read('ZREVRANGE', keys.workflows(base), args.offset, args.offset + args.limit - 1, 'WITHSCORES')
end
