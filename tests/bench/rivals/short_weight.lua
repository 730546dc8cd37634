-- Gives ARGV[1], a backend of what short.lua picks from, the weight ARGV[2].
local pool, weight = redis.call('GET', KEYS[1]), tonumber(ARGV[2])
local turn, total, at = struct.unpack('<dd', pool)
while at < #pool do
  local start, old, name, next = struct.unpack('<dHBc0', pool, at)
  if name == ARGV[1] then
    local scaled = (start + old * turn) * weight / old
    scaled = scaled < 0 and math.ceil(scaled) or math.floor(scaled)
    pool = struct.pack('<dd', turn, total + weight - old) .. string.sub(pool, 17, at - 1) ..
      struct.pack('<dH', scaled - weight * turn, weight) .. string.sub(pool, at + 10)
    return redis.call('SET', KEYS[1], pool)
  end
  at = next
end
