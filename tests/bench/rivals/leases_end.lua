-- Ends a lease that leases.lua gave: 1, or 0 where it is over.
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
  return 0
end
redis.call('ZINCRBY', KEYS[1], -4398046511104, string.sub(ARGV[1], 13))
return 1
