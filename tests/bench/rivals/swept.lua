#!lua name=swept
-- leases.lua as a Function, which may remember when it last looked for leases that are over: once in ten milliseconds is
-- enough. Where it remembers nothing, after a failover or a restart, it looks at once.
local UNIT, looked = 4398046511104, {}

redis.register_function('swept', function(keys, args)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local step = math.floor(now / 10)
  if looked[keys[1]] ~= step then
    local over = redis.call('ZRANGEBYSCORE', keys[2], '-inf', now, 'LIMIT', 0, 1000)
    for _, lease in ipairs(over) do
      redis.call('ZREM', keys[2], lease)
      redis.call('ZINCRBY', keys[1], -UNIT, string.sub(lease, 13))
    end
    if #over < 1000 then
      looked[keys[1]] = step
    end
  end
  local first = redis.call('ZRANGE', keys[1], 0, 0, 'WITHSCORES')
  local leases = math.floor(first[2] / UNIT)
  if leases >= tonumber(args[1]) then
    return false
  end
  local lease = args[3] .. first[1]
  redis.call('ZADD', keys[1], (leases + 1) * UNIT + now, first[1])
  redis.call('ZADD', keys[2], now + args[2], lease)
  return lease
end)

redis.register_function('swept_end', function(keys, args)
  if redis.call('ZREM', keys[2], args[1]) == 0 then
    return 0
  end
  redis.call('ZINCRBY', keys[1], -UNIT, string.sub(args[1], 13))
  return 1
end)
