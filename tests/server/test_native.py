"""A pool is a value like any other: whatever the server does with its own types, it does with pools."""

import random

import pytest
import redis

from memory import used_when_empty
from server import eventually

# What comes after the first three picks, `a a b`, of the weights 5, 1, 1.
CONTINUES = ["a", "c", "a", "a"]
PICKS = ["LB.PICK web wrr", "LB.PICK web rr", "LB.PICK web COUNT 3"]


@pytest.fixture
def web(client):
    """A pool that has been picked from: its order has begun."""
    client.execute_command("LB.ADD web a 5 b 1 c 1")
    client.execute_command("LB.PICK web COUNT 3")
    return client


def digest(client, key="web"):
    return client.execute_command("DEBUG", "DIGEST-VALUE", key)


def name(n: int) -> str:
    """22 bytes, as long as the longest IPv4 address with its port."""
    return f"10.{n >> 16:03}.{n >> 8 & 255:03}.{n & 255:03}:{8000 + n % 1000:05}"


def add(pipeline, key: str, backends: int) -> None:
    for start in range(0, backends, 1000):
        pairs = [word for n in range(start, min(start + 1000, backends)) for word in (name(n), 1 + n % 100)]
        pipeline.execute_command("LB.ADD", key, *pairs)


def limited(pipeline, key: str, backends: int) -> None:
    """All backends have a rate, of which no token is left, and two tiers."""
    for n in range(backends):
        rate = ["RATE", 1, 10**9] if n % 2 else ["TIER", 1, "RATE", 1, 10**9]
        pipeline.execute_command("LB.LIMIT", key, "BACKEND", name(n), *rate)
    for _ in range(0, backends, 10_000):
        pipeline.execute_command("LB.PICK", key, "rr", "COUNT", 10_000)


def leased(pipeline, key: str, backends: int) -> None:
    """As many leases as backends, those of a long name among them, by all algorithms that keep anything."""
    for first in range(0, backends, 10_000):
        count = min(10_000, backends - first)
        owner = ["OWNER", f"a-gateway-with-a-long-name-{first}"]
        pipeline.execute_command("LB.PICK", key, "lc", "COUNT", count, "LEASE", 10**6, *owner)


def plain(*_) -> None:
    """Nothing more."""


@pytest.mark.parametrize("how", [plain, limited, leased])
@pytest.mark.parametrize(("pools", "backends"), [(10_000, 3), (1, 50_000)])
def test_memory_usage_is_what_the_allocator_gave(server, client, pools, backends, how):
    """Within 10 % of the growth of used_memory, over many small pools and over one that is large."""
    before = used_when_empty(client)
    # What the server keeps for a client is not meant: this one is gone when it is measured.
    with server.client() as filling:
        pipeline = filling.pipeline(transaction=False)
        for pool in range(pools):
            add(pipeline, f"pool:{pool:06}", backends)
            how(pipeline, f"pool:{pool:06}", backends)
        pipeline.execute()
    eventually(lambda: len(client.client_list()) == 1)
    grown = client.info("memory")["used_memory"] - before
    told = client.memory_usage("pool:000000", samples=0) * pools
    assert 0.9 < told / grown < 1.1, f"MEMORY USAGE tells {told} of {grown} bytes"


def test_the_digest_covers_the_whole_state(web):
    """Whatever a command changes, DEBUG DIGEST-VALUE changes with it; what only looks leaves it."""
    seen = {str(digest(web))}
    changes = ["LB.WEIGHT web a 4", "LB.STATE web b drain", "LB.POLICY web rr", "LB.SEED web 7"]
    changes += ["LB.PICK web lc", "LB.PICK web LEASE 60000", "LB.PICK web LEASE 60000 OWNER o"]
    changes += ["LB.RELEASE web OWNER o", "LB.EPOCH web 7", "LB.LIMIT web MAX 9", "LB.LIMIT web RATE 9 1000"]
    changes += [f"LB.LIMIT web BACKEND a {limit}" for limit in ("MAX 9", "RATE 9 1000", "TIER 1")]
    for command in [*PICKS, *changes]:
        web.execute_command(command)
        assert str(digest(web)) not in seen, command
        seen.add(str(digest(web)))
    looks = ["LB.PEEK web COUNT 5", "LB.STATS web", "LB.INFO web", "LB.LIST web", "LB.WEIGHT web a"]
    looks += [
        "LB.PEEK web lc COUNT 5",
        "LB.LEASES web",
        "LB.WHEN web",
        "LB.LIMIT web",
        "LB.LIMIT web BACKEND a",
    ]
    for command in looks:
        web.execute_command(command)
        assert str(digest(web)) in seen, command


def test_keyspace_commands(web):
    """TYPE, SCAN TYPE, OBJECT, EXPIRE, RENAME, MOVE, SWAPDB and SORT see a value of the module's own type."""
    assert web.type("web") == "lbpool---"
    web.set("text", "x")
    assert list(web.scan_iter(_type="lbpool---")) == ["web"]
    assert web.object("ENCODING", "web") == "raw"
    assert web.object("REFCOUNT", "web") == 1
    assert web.object("IDLETIME", "web") < 60
    whole = digest(web)
    assert web.rename("web", "www")
    assert web.move("www", 1)
    assert web.exists("www") == 0
    assert web.swapdb(0, 1)
    assert digest(web, "www") == whole
    assert web.execute_command("LB.PICK www COUNT 4") == CONTINUES
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        web.sort("www")
    assert web.pexpire("www", 1)
    eventually(lambda: web.exists("www") == 0)
    assert web.execute_command("LB.PICK www") is None


def test_an_lfu_server_counts_picks_as_accesses(web, server):
    web.config_set("maxmemory-policy", "allkeys-lfu")
    try:
        before = web.object("FREQ", "web")
        for _ in range(200):
            web.execute_command("LB.PICK web")
        assert web.object("FREQ", "web") > before
    finally:
        web.config_set("maxmemory-policy", "noeviction")


@pytest.mark.needs("6.2", "COPY")
def test_a_copy_goes_its_own_way(web):
    """COPY, also over another pool and into another database, takes all; then neither disturbs the other."""
    web.execute_command("LB.ADD other x")
    assert web.copy("web", "other", replace=True)
    assert digest(web, "other") == digest(web)
    web.execute_command("LB.PICK other")
    assert digest(web, "other") != digest(web)
    assert web.execute_command("LB.PICK other COUNT 3") == CONTINUES[1:]
    assert web.execute_command("LB.PICK web COUNT 4") == CONTINUES


@pytest.mark.parametrize("free", ["UNLINK big", "FLUSHALL ASYNC", "FLUSHDB ASYNC", "DEL big"])
def test_large_pools_are_freed(client, free):
    """At once or on the background thread, all memory comes back, while other pools are in use."""
    before = used_when_empty(client)
    for _ in range(5):
        pipeline = client.pipeline(transaction=False)
        add(pipeline, "big", 20_000)
        pipeline.execute()
        client.execute_command(free)
        client.execute_command("LB.ADD small a 2 b 1")
        assert client.execute_command("LB.PICK small COUNT 3") == ["a", "b", "a"]
        client.execute_command("DEL small")
    assert client.exists("big") == 0
    # What the clients' buffers took stays.
    eventually(lambda: client.info("memory")["used_memory"] - before < 1_000_000)


def test_many_leases_are_freed_in_the_background(client):
    def freed():
        return client.info("memory")["lazyfreed_objects"]

    eventually(lambda: not client.info("memory")["lazyfree_pending_objects"])
    before = freed()
    client.execute_command("LB.ADD small a")
    client.execute_command("LB.PICK small COUNT 1000 LEASE 60000")
    client.unlink("small")
    eventually(lambda: freed() == before + 1)


def test_a_pick_touches_who_watches(web, server):
    """WATCH: a pick is a change; one that found nobody is none."""
    with server.client() as other:
        for command, is_touched in [
            ("LB.PICK web", True),
            ("LB.PICK web EXCLUDE 3 a b c", False),
            ("LB.LIST web", False),
            ("LB.DONE web 7-1", False),
            ("LB.PICK web LEASE 60000 OWNER o", True),
            ("LB.LEASES web", False),
            ("LB.RELEASE web OWNER o", True),
        ]:
            pipeline = web.pipeline()
            pipeline.watch("web")
            other.execute_command(command)
            pipeline.multi()
            pipeline.ping()
            if is_touched:
                with pytest.raises(redis.WatchError):
                    pipeline.execute()
            else:
                assert pipeline.execute() == [True]


def test_client_side_caching_hears_of_a_pick(web, server):
    """Who cached an answer about the pool is told when a pick makes it stale."""
    from wire import Wire, read

    with Wire(server.port, protocol=3) as cached:
        assert cached.ask("CLIENT TRACKING ON") == "OK"
        assert cached.ask("LB.CARD web") == 3
        web.execute_command("LB.PICK web")
        push = cached.line()
        assert push == b">2\r\n"
        assert [read(cached._file), read(cached._file)] == [b"invalidate", [b"web"]]


def test_eviction_takes_pools_like_any_key(client):
    """Under allkeys-lru a server that is full drops pools, and lives."""
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 3_000_000)
    try:
        for pool in range(3000):
            add(client, f"pool:{pool}", 50)
        assert 0 < client.dbsize() < 3000
        assert client.info("stats")["evicted_keys"] > 0
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl"])
def test_eviction_of_what_expires_spares_pools(client, policy):
    for pool in range(20):
        add(client, f"pool:{pool}", 50)
        limited(client, f"pool:{pool}", 50)
    pools = {key: digest(client, key) for key in client.keys()}
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
    try:
        for cached in range(3000):
            client.set(f"cached:{cached}", "x" * 1000, ex=100_000)
        assert client.info("stats")["evicted_keys"] > 0
        assert {key: digest(client, key) for key in client.keys("pool:*")} == pools
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


def test_scripts_and_transactions(web):
    """MULTI/EXEC and Lua see each pick at once, and take part in the same order."""
    pipeline = web.pipeline()
    for _ in range(2):
        pipeline.execute_command("LB.PICK web")
    assert pipeline.execute() == CONTINUES[:2]
    script = "return {redis.call('LB.PICK', KEYS[1]), redis.call('LB.PICK', KEYS[1])}"
    assert web.eval(script, 1, "web") == CONTINUES[2:]
    script = "return redis.pcall('LB.PICK', KEYS[1], 'nonsense')['err']"
    assert "no algorithm" in web.eval(script, 1, "web")


@pytest.mark.needs("7.0", "Functions")
def test_functions(web):
    library = (
        "#!lua name=lb\n"
        "redis.register_function('twice', function(keys)\n"
        "  return {redis.call('LB.PICK', keys[1]), redis.call('LB.PICK', keys[1])}\n"
        "end)"
    )
    web.function_load(library, replace=True)
    assert web.fcall("twice", 1, "web") == CONTINUES[:2]
    web.function_flush()


def test_monitor_and_slowlog_show_picks(web, server):
    with server.client() as watching, watching.monitor() as monitor:
        web.execute_command("LB.PICK web wrr")
        assert monitor.next_command()["command"] == "LB.PICK web wrr"
    before = web.config_get("slowlog-log-slower-than")["slowlog-log-slower-than"]
    web.config_set("slowlog-log-slower-than", 0)
    try:
        web.slowlog_reset()
        web.execute_command("LB.PICK web rr")
        assert any(entry["command"] == b"LB.PICK web rr" for entry in web.slowlog_get(10))
    finally:
        web.config_set("slowlog-log-slower-than", before)


def test_a_replica_without_its_primary_serves_what_it_is_told_to(new_server):
    """replica-serve-stale-data: yes answers from what is there, no refuses; neither picks."""
    primary = new_server()
    replica = new_server(replicaof=f"127.0.0.1 {primary.port}")
    primary.client().execute_command("LB.ADD web a 5 b 1 c 1")
    client = replica.client()
    eventually(lambda: client.execute_command("LB.CARD web") == 3)
    primary.kill()
    eventually(lambda: client.info("replication")["master_link_status"] == "down")
    assert client.execute_command("LB.PEEK web COUNT 3") == ["a", "a", "b"]
    client.config_set("replica-serve-stale-data", "no")
    with pytest.raises(redis.ResponseError, match="replica-serve-stale-data"):
        client.execute_command("LB.PEEK web")
    with pytest.raises(redis.ResponseError, match="replica-serve-stale-data|read only"):
        client.execute_command("LB.PICK web")


def test_diskless_replication_with_swapdb(new_server):
    """A replica that loads its copy beside the old data gets the pools, and goes on with them."""
    primary = new_server(repl_diskless_sync="yes", repl_diskless_sync_delay=0)
    client = primary.client()
    pipeline = client.pipeline(transaction=False)
    add(pipeline, "web", 5_000)
    pipeline.execute()
    replica = new_server(repl_diskless_load="swapdb")
    old = replica.client()
    old.execute_command("LB.ADD old x")
    old.replicaof("127.0.0.1", primary.port)
    for _ in range(200):
        client.execute_command("LB.PICK web")
    eventually(lambda: old.execute_command("LB.CARD web") == 5_000)
    eventually(lambda: digest(old) == digest(client))
    assert old.exists("old") == 0


def test_active_defragmentation_moves_pools_and_changes_nothing(new_server, binary):
    """Memory full of holes is closed up, pools among what moves, and every digest stays."""
    server = new_server()
    client = server.client()
    try:
        client.config_set("activedefrag", "yes")
    except redis.ResponseError as error:
        pytest.skip(f"this build has no active defragmentation | {error}")
    client.config_set("activedefrag", "no")
    pipeline = client.pipeline(transaction=False)
    for pool in range(20_000):
        hosts = [f"host-{pool}-{n}.some.very.long.domain.example.com:8080" for n in range(5)]
        pipeline.execute_command("LB.ADD", f"pool:{pool}", *[word for host in hosts for word in (host, 3)])
    long = [f"host-{n}.some.very.long.domain.example.com:8080" for n in range(20_000)]
    for start in range(0, len(long), 1000):
        pipeline.execute_command(
            "LB.ADD", "big", *[w for host in long[start : start + 1000] for w in (host, 1)]
        )
    pipeline.execute()
    # By chance: where all pages of the allocator are equally full, it moves nothing.
    kept = set(random.Random(1).sample(range(20_000), 5_000))
    for pool in range(20_000):
        if pool not in kept:
            pipeline.delete(f"pool:{pool}")
            pipeline.execute_command("LB.REM", "big", long[pool])
    pipeline.execute()
    keys = ["big", *[f"pool:{pool}" for pool in sorted(kept)]]
    digests = [digest(client, key) for key in keys]
    before = client.info("memory")["allocator_frag_ratio"]
    for option, value in [("ignore-bytes", 1), ("threshold-lower", 1), ("cycle-min", 50), ("cycle-max", 75)]:
        client.config_set(f"active-defrag-{option}", value)
    client.config_set("activedefrag", "yes")
    eventually(lambda: client.info("stats")["active_defrag_hits"] > 3_000)
    # The allocator of 7.4.1 hints at few moves: there only that they happen, and change nothing, can be seen.
    if binary.satisfies("8.0"):
        eventually(lambda: client.info("memory")["allocator_frag_ratio"] < 0.9 * before)
    assert [digest(client, key) for key in keys] == digests
    assert len(set(client.execute_command("LB.PICK big COUNT 5000"))) == 5000


def test_tools_of_operators(web, server):
    """redis-cli --bigkeys and --memkeys, MEMORY DOCTOR and a reader of INFO get along with pools."""
    import subprocess

    for option in ["--bigkeys", "--memkeys"]:
        command = ["redis-cli", "-p", str(server.port), option]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert "Sampled 1 keys" in done.stdout
        assert "lbpool---" in done.stdout
    assert web.execute_command("MEMORY DOCTOR")
    assert web.execute_command("MEMORY STATS")
    info = web.info("everything" if server.binary.satisfies("7.0") else "modules")
    assert {"lb_version", "lb_picks", "lb_refused_commands", "lb_poisoned_pools"} <= set(info)
    before = web.info("lb")["lb_picks"]
    web.execute_command("LB.PICK web COUNT 3")
    web.execute_command("LB.PICK web")
    assert web.info("lb")["lb_picks"] == before + 4
