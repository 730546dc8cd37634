-- Earliest deadline first, as Envoy does it: the right shares without bursts, but not nginx's order. KEYS[1] is a sorted
-- set of deadlines; a member is its step, 1 / weight in 14 characters, and its name. To change a weight is to change the
-- member.
local member = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
redis.call('ZINCRBY', KEYS[1], string.sub(member, 1, 14), member)
return string.sub(member, 15)
