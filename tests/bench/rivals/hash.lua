-- Smooth weighted round robin as it is told in words: each credit grows by its weight, the highest is taken and
-- pays the sum. KEYS[1] is a hash: name -> credit, weight, order of addition.
local all = redis.call('HGETALL', KEYS[1])
local total, best, most, first = 0, 0, -1e300, 0
local credits, weights, orders = {}, {}, {}
for i = 2, #all, 2 do
  local credit, weight, order = struct.unpack('<dHI', all[i])
  credit = credit + weight
  total = total + weight
  credits[i], weights[i], orders[i] = credit, weight, order
  if credit > most or credit == most and order < first then
    best, most, first = i, credit, order
  end
end
credits[best] = most - total
for i = 2, #all, 2 do
  all[i] = struct.pack('<dHI', credits[i], weights[i], orders[i])
end
redis.call('HSET', KEYS[1], unpack(all))
return all[best - 1]
