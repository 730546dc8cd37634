-- Smooth weighted round robin with the loop in the server: KEYS[1] is a sorted set of the credits, negative, so that
-- among equals the first name wins; KEYS[2] one of the weights, negative; KEYS[3] their sum.
redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[1], KEYS[2])
local name = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
redis.call('ZINCRBY', KEYS[1], redis.call('GET', KEYS[3]), name)
return name
