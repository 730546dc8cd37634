-- Leases that end by themselves, by the server's clock. KEYS[1] is a sorted set of backends by how many leases they have,
-- and of equals by when they were last picked: the score is leases * 2^42 + milliseconds. KEYS[2] is a sorted set of leases
-- by their deadlines. ARGV: how many leases a backend may have, for how many milliseconds this one counts, and what no
-- other lease is called, of twelve characters. Answers the lease: that, and the name of the backend.
-- What it lacks: weights; what is over is noticed by the next pick alone, and clearing ten at a time keeps a pick short.
local UNIT = 4398046511104
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 10)) do
  redis.call('ZREM', KEYS[2], lease)
  redis.call('ZINCRBY', KEYS[1], -UNIT, string.sub(lease, 13))
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local leases = math.floor(first[2] / UNIT)
if leases >= tonumber(ARGV[1]) then
  return false
end
local lease = ARGV[3] .. first[1]
redis.call('ZADD', KEYS[1], (leases + 1) * UNIT + now, first[1])
redis.call('ZADD', KEYS[2], now + ARGV[2], lease)
return lease
