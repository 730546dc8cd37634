#!lua name=cached
-- Smooth weighted round robin by a Function that keeps the pool in Lua's memory as well. What counts is in the keys:
-- KEYS[1], a hash name -> start, and '' -> turn; KEYS[2], a hash name -> `order weight`. A turn that is not the next one
-- tells that somebody else has written (failover, RESTORE), so the memory is read anew.
-- A credit is start + weight * turn. In a class of equal weights all grow alike, so they take turns: each class is a
-- ring, and a pick compares the heads of the rings.
local pools = {}

local function before(a, b)
  return a.start > b.start or a.start == b.start and a.order < b.order
end

local function load(keys, turn)
  local starts = redis.call('HGETALL', keys[1])
  local pool, classes = {turn = turn, total = 0}, {}
  for i = 1, #starts, 2 do
    local name = starts[i]
    if name ~= '' then
      local order, weight = string.match(redis.call('HGET', keys[2], name), '(%d+) (%d+)')
      weight = tonumber(weight)
      pool.total = pool.total + weight
      local class = classes[weight]
      if not class then
        class = {weight = weight, first = 1}
        classes[weight] = class
        pool[#pool + 1] = class
      end
      class[#class + 1] = {name = name, order = tonumber(order), start = tonumber(starts[i + 1])}
    end
  end
  for _, class in ipairs(pool) do
    table.sort(class, before)
  end
  pools[keys[1]] = pool
  return pool
end

redis.register_function('cached', function(keys)
  local turn = redis.call('HINCRBY', keys[1], '', 1)
  local pool = pools[keys[1]]
  if not pool or pool.turn + 1 ~= turn then
    pool = load(keys, turn)
  end
  pool.turn = turn
  local class, head, most = nil, nil, -1e300
  for i = 1, #pool do
    local ring = pool[i]
    local first = ring[ring.first]
    local credit = first.start + ring.weight * turn
    if credit > most or credit == most and first.order < head.order then
      class, head, most = ring, first, credit
    end
  end
  head.start = head.start - pool.total
  -- It is the last of its ring now, or near it where the sum of weights has changed.
  local at, size = class.first, #class
  class.first = at % size + 1
  for _ = 2, size do
    local previous = (at - 2) % size + 1
    if not before(head, class[previous]) then
      break
    end
    class[at], class[previous] = class[previous], head
    at = previous
  end
  redis.call('HINCRBY', keys[1], head.name, -pool.total)
  return head.name
end)

redis.register_function('cached_weight', function(keys, args)
  local order, weight = string.match(redis.call('HGET', keys[2], args[1]), '(%d+) (%d+)')
  local turn = redis.call('HGET', keys[1], '')
  local credit = redis.call('HGET', keys[1], args[1]) + weight * turn
  local scaled = string.format('%d', credit * args[2] / weight)
  redis.call('HSET', keys[1], args[1], scaled - args[2] * turn)
  redis.call('HSET', keys[2], args[1], order .. ' ' .. args[2])
  pools[keys[1]] = nil
end)
