-- What redis-semaphore sends to acquire a Semaphore (commit 63c2d01, 5.7.0, acquire/lua.ts): the same calls in the same
-- order, in our words. KEYS[1] is a sorted set of holders by when they came; ARGV: how many there may be, the name of this
-- one, for how many milliseconds it holds, and the client's time. It ends by ZREM.
-- What it lacks: it limits one resource and chooses none; it goes by the clocks of the clients, so one that is ahead ends
-- what others hold.
local now, ms = tonumber(ARGV[4]), tonumber(ARGV[3])
redis.call('zremrangebyscore', KEYS[1], '-inf', now - ms)
if redis.call('zcard', KEYS[1]) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('zadd', KEYS[1], now, ARGV[2])
redis.call('pexpire', KEYS[1], ms)
return 1
