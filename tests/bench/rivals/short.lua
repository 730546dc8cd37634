-- Smooth weighted round robin for small pools. Each pick adds its weight to every credit, takes the highest (the earliest
-- added of equals), which pays the sum of weights. Only that one is written: a credit is start + weight * turn. KEYS[1] is
-- one string of structs: turn, sum of weights, then start, weight and name of each backend, in order of addition.
local pool = redis.call('GET', KEYS[1])
local unpack, size = struct.unpack, #pool
local turn, total, at = unpack('<dd', pool)
local best, most, pay = 0, -1e300, 0
turn = turn + 1
while at < size do
  local start, weight, length, next = unpack('<dHB', pool, at)
  local credit = start + weight * turn
  if credit > most then
    best, most, pay = at, credit, start - total
  end
  at = next + length
end
redis.call('SET', KEYS[1], struct.pack('<d', turn) .. string.sub(pool, 9, best - 1) ..
  struct.pack('<d', pay) .. string.sub(pool, best + 8))
return (unpack('<Bc0', pool, best + 10))
