-- The same without moving anything: KEYS[2] counts, KEYS[1] is the list. ARGV[1] is its length.
return redis.call('LINDEX', KEYS[1], redis.call('INCR', KEYS[2]) % ARGV[1])
