-- Smooth weighted round robin where only the one that is picked changes: a credit is start + weight * turn.
-- KEYS[1] is one string, in MessagePack: turn, sum of weights, then name, weight, start of each backend.
local pool = cmsgpack.unpack(redis.call('GET', KEYS[1]))
local turn = pool[1] + 1
local best, most = 0, -1e300
for i = 4, #pool, 3 do
  local credit = pool[i + 1] + pool[i] * turn
  if credit > most then
    best, most = i, credit
  end
end
pool[1] = turn
pool[best + 1] = pool[best + 1] - pool[2]
redis.call('SET', KEYS[1], cmsgpack.pack(pool))
return pool[best - 1]
