#!lua name=cached
-- Smooth weighted round robin by a Function that keeps the pool in Lua's memory, so that a pick writes one number.
-- KEYS[1] is a hash of one field: the token of the memory that counts -> how many picks there were. KEYS[2] is a hash:
-- name -> `order weight credit`, and '' -> at how many picks that was.
-- Who reads the keys into its memory makes a new token. Who does not find its own, with the number that it remembers,
-- reads anew, and makes the picks since then again: so it goes on after a failover, forth and back, and after a restart.
-- When all have had their share, the sequence repeats, so it is remembered and looked up.
-- What it cannot know: that a key is gone. The memory of deleted and expired pools stays until the server ends.
local pools, loads = {}, 0
local LEAST, MOST = 1000, 100000 -- Picks between two times that the credits are written.

local function before(a, b)
  return a.start > b.start or a.start == b.start and a.order < b.order
end

-- A credit is start + weight * turn. In a class of equal weights all grow alike, so they take turns: each class is a
-- ring, and a pick compares the heads of the rings.
local function step(pool)
  local turn, class, head, most = pool.turn + 1, nil, nil, -1e300
  pool.turn = turn
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
  local name = head.name
  pool.lap[#pool.lap + 1] = name
  return name
end

local function credits(pool)
  local all = {}
  for _, class in ipairs(pool) do
    for _, b in ipairs(class) do
      all[b.name] = {order = b.order, weight = class.weight, credit = b.start + class.weight * pool.turn}
    end
  end
  return all
end

local function store(keys, picks, all)
  for name, b in pairs(all) do
    redis.call('HSET', keys[2], name, string.format('%d %d %d', b.order, b.weight, b.credit))
  end
  redis.call('HSET', keys[2], '', picks)
end

local function finish(keys, pool)
  if not pool.repeats then
    local all = credits(pool)
    pool.repeats = true
    for name, b in pairs(all) do
      pool.repeats = pool.repeats and b.credit == pool.credits[name]
      pool.credits[name] = b.credit
    end
    if not pool.repeats then
      store(keys, pool.picks, all)
      pool.lap = {}
    end
  end
  pool.base = pool.picks
  redis.call('HSET', keys[2], '', pool.picks)
end

local function next(keys, pool)
  pool.picks = pool.picks + 1
  local at = pool.picks - pool.base
  local name = pool.lap[at] or step(pool)
  if at == pool.length then
    finish(keys, pool)
  end
  return name
end

local function load(keys)
  local now, picks = redis.call('TIME'), 0
  loads = loads + 1
  for _, value in ipairs(redis.call('HVALS', keys[1])) do
    picks = math.max(picks, tonumber(value))
  end
  local pool = {token = now[1] .. '.' .. now[2] .. '.' .. loads, turn = 0, total = 0, lap = {}, credits = {}}
  local all, classes = redis.call('HGETALL', keys[2]), {}
  for i = 1, #all, 2 do
    local name = all[i]
    if name == '' then
      pool.base = tonumber(all[i + 1])
    else
      local order, weight, credit = string.match(all[i + 1], '(%d+) (%d+) (%-?%d+)')
      weight = tonumber(weight)
      pool.total = pool.total + weight
      pool.credits[name] = tonumber(credit)
      local class = classes[weight]
      if not class then
        class = {weight = weight, first = 1}
        classes[weight] = class
        pool[#pool + 1] = class
      end
      class[#class + 1] = {name = name, order = tonumber(order), start = pool.credits[name]}
    end
  end
  for _, class in ipairs(pool) do
    table.sort(class, before)
  end
  pool.length = math.min(MOST, pool.total * math.ceil(LEAST / pool.total))
  pool.picks = pool.base
  while pool.picks < picks do
    next(keys, pool)
  end
  redis.call('DEL', keys[1])
  redis.call('HSET', keys[1], pool.token, picks)
  pools[keys[1]] = pool
  return pool
end

redis.register_function('cached', function(keys)
  local pool = pools[keys[1]]
  if pool and redis.call('HINCRBY', keys[1], pool.token, 1) == pool.picks + 1 then
    return next(keys, pool)
  end
  if pool then
    redis.call('HINCRBY', keys[1], pool.token, -1)
  end
  pool = load(keys)
  redis.call('HINCRBY', keys[1], pool.token, 1)
  return next(keys, pool)
end)

redis.register_function('cached_weight', function(keys, args)
  local pool = load(keys)
  local all, weight = credits(pool), tonumber(args[2])
  local b = all[args[1]]
  local scaled = b.credit * weight / b.weight
  b.credit = scaled < 0 and math.ceil(scaled) or math.floor(scaled)
  b.weight = weight
  store(keys, pool.picks, all)
  pools[keys[1]] = nil
end)
