-- What Higress's plugin ai-load-balancer sends as `global_least_request` (commit 4e0d691, lb_policy.go): the same calls in
-- the same order, in our words. All is in KEYS: microseconds, the hash of counts, the key of the last cleaning, seconds
-- between two of them, a backend, how many are healthy, whether to answer all counts ("1" is its default), and the
-- backends. It is sent as EVAL, with the whole text each time. A request ends by HINCRBY -1, and so does one that is found
-- to be above the limit, which the gateway sees by the count that is answered.
-- What it lacks: it looks at every backend and names each of them in the command, a request whose gateway dies counts for
-- ever, and no cluster runs it.
local table_key, cleaned_key, target = KEYS[2], KEYS[3], KEYS[5]
math.randomseed(tonumber(KEYS[1]))
local least, equals = 0, 0
for i = 8, 7 + tonumber(KEYS[6]) do
  local count = tonumber(redis.call('HGET', table_key, KEYS[i]) or 0) or 0
  if equals == 0 or count < least then
    target, least, equals = KEYS[i], count, 1
  elseif count == least then
    equals = equals + 1
    if math.random(equals) == 1 then
      target = KEYS[i]
    end
  end
end
redis.call('HINCRBY', table_key, target, 1)
local count = redis.call('HGET', table_key, target)
local details = {}
if KEYS[7] == '1' then
  local backends = {}
  for i = 8, #KEYS do
    table.insert(backends, KEYS[i])
  end
  for i, value in ipairs(redis.call('HMGET', table_key, unpack(backends))) do
    table.insert(details, backends[i])
    table.insert(details, tostring(value or 0))
  end
end
local now = math.floor(tonumber(KEYS[1]) / 1000000)
if now - tonumber(redis.call('GET', cleaned_key) or 0) >= tonumber(KEYS[4]) then
  local known = {}
  for i = 8, #KEYS do
    known[KEYS[i]] = true
  end
  for _, backend in ipairs(redis.call('HKEYS', table_key)) do
    if not known[backend] then
      redis.call('HDEL', table_key, backend)
    end
  end
  redis.call('SET', cleaned_key, now)
end
return {target, count, details}
