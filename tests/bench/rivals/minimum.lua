-- The least of counts, as most people begin: KEYS[1] is a hash of how many requests each backend has, ARGV[1] how many it
-- may have. A request ends by HINCRBY -1.
-- What it lacks: it looks at every backend, of equals it always takes the same one, and a request whose gateway dies counts
-- for ever.
local all, least, best = redis.call('HGETALL', KEYS[1]), tonumber(ARGV[1]), false
for i = 2, #all, 2 do
  local count = tonumber(all[i])
  if count < least then
    least, best = count, all[i - 1]
  end
end
if best then
  redis.call('HINCRBY', KEYS[1], best, 1)
end
return best
