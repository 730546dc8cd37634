-- nginx asks a pool of redis-lb for the server of each request. README.md tells how to use this.
-- pick() takes a lease, peer() gives its backend to nginx, done() queues its end. One thread of each worker sends the
-- queue and renews open leases. It lives while there is one, so a worker that exits waits for it as for a request.
local balancer, semaphore = require "ngx.balancer", require "ngx.semaphore"
local is_openresty, redis = pcall(require, "resty.redis")
if not is_openresty then redis = require "nginx.redis" end -- its name in Debian
local lb = {
    host = "127.0.0.1", port = 6379, auth = nil, -- { "password" } or { "user", "password" }
    timeout_ms = 500, -- how long Redis may take to answer
    retry_s = 1, -- after a failure, how long a worker does not ask Redis
    lease_ms = 10000, -- how long a lease counts after its worker has died
}
local open, ended, wake = {}, {}, semaphore.new() -- attempts by request; LB.DONE to send; posted for the first of them
local is_running, ask_at = false, 0 -- whether the thread lives; when to ask Redis again, or 0 while it answers

-- The replies to commands by one round trip, or nil without Redis. Then one caller at a time finds out if it is back.
local function ask(commands)
    if ngx.now() < ask_at then return end
    if ask_at > 0 then ask_at = ngx.now() + lb.retry_s end
    local replies, link = nil, redis:new()
    link:set_timeout(lb.timeout_ms)
    local ok, why = link:connect(lb.host, lb.port)
    if ok and lb.auth and link:get_reused_times() == 0 then ok, why = link:auth(unpack(lb.auth)) end
    if ok then
        link:init_pipeline(#commands)
        for _, words in ipairs(commands) do link[words[1]](link, unpack(words, 2)) end
        replies, why = link:commit_pipeline()
    end
    if replies and type(replies[1]) == "table" and replies[1][1] == false then replies, why = nil, replies[1][2] end
    if replies then link:set_keepalive(60000, 100) else link:close() end -- that server may no longer be the primary
    ask_at = replies and 0 or ngx.now() + lb.retry_s
    if not replies then ngx.log(ngx.ERR, "redis-lb goes on without Redis: ", why) end
    return replies
end

local function send_and_renew()
    while next(open) or #ended > 0 do
        wake:wait(lb.lease_ms / 6000)
        local batch, now = ended, ngx.now()
        ended = {}
        for _, it in pairs(open) do
            if it.lease and now - it.since >= lb.lease_ms / 3000 then
                it.since = now
                table.insert(batch, { "lb.renew", it.key, it.lease, lb.lease_ms })
            end
        end
        for _ = 0, lb.lease_ms / 1000, lb.retry_s do -- by then the leases have ended by themselves
            if #batch == 0 or ask(batch) then break end
            ngx.sleep(lb.retry_s)
        end
    end
end

-- A name of this request. error_page empties ngx.ctx, and internal redirects run `set` again.
local function request() return ngx.var.connection .. " " .. ngx.var.connection_requests end

-- The report of an attempt. A server that says Retry-After or 429 is busy, not broken; 499 is the client's end.
local function outcome(statuses_before)
    local statuses, header_times = ngx.var.upstream_status or "", ngx.var.upstream_header_time or ""
    local status = statuses ~= statuses_before and tonumber(statuses:match("(%d+)$")) or 499
    local after = (status == 429 or status == 503) and ngx.var.upstream_http_retry_after
    local ms = after and 1000 * (tonumber(after) or (ngx.parse_http_time(after) or 0) - ngx.time()) or 0
    if ms >= 1 then return "cool", math.floor(math.min(ms, 2 ^ 40)) end
    if status >= 500 then return "fail" end
    if status == 429 or status == 499 then return end
    return "ok", "latency", math.floor(1000000 * (tonumber(header_times:match("([%d.]+)$")) or 0))
end

-- A backend and its lease. Without Redis a backend alone, by chance, out of the picks that were to come.
local function take(key, tried)
    local ahead, commands = ngx.shared.lb, { { "lb.pick", key, "lease", lb.lease_ms, unpack(tried) } }
    if ahead:add("read " .. key, 1, 5) then commands[2] = { "lb.peek", key, "wrr", "count", 500 } end
    local replies = ask(commands)
    if replies and commands[2] and replies[2][1] then ahead:set("next " .. key, table.concat(replies[2], "\n")) end
    if replies then return unpack(replies[1] ~= ngx.null and replies[1] or {}) end
    local names = {}
    for name in (ahead:get("next " .. key) or ""):gmatch("%S+") do
        if not tried[name] then table.insert(names, name) end
    end
    return names[math.random(math.max(#names, 1))]
end

-- log_by_lua: the request is over.
function lb.done()
    local it = open[request()]
    open[request()] = nil
    if not it or not it.lease then return it end
    table.insert(ended, { "lb.done", it.key, it.lease, outcome(it.before) })
    if #ended == 1 then wake:post() end
    return it
end

-- access_by_lua: an attempt, on a backend that was not tried yet. As in nginx a POST that was sent is not sent again.
function lb.pick(key)
    local last, statuses = lb.done(), ngx.var.upstream_status or ""
    local is_post = ("POST PATCH LOCK"):find(ngx.req.get_method(), 1, true)
    local is_spent = last and is_post and not (ngx.var.upstream_connect_time or ""):find("-$")
    local tried, backend, lease = last and last.tried or {}, nil, nil
    if not is_spent then backend, lease = take(key, tried) end
    if not backend then
        ngx.status = tonumber(statuses:match("(%d+)$")) or 503
        ngx.say("no server can take this request")
        return ngx.exit(ngx.status)
    end
    tried[1], tried[2], tried[backend] = "exclude", (tried[2] or 0) + 1, true
    table.insert(tried, backend)
    open[request()] = { key = key, peer = backend, lease = lease, since = ngx.now(), tried = tried, before = statuses }
    is_running = is_running or ngx.timer.at(0, function()
        xpcall(send_and_renew, function(why) ngx.log(ngx.ERR, "redis-lb: ", why) end)
        is_running = false
    end)
end

-- balancer_by_lua: the peer of this attempt. nginx calls it again if a kept connection turns out to be closed.
function lb.peer()
    local host, port = open[request()].peer:match("^(.*):(%d+)$")
    assert(balancer.set_current_peer(host, tonumber(port)))
end
return lb
