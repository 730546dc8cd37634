-- Adds `name weight` pairs to what packed.lua picks from.
local pool = redis.call('GET', KEYS[1])
pool = pool and cmsgpack.unpack(pool) or {0, 0}
for i = 1, #ARGV, 2 do
  local weight, size = tonumber(ARGV[i + 1]), #pool
  pool[2] = pool[2] + weight
  pool[size + 1], pool[size + 2], pool[size + 3] = ARGV[i], weight, 0
end
redis.call('SET', KEYS[1], cmsgpack.pack(pool))
