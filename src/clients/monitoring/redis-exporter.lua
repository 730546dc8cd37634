-- Metrics of pools by Debian's prometheus-redis-exporter: prometheus-redis-exporter -script redis-exporter.lua
--
-- The exporter makes `redis_script_values{key="metric|pool|backend"}` of each value; the rules in prometheus.yml make of that
-- the metrics that redis_lb.exporter has. One value that is no number would lose all values, and so would one name that is
-- not UTF-8. The script holds the server while it runs, at most about 4 ms with the bounds below.

-- The keys of the pools, as in {'shop', 'llm'}. Without any, SCAN finds the pools among the first KEYS keys.
local NAMED = {}
local KEYS_SEARCHED = 2000
-- Further pools are left out. The backends of a pool are listed if it has at most BACKENDS, and if all pools before it, in the
-- order of their keys, have left that many of BACKENDS_OF_ALL.
local POOLS = 50
local BACKENDS = 50
local BACKENDS_OF_ALL = 50

-- {field, metric} or {field, metric, how many of the field's unit are one of the metric's}
local SERVER = {
  {'lb_picks', 'picks_total'}, {'lb_refused_commands', 'refused_commands_total'}, {'lb_poisoned_pools', 'poisoned_pools_total'},
}
local POOL = {
  {'backends', 'backends'}, {'available', 'available_backends'}, {'ejected', 'ejected_backends'},
  {'cooling', 'cooling_backends'}, {'held', 'held_ejections_total'}, {'total-weight', 'weight'},
  {'refused', 'refused_picks_total'}, {'waiting', 'waiting_clients'}, {'oldest-wait-ms', 'oldest_wait_seconds', 1e3},
  {'bytes', 'bytes'}, {'picks', 'picks_total'}, {'leases', 'leases'}, {'sessions', 'sessions'}, {'max', 'max_leases'},
  {'max-per-second', 'max_picks_per_second'}, {'burst', 'burst_picks'}, {'tokens', 'tokens'},
}
local BACKEND = {
  {'weight', 'weight'}, {'running-weight', 'running_weight'}, {'tier', 'tier'}, {'done', 'done_total'},
  {'expired', 'expired_total'}, {'failures', 'failures_total'}, {'failures-in-a-row', 'failures_in_a_row'},
  {'ejections', 'ejections_total'}, {'back-in-ms', 'back_in_seconds', 1e3}, {'latencies', 'latencies_total'},
  {'latency-sum-us', 'latency_seconds_total', 1e6}, {'load', 'load'}, {'picks', 'picks_total'}, {'leases', 'leases'},
  {'sessions', 'sessions'},
  {'max', 'max_leases'}, {'max-per-second', 'max_picks_per_second'}, {'burst', 'burst_picks'}, {'tokens', 'tokens'},
}

local values = {}

-- `of` is '|pool|backend'.
local function add(metric, of, value)
  values[#values + 1] = 'redis_lb_' .. metric .. of
  values[#values + 1] = string.format('%.17g', value)
end

-- A negative number stands for none.
local function figures(told, prefix, metrics, of)
  for _, metric in ipairs(metrics) do
    local value = tonumber(told[metric[1]])
    if value and value >= 0 then
      add(prefix .. metric[2], of, value / (metric[3] or 1))
    end
  end
end

local function fields(reply)
  local told = {['max-per-second'] = 0}
  for at = 1, #reply, 2 do
    told[reply[at]] = reply[at + 1]
  end
  if told.rate > 0 then
    told['max-per-second'] = 1000 * told.rate / told['rate-ms']
  end
  return told
end

-- A name without bytes that a label cannot have. A backslash is doubled, so that no two names become the same.
local function label(name)
  return (name:gsub('\\', '\\\\'):gsub('[^ -{}~]', function(byte)
    return string.format('\\x%02x', byte:byte())
  end))
end

local function pools()
  if #NAMED > 0 then
    return NAMED, 1
  end
  local found, seen, cursor = {}, {}, '0'
  for _ = 1, KEYS_SEARCHED / 1000 do
    local page = redis.call('SCAN', cursor, 'COUNT', 1000, 'TYPE', 'lbpool---')
    cursor = page[1]
    for _, key in ipairs(page[2]) do
      if not seen[key] then
        seen[key] = true
        found[#found + 1] = key
      end
    end
    if cursor == '0' then
      break
    end
  end
  table.sort(found)
  return found, cursor == '0' and 1 or 0
end

local server = {}
for field, value in redis.call('INFO', 'lb'):gmatch('(lb_[%w_]+):(%d+)\r') do
  server[field] = value
end
add('up', '||', server.lb_picks and 1 or 0)
figures(server, 'server_', SERVER, '||')

local keys, has_seen_all = pools()
local left = BACKENDS_OF_ALL
for at = 1, math.min(#keys, POOLS) do
  local key = keys[at]
  local pool, reply = '|' .. label(key) .. '|', redis.pcall('LB.INFO', key)
  local fault = reply and reply.err
  if not fault then
    add('pool_up', pool, 1)
    -- From a pool that was named and that is not there, nobody can pick.
    local told = reply and fields(reply) or {backends = 0, available = 0}
    figures(told, 'pool_', POOL, pool)
    if told.backends > 0 and told.backends <= math.min(BACKENDS, left) then
      left = left - told.backends
      local stats = redis.call('LB.STATS', key)
      for each = 1, #stats, 2 do
        figures(fields(stats[each + 1]), 'backend_', BACKEND, pool .. label(stats[each]))
      end
    end
  elseif fault:find('a fault in redis-lb', 1, true) or #NAMED > 0 then
    add('pool_up', pool, 0)
  end
end
add('pools', '||', math.min(#keys, POOLS))
add('pools_left_out', '||', #keys > POOLS and 1 or 0)
add('scan_complete', '||', has_seen_all)
return values
