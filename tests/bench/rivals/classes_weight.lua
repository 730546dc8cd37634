-- Gives ARGV[1], a backend of what classes.lua picks from, the weight ARGV[2]. KEYS[2] is a hash: name -> order, weight.
local order, old = struct.unpack('<c8H', redis.call('HGET', KEYS[2], ARGV[1]))
local weight, member = tonumber(ARGV[2]), order .. ARGV[1]
local all = redis.call('GET', KEYS[1])
local turn, total, at = struct.unpack('<dd', all)
local credit = old * turn - redis.call('ZSCORE', KEYS[1] .. ':' .. old, member)
local scaled = credit * weight / old
scaled = scaled < 0 and math.ceil(scaled) or math.floor(scaled)
redis.call('ZREM', KEYS[1] .. ':' .. old, member)
redis.call('ZADD', KEYS[1] .. ':' .. weight, string.format('%d', weight * turn - scaled), member)
redis.call('HSET', KEYS[2], ARGV[1], struct.pack('<c8H', order, weight))
local classes, changed = {}, {[old] = true, [weight] = true}
while at <= #all do
  changed[struct.unpack('<H', all, at + 8)] = true
  at = at + 14
end
for w in pairs(changed) do
  local head = redis.call('ZRANGE', KEYS[1] .. ':' .. w, 0, 0, 'WITHSCORES')
  if head[1] then
    classes[#classes + 1] = struct.pack('<dHI', tonumber(head[2]), w, tonumber(string.sub(head[1], 1, 8), 16))
  end
end
redis.call('SET', KEYS[1], struct.pack('<dd', turn, total + weight - old) .. table.concat(classes))
