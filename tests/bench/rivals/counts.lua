-- The same where the server keeps the order: KEYS[1] is a sorted set of the counts, ARGV[1] how many requests a backend may
-- have. A request ends by ZINCRBY -1.
-- What it lacks: of equals it always takes the first by name, and a request whose gateway dies counts for ever.
local backend = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
if tonumber(redis.call('ZINCRBY', KEYS[1], 1, backend)) <= tonumber(ARGV[1]) then
  return backend
end
redis.call('ZINCRBY', KEYS[1], -1, backend)
return false
