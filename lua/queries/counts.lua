-- counts: how many tasks are in each place.
-- args: none
-- reply: (name, number)…
return function(base) return gauges.count(base) end
