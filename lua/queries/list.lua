-- list: a page of the ids in one place.
-- args: place, which, offset int, limit int
-- reply: (id, number)…
return function(base, args)
  return listing.page(base, args.place, args.which, args.offset, args.offset + args.limit - 1)
end
