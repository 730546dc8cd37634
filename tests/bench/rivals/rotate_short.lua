-- The same in the other direction, by the older command that needs fewer arguments. The list is in reverse order.
return redis.call('RPOPLPUSH', KEYS[1], KEYS[1])
