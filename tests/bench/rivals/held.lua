#!lua name=held
-- Leases that end by themselves, by a Function that keeps the pool in Lua's memory, so that a pick writes two fields and an
-- end deletes one. KEYS[1] is a hash of one field: the token of the memory that counts -> how many picks there were. KEYS[2]
-- is a hash: name of a backend -> '', and lease -> deadline. ARGV of a pick: how many leases a backend may have, for how many
-- milliseconds this one counts, and what no other lease is called, of twelve characters. It answers the lease: that, and the
-- name of the backend.
-- Who reads the keys into its memory makes a new token. Who does not find its own, with the number that it remembers, reads
-- anew: so it goes on after a failover, forth and back, and after a restart.
-- What it lacks: weights; a first pick that reads all leases holds up the server; what is over is noticed by the next pick
-- alone, up to 0.1 s later; and what it cannot know is that a key is gone: the memory of deleted pools stays.
local pools, loads, MOST, STEP = {}, 0, 1000, 100

-- Backends of equally many leases are a list: who was put there first is picked first.
local function put(pool, backend, leases)
  local list = pool.lists[leases]
  if not list then
    list = {}
    pool.lists[leases] = list
  end
  backend.leases, backend.before, backend.after = leases, list.last, nil
  if list.last then
    list.last.after = backend
  else
    list.first = backend
  end
  list.last = backend
  if leases < pool.least then
    pool.least = leases
  end
end

local function take(pool, backend)
  local list, before, after = pool.lists[backend.leases], backend.before, backend.after
  if before then
    before.after = after
  else
    list.first = after
  end
  if after then
    after.before = before
  else
    list.last = before
  end
end

local function hold(pool, lease, backend, deadline)
  local step = math.ceil(deadline / STEP)
  local wheel = pool.wheel[step]
  if not wheel then
    wheel = {}
    pool.wheel[step] = wheel
  end
  wheel[lease] = backend
  pool.steps[lease] = step
end

local function free(pool, lease)
  local wheel = pool.wheel[pool.steps[lease]]
  local backend = wheel[lease]
  wheel[lease], pool.steps[lease] = nil, nil
  take(pool, backend)
  put(pool, backend, backend.leases - 1)
end

local function load(keys, now)
  loads = loads + 1
  local pool = {token = now .. '.' .. loads, least = 0, lists = {}, wheel = {}, steps = {}, picks = 0}
  local all, backends, leases = redis.call('HGETALL', keys[2]), {}, {}
  pool.step = math.floor(now / STEP)
  for i = 1, #all, 2 do
    if all[i + 1] == '' then
      backends[#backends + 1] = {name = all[i], leases = 0}
      backends[all[i]] = backends[#backends]
    else
      leases[all[i]] = tonumber(all[i + 1])
    end
  end
  for lease, deadline in pairs(leases) do
    local backend = backends[string.sub(lease, 13)]
    backend.leases = backend.leases + 1
    hold(pool, lease, backend, deadline)
    pool.step = math.min(pool.step, pool.steps[lease] - 1)
  end
  pool.least = 1e9
  for _, backend in ipairs(backends) do
    put(pool, backend, backend.leases)
  end
  redis.call('DEL', keys[1])
  redis.call('HSET', keys[1], pool.token, 1)
  pools[keys[1]] = pool
  return pool
end

-- A thousand at most, so that a pick stays short.
local function clear(keys, pool, step)
  local left = MOST
  while pool.step < step do
    for lease in pairs(pool.wheel[pool.step + 1] or {}) do
      if left == 0 then
        return
      end
      left = left - 1
      redis.call('HDEL', keys[2], lease)
      free(pool, lease)
    end
    pool.step = pool.step + 1
    pool.wheel[pool.step] = nil
  end
end

redis.register_function('held', function(keys, args)
  local time, pool = redis.call('TIME'), pools[keys[1]]
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if not pool or redis.call('HINCRBY', keys[1], pool.token, 1) ~= pool.picks + 1 then
    pool = load(keys, now)
  end
  pool.picks = pool.picks + 1
  local step = math.floor(now / STEP)
  if pool.step < step then
    clear(keys, pool, step)
  end
  local leases = pool.least
  if leases >= tonumber(args[1]) then
    return false
  end
  local list = pool.lists[leases]
  local backend = list.first
  local deadline = now + args[2]
  local lease = args[3] .. backend.name
  take(pool, backend)
  put(pool, backend, leases + 1)
  if not list.first then
    pool.least = leases + 1
  end
  hold(pool, lease, backend, deadline)
  redis.call('HSET', keys[2], lease, string.format('%d', deadline))
  return lease
end)

redis.register_function('held_end', function(keys, args)
  if redis.call('HDEL', keys[2], args[1]) == 0 then
    return 0
  end
  local pool = pools[keys[1]]
  if pool and pool.steps[args[1]] then
    free(pool, args[1])
  end
  return 1
end)
