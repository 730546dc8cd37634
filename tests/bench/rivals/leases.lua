-- Leases that end by themselves, by the server's clock. KEYS[1] is a sorted set of backends by how many leases they have,
-- and of equals by when they were last picked: the score is leases * 2^42 + milliseconds. KEYS[2] is a sorted set of leases
-- by their deadlines. ARGV: how many leases a backend may have, for how many milliseconds this one counts, and what no
-- other lease is called, a number of twelve digits. Answers the lease: that, and the name of the backend.
-- What it lacks: weights. What is over is looked for by every tenth pick, and by one that would else be refused: always to
-- look takes a tenth longer.
local UNIT, format = 4398046511104, string.format
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function clear()
  local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)
  for _, lease in ipairs(over) do
    redis.call('ZREM', KEYS[2], lease)
    redis.call('ZINCRBY', KEYS[1], -UNIT, string.sub(lease, 13))
  end
  return #over
end

local function least()
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return first[1], math.floor(first[2] / UNIT)
end

if string.sub(ARGV[3], 12) == '0' then
  clear()
end
local backend, leases = least()
if leases >= tonumber(ARGV[1]) and clear() > 0 then
  backend, leases = least()
end
if leases >= tonumber(ARGV[1]) then
  return false
end
local lease = ARGV[3] .. backend
redis.call('ZADD', KEYS[1], format('%d', (leases + 1) * UNIT + now), backend)
redis.call('ZADD', KEYS[2], format('%d', now + ARGV[2]), lease)
return lease
