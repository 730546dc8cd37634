-- As packed.lua, for larger pools: KEYS[1] is a string of numbers, of which only two are written anew: turn, sum of
-- weights, then start and weight of each backend. KEYS[2] is a hash of their names by number.
local pool = redis.call('GET', KEYS[1])
local numbers = {struct.unpack('<dd' .. string.rep('dH', (#pool - 16) / 10), pool)}
local turn = numbers[1] + 1
local best, most = 0, -1e300
for i = 3, #numbers - 1, 2 do
  local credit = numbers[i] + numbers[i + 1] * turn
  if credit > most then
    best, most = i, credit
  end
end
redis.call('SETRANGE', KEYS[1], 0, struct.pack('<d', turn))
redis.call('SETRANGE', KEYS[1], best * 5 + 1, struct.pack('<d', numbers[best] - numbers[2]))
return redis.call('HGET', KEYS[2], (best - 3) / 2)
