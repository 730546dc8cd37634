-- Smooth weighted round robin for larger pools: a pick looks at one backend of each different weight. A credit is
-- weight * turn - score, so in a class of equal weights all grow alike. KEYS[1] is a string: turn, sum of weights, then
-- of each class the lowest score, the weight, and the order of whose score it is. The class of weight w is a sorted set,
-- KEYS[1]:w, whose members are order and name.
local all = redis.call('GET', KEYS[1])
local of = {struct.unpack('<dd' .. string.rep('dHI', (#all - 16) / 14), all)}
local turn, total = of[1] + 1, of[2]
local best, most = 0, -1e300
for i = 3, #of - 1, 3 do
  local credit = of[i + 1] * turn - of[i]
  if credit > most or credit == most and of[i + 2] < of[best + 2] then
    best, most = i, credit
  end
end
local class = KEYS[1] .. ':' .. of[best + 1]
local two = redis.call('ZRANGE', class, 0, 1, 'WITHSCORES')
local member, head, score = two[1], two[1], of[best] + total
redis.call('ZINCRBY', class, total, member)
local second = tonumber(two[4])
if second and (second < score or second == score and two[3] < member) then
  head, score = two[3], second
end
local at = 16 + (best - 3) / 3 * 14
redis.call('SET', KEYS[1], struct.pack('<d', turn) .. string.sub(all, 9, at) ..
  struct.pack('<dHI', score, of[best + 1], tonumber(string.sub(head, 1, 8), 16)) .. string.sub(all, at + 15))
return string.sub(member, 9)
