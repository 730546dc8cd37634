"""A panic in the module costs at most the pool that it hit: the server and all other pools live on.

These tests load a module built with the feature `faults`, which has one command more:

    LB.FAULT key            panics half-way through a change of that pool
    LB.FAULT key what       lets the next call of `what` panic: a command or a callback (guard.rs names them)
"""

import os
import subprocess
from pathlib import Path

import pytest
import redis

from server import eventually

# The first test builds the module.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]

HALF_CHANGED = "half-changed"
FAULT = "a fault in redis-lb: see the log"

# A pool of one backend `a`, as src/lb/codec.rs writes it.
PAYLOAD = bytes([1, 1, 2, 0, 0, 0, 1, 1, ord("a"), 1, 0, 0, 0])

# Every command of the module in all its forms, with arguments that a sound pool takes.
COMMANDS = {
    "LB.ADD": [["a"], ["a", 3, "b", 4]],
    "LB.SET": [["a", 3]],
    "LB.REM": [["a"]],
    "LB.WEIGHT": [["a"], ["a", 3]],
    "LB.STATE": [["a"], ["a", "drain"]],
    "LB.POLICY": [[], ["rr"]],
    "LB.LIST": [[]],
    "LB.CARD": [[]],
    "LB.PICK": [[], ["rr"], ["random"], ["wrr", "COUNT", 2], ["EXCLUDE", 1, "a"], ["BLOCK", 9], ["LEASE", 9]]
    + [["ewma", "LEASE", 9], ["p2c", "LEASE", 9, "OWNER", "o", "COUNT", 2], ["STICKY", "s", 9]]
    + [["hash", "item"], ["COSTS", 1, "tokens", 9]],
    "LB.PEEK": [[], ["rr"], ["lc"], ["wrr", "COUNT", 2], ["STICKY", "s"]],
    "LB.FORGET": [["s"]],
    "LB.QUEUE": [[], ["MAX", 9], ["ORDER", "fair"]],
    "LB.DONE": [["7-1"], ["7-1", "FAIL", "LATENCY", 9], ["7-1", "OK", "LOAD", "0.5", "COOL", 9]],
    "LB.REPORT": [["a"], ["a", "OK", "LATENCY", 9], ["a", "FAIL", "LOAD", "0.5", "COOL", 9]],
    "LB.RENEW": [["7-1", 9]],
    "LB.RELEASE": [["OWNER", "o"]],
    "LB.LEASES": [[], ["BACKEND", "a", "OWNER", "o", "COUNT", 2]],
    "LB.LIMIT": [[], ["BACKEND", "a"], ["MAX", 9], ["BACKEND", "a", "MAX", 9, "RATE", 9, 9, "TIER", 1]]
    + [["EACH", "COST", "tokens", 9, 9], ["BALANCE", 125]],
    "LB.HEALTH": [
        [],
        ["FAILS", 3, "FAILRATE", 50, "MIN", 9, "WINDOW", 9, "EJECT", 9],
        ["SLOWSTART", 9, "ADAPT", 9],
    ],
    "LB.WHEN": [[]],
    "LB.INFO": [[]],
    "LB.STATS": [[], ["a"]],
    "LB.TICK": [[9]],
    "LB.SEED": [[7]],
    "LB.EPOCH": [[7]],
    "LB.RULES": [[2]],
    "LB.LOAD": [[PAYLOAD]],
    "LB.FAULT": [[]],
}


@pytest.fixture(scope="session")
def faults():
    """The module with LB.FAULT in it, built as the tests of the core are, which is most of the work."""
    build = [ROOT / "scripts" / "build", "--features", "faults"]
    environment = os.environ | {"PROFILE": "dev"}
    built = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return Path(built.stdout.splitlines()[-1])


@pytest.fixture
def start(new_server, faults):
    """A factory of servers with the pools `hit` and `other`; a replica has what its primary has."""
    started = []

    def start(**options):
        server = new_server(module=faults, **options)
        started.append(server)
        with server.client() as client:
            if "replicaof" not in options:
                for key in "hit", "other":
                    client.execute_command("LB.ADD", key, "a", 2, "b", 1)
            else:
                eventually(lambda: client.info("replication")["master_link_status"] == "up")
        return server

    yield start
    for server in started:
        assert server.alive(), f"{server} ended:\n{server.log_tail()}"


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def poison(client, key="hit"):
    with pytest.raises(redis.ResponseError, match=FAULT):
        client.execute_command("LB.FAULT", key)


def poisoned(client):
    """Which of the two pools are poisoned. The others have all that they had."""
    found = []
    for key in "hit", "other":
        assert client.type(key) == "lbpool---"
        try:
            assert client.execute_command("LB.LIST", key) == ["a", "b"]
        except redis.ResponseError as error:
            assert HALF_CHANGED in str(error)
            found.append(key)
    return found


def arm(client, what):
    assert client.execute_command("LB.FAULT", "any", what) == "OK"


def struck(server, what):
    """Wait until the log says that the panic came, with all that could mislead printf."""
    line = f"bug: {what} panicked: on purpose, with %s%n in it"
    eventually(lambda: line in server.log())


def digest(client, key="hit"):
    return client.execute_command("DEBUG", "DIGEST-VALUE", key)


def replica_of(start, primary, **options):
    return start(replicaof=f"127.0.0.1 {primary.port}", **options)


def saved_in_background(client, command, running, outcome):
    """Let the server fork and save, and wait for the end of that."""
    client.execute_command(command)
    eventually(lambda: client.info("persistence")[running] == 0)
    assert client.info("persistence")[outcome] == "ok"


def rewrite_aof(client):
    saved_in_background(client, "BGREWRITEAOF", "aof_rewrite_in_progress", "aof_last_bgrewrite_status")


def bgsave(client):
    saved_in_background(client, "BGSAVE", "rdb_bgsave_in_progress", "rdb_last_bgsave_status")


# A pool that is half-changed


def test_a_panic_half_way_poisons_that_pool_alone(server, client):
    poison(client)
    assert poisoned(client) == ["hit"]
    assert [client.execute_command("LB.PICK", "other") for _ in range(3)] == ["a", "b", "a"]
    assert client.info("lb")["lb_poisoned_pools"] == 1
    struck(server, "LB.FAULT")

    poison(client, "new")
    assert client.info("lb")["lb_poisoned_pools"] == 2


def test_the_table_of_commands_above_is_complete(client):
    assert {name.upper() for name in client.command() if name.lower().startswith("lb.")} == set(COMMANDS)


def test_every_command_refuses_a_poisoned_pool(client):
    poison(client)
    before = digest(client)
    for command, forms in COMMANDS.items():
        for arguments in forms:
            reason = "BUSYKEY" if command == "LB.LOAD" else HALF_CHANGED
            with pytest.raises(redis.ResponseError, match=reason):
                client.execute_command(command, "hit", *arguments)
    assert digest(client) == before
    assert poisoned(client) == ["hit"]
    assert client.info("lb")["lb_poisoned_pools"] == 1


def test_the_server_still_answers_about_a_poisoned_pool(client):
    poison(client)
    assert client.memory_usage("hit") > 0
    assert len(digest(client)) == 1
    assert client.object("IDLETIME", "hit") >= 0
    assert sorted(client.scan_iter(_type="lbpool---")) == ["hit", "other"]
    with pytest.raises(redis.ResponseError):
        client.copy("hit", "copy")
    assert client.exists("copy") == 0
    assert client.rename("hit", "moved") and client.rename("moved", "hit")
    assert poisoned(client) == ["hit"]


@pytest.mark.parametrize("command", ["DEL", "UNLINK"])
def test_it_can_be_deleted_and_the_key_used_anew(client, command):
    poison(client)
    assert client.execute_command(command, "hit") == 1
    assert client.exists("hit") == 0
    assert client.execute_command("LB.ADD", "hit", "a", 2, "b", 1) == 2
    assert client.execute_command("LB.PICK", "hit", "COUNT", 3) == ["a", "b", "a"]
    assert poisoned(client) == []


@pytest.mark.parametrize(
    "command",
    [
        ["LB.LOAD", "hit", PAYLOAD, "REPLACE"],
        ["COPY", "other", "hit", "REPLACE"],
        ["RENAME", "other", "hit"],
        ["SET", "hit", "a string"],
        ["PEXPIRE", "hit", "-1"],
        ["FLUSHALL", "ASYNC"],
    ],
    ids=lambda command: command[0],
)
def test_what_replaces_a_whole_value_replaces_a_poisoned_one(client, command):
    poison(client)
    client.execute_command(*command)
    client.delete("other")
    if client.type("hit") == "lbpool---":
        assert client.execute_command("LB.PICK", "hit") == "a"


def test_a_panic_is_one_error_among_other_answers(client):
    """In a pipeline, in a transaction and in a script, what stands before and behind is done."""
    for key, transaction in ("hit", False), ("hit2", True):
        with client.pipeline(transaction=transaction) as commands:
            commands.execute_command("LB.PICK", "other").execute_command("LB.FAULT", key)
            commands.execute_command("LB.PICK", "other").execute_command("LB.PICK", key)
            first, fault, second, refused = commands.execute(raise_on_error=False)
        assert {first, second} == {"a", "b"}
        assert isinstance(fault, redis.ResponseError) and isinstance(refused, redis.ResponseError)
        client.execute_command("LB.PICK", "other")
    script = """
        local fault = redis.pcall('LB.FAULT', KEYS[1])
        return {fault.err, redis.call('LB.PICK', KEYS[2])}
    """
    fault, picked = client.eval(script, 2, "hit3", "other")
    assert "a fault in redis-lb" in fault and picked == "a"


def test_nothing_of_it_is_replicated_until_it_is_deleted(start):
    """Replicas and the AOF keep the pool as it was before the panic."""
    primary = start(appendonly="yes")
    replica = replica_of(start, primary)
    with primary.client() as client, replica.client() as replicated:
        client.execute_command("LB.PICK", "hit")
        before = digest(client)
        poison(client)
        poison(client, "new")
        with client.pipeline(transaction=True) as unit:
            unit.execute_command("LB.ADD", "third", "a").execute_command("LB.FAULT", "fourth")
            unit.execute(raise_on_error=False)
        assert client.wait(1, 10_000) == 1
        assert digest(replicated) == before
        assert replicated.exists("new", "fourth") == 0
        assert replicated.execute_command("LB.LIST", "third") == ["a"]

    primary.restart()  # out of its AOF
    with primary.client() as client, replica.client() as replicated:
        assert digest(client) == before
        assert client.exists("new", "fourth") == 0
        # A replica that comes only now would get the pool as poisoned, for the moment.
        assert client.wait(1, 60_000) == 1
        poison(client)
        client.delete("hit")
        client.execute_command("LB.ADD", "hit", "c")
        eventually(lambda: replicated.execute_command("LB.LIST", "hit") == ["c"])
        assert digest(replicated) == digest(client)


# How a poisoned pool is saved and travels: as poisoned


def test_it_stays_poisoned_over_save_and_restart(server, client):
    poison(client)
    before = digest(client)
    client.save()
    server.restart()
    assert poisoned(client) == ["hit"]
    assert digest(client) == before


def test_it_stays_poisoned_over_debug_reload(client):
    poison(client)
    client.execute_command("DEBUG", "RELOAD")
    assert poisoned(client) == ["hit"]


def test_it_stays_poisoned_over_dump_and_restore(server, client):
    poison(client)
    with server.client(decode_responses=False) as raw:
        payload = raw.dump("hit")
        client.delete("hit")
        raw.restore("hit", 0, payload)
    assert poisoned(client) == ["hit"]


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_it_stays_poisoned_over_an_aof_rewrite(start, preamble):
    server = start(appendonly="yes", aof_use_rdb_preamble=preamble)
    with server.client() as client:
        poison(client)
        before = digest(client)
        rewrite_aof(client)
        server.restart()
        assert poisoned(client) == ["hit"]
        assert digest(client) == before


@pytest.mark.parametrize("diskless_load", ["disabled", "swapdb"])
def test_it_is_poisoned_on_a_new_replica_too(start, server, client, diskless_load):
    poison(client)
    replica = replica_of(start, server, repl_diskless_load=diskless_load)
    with replica.client() as replicated:
        assert poisoned(replicated) == ["hit"]
        assert digest(replicated) == digest(client)
        client.unlink("hit")
        client.execute_command("LB.ADD", "hit", "a", 2, "b", 1)
        assert client.execute_command("LB.PICK", "hit") == "a"
        assert client.wait(1, 10_000) == 1
        assert poisoned(replicated) == []
        assert digest(replicated) == digest(client)


# Panics in commands and callbacks, before they changed anything


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_panics_answers_an_error_and_changes_nothing(server, client, command):
    before = digest(client)
    arm(client, command)
    with pytest.raises(redis.ResponseError, match=FAULT):
        client.execute_command(command, "hit", *COMMANDS[command][-1])
    struck(server, command)
    assert digest(client) == before
    assert poisoned(client) == []
    assert client.info("lb")["lb_refused_commands"] == 1
    assert client.info("lb")["lb_poisoned_pools"] == 0


def test_a_restore_that_panics_is_an_error_and_makes_no_key(server, client):
    with server.client(decode_responses=False) as raw:
        payload = raw.dump("hit")
        arm(client, "loading a pool")
        with pytest.raises(redis.ResponseError, match="Bad data format"):
            raw.restore("restored", 0, payload)
        assert client.exists("restored") == 0
        raw.restore("restored", 0, payload)
    struck(server, "loading a pool")
    assert digest(client, "restored") == digest(client)
    assert poisoned(client) == []


def test_a_reload_that_panics_costs_one_pool(server, client):
    arm(client, "loading a pool")
    client.execute_command("DEBUG", "RELOAD")
    struck(server, "loading a pool")
    assert len(poisoned(client)) == 1


@pytest.mark.parametrize("diskless_load", ["disabled", "swapdb"])
def test_a_full_copy_whose_load_panics_costs_the_replica_one_pool_at_most(start, server, diskless_load):
    replica = start(repl_diskless_load=diskless_load)
    with replica.client() as client:
        arm(client, "loading a pool")
        client.execute_command("REPLICAOF", "127.0.0.1", server.port)
        struck(replica, "loading a pool")
        eventually(lambda: client.info("replication")["master_link_status"] == "up")
        # It may have asked for another copy.
        assert len(poisoned(client)) <= 1


def test_a_dump_that_panics_gives_nothing_that_could_be_picked_from(server, client):
    arm(client, "saving a pool")
    with server.client(decode_responses=False) as raw:
        payload = raw.dump("hit")
        struck(server, "saving a pool")
        assert poisoned(client) == []
        raw.restore("hit", 0, payload, replace=True)
    assert poisoned(client) == ["hit"]


@pytest.mark.parametrize("save", [redis.Redis.save, bgsave])
def test_a_save_that_panics_costs_one_pool_of_the_file(server, client, save):
    arm(client, "saving a pool")
    save(client)
    struck(server, "saving a pool")
    assert poisoned(client) == []
    server.restart()
    assert len(poisoned(client)) == 1


def test_a_full_copy_whose_save_panics_costs_the_replica_one_pool(start, server, client):
    arm(client, "saving a pool")
    replica = replica_of(start, server)
    struck(server, "saving a pool")
    assert poisoned(client) == []
    with replica.client() as replicated:
        (lost,) = poisoned(replicated)
        (kept,) = {"hit", "other"} - {lost}
        # The stream goes on; the replica cannot follow it in that one pool.
        for key in "hit", "other":
            client.execute_command("LB.PICK", key)
        assert client.wait(1, 10_000) == 1
        assert poisoned(replicated) == [lost]
        assert digest(replicated, kept) == digest(client, kept)
        assert replicated.info("replication")["master_link_status"] == "up"


def test_an_aof_rewrite_that_panics_costs_one_pool_of_the_file(start):
    server = start(appendonly="yes", aof_use_rdb_preamble="no")
    with server.client() as client:
        arm(client, "rewriting a pool")
        rewrite_aof(client)
        struck(server, "rewriting a pool")
        assert poisoned(client) == []
        server.restart()
        assert len(poisoned(client)) == 1


def test_a_pool_whose_measuring_panics_weighs_next_to_nothing(server, client):
    sound = client.memory_usage("hit")
    arm(client, "measuring a pool")
    assert 0 <= client.memory_usage("hit") < sound
    struck(server, "measuring a pool")
    assert client.memory_usage("hit") == sound
    assert poisoned(client) == []


def test_a_digest_that_panics_answers_one_all_the_same(server, client):
    sound = digest(client)
    arm(client, "digesting a pool")
    assert digest(client) != sound
    struck(server, "digesting a pool")
    arm(client, "digesting a pool")
    assert client.execute_command("DEBUG", "DIGEST")
    assert digest(client) == sound
    assert poisoned(client) == []


@pytest.mark.parametrize(
    "command",
    [
        ["DEL", "third"],
        ["UNLINK", "third"],
        ["SET", "third", "a string"],
        ["RENAME", "hit", "third"],
        ["PEXPIRE", "third", "-1"],
        ["LB.REM", "third", *range(100)],
        ["LB.LOAD", "third", PAYLOAD, "REPLACE"],
        ["FLUSHALL", "SYNC"],
        ["FLUSHALL", "ASYNC"],
    ],
    ids=lambda command: command[0],
)
def test_a_free_that_panics_leaves_the_key_free(server, client, command):
    # So large that UNLINK frees it on a thread in the background.
    client.execute_command("LB.SET", "third", *(word for i in range(100) for word in (i, 1)))
    arm(client, "freeing a pool")
    client.execute_command(*command)
    struck(server, "freeing a pool")
    client.flushall()
    client.execute_command("LB.ADD", "third", "a")
    assert client.execute_command("LB.PICK", "third") == "a"
    assert client.delete("third") == 1


def test_an_unlink_whose_weighing_panics_deletes_the_pool(server, client):
    arm(client, "weighing a pool")
    assert client.unlink("hit") == 1
    struck(server, "weighing a pool")
    assert client.exists("hit") == 0
    assert client.execute_command("LB.ADD", "hit", "a", 2, "b", 1) == 2
    assert poisoned(client) == []


def test_a_copy_that_panics_is_an_error_and_makes_no_key(server, client):
    arm(client, "copying a pool")
    with pytest.raises(redis.ResponseError):
        client.copy("hit", "copy")
    struck(server, "copying a pool")
    assert client.exists("copy") == 0
    assert client.copy("hit", "copy")
    assert digest(client, "copy") == digest(client)
    assert poisoned(client) == []


def test_an_info_that_panics_lacks_the_section_of_the_module(server, client):
    arm(client, "INFO")
    assert "lb_picks" not in client.info("everything")
    struck(server, "INFO")
    assert client.info("everything")["lb_picks"] == 0
    assert poisoned(client) == []


def test_a_move_that_panics_costs_one_pool_at_most(server, client):
    """Active defragmentation, where the server's allocator can do it."""
    thresholds = {"active-defrag-ignore-bytes": 1, "active-defrag-threshold-lower": 0}
    for name, value in thresholds.items():
        client.config_set(name, value)
    arm(client, "moving a pool")
    try:
        client.config_set("activedefrag", "yes")
    except redis.ResponseError as error:
        pytest.skip(f"this build has no active defragmentation | {error}")
    struck(server, "moving a pool")
    assert len(poisoned(client)) <= 1


# Panics where time passes and clients wait


@pytest.mark.parametrize("what", ["the timer", "LB.TICK"])
def test_a_timer_that_panics_comes_round_again(server, client, what):
    # In one piece: nothing is due before the fault is armed.
    with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command("LB.PICK other LEASE 50").execute_command("LB.FAULT", "any", what)
        assert pipeline.execute()[1] == "OK"
    struck(server, what)
    eventually(lambda: client.execute_command("LB.LEASES other") == [])
    assert poisoned(client) == []


def test_the_timer_goes_on_beside_a_poisoned_pool_with_leases(client):
    """Nothing of that one ends, for nobody knows what it holds."""
    for key in "hit", "other":
        client.execute_command(f"LB.LIMIT {key} MAX 9 RATE 900 1000 BURST 9")
        client.execute_command(f"LB.PICK {key} COUNT 3 LEASE 100 OWNER o")
    poison(client)
    before = digest(client)
    eventually(lambda: client.execute_command("LB.LEASES other") == [])
    assert digest(client) == before
    assert poisoned(client) == ["hit"]
    assert client.info("lb")["lb_poisoned_pools"] == 1
    client.delete("hit")
    client.execute_command("LB.ADD hit a 2 b 1")
    client.execute_command("LB.PICK hit LEASE 50")
    eventually(lambda: client.execute_command("LB.LEASES hit") == [])


@pytest.mark.parametrize(
    ("what", "command"),
    [("an event", "RENAME hit moved"), ("an event", "COPY hit moved"), ("SWAPDB", "SWAPDB 0 0")],
)
def test_an_event_that_panics_costs_nothing_but_the_hint(server, client, binary, what, command):
    """Leases that the timer no longer knows of end when somebody picks."""
    if what == "an event" and binary.kind == "valkey" and not binary.satisfies("valkey 9.1.2"):
        pytest.skip("on Valkey 8.1 to 9.1.1 the module does not listen to events")
    client.execute_command("LB.PICK hit LEASE 100")
    arm(client, what)
    client.execute_command(command)
    struck(server, what)
    key = "hit" if what == "SWAPDB" else "moved"

    def ended():
        client.execute_command("LB.PICK", key)
        return client.execute_command("LB.LEASES", key) == []

    eventually(ended)
    client.execute_command("LB.ADD hit a 2 b 1")
    assert poisoned(client) == []


@pytest.mark.parametrize(
    "what", ["answering a waiter", "a wait that timed out", "freeing the result of a wait"]
)
def test_a_panic_over_a_client_that_waits_leaves_nobody_without_an_answer(server, client, what):
    arm(client, what)
    ms = 50 if "timed out" in what else 0
    with server.client() as waits:
        connection = waits.connection_pool.get_connection()
        connection.send_command("LB.PICK", "waited", "BLOCK", ms, "LEASE", 60_000)
        if not ms:
            eventually(lambda: client.info("clients")["blocked_clients"] == 1)
            client.execute_command("LB.ADD waited a 5")
        struck(server, what)
        if what == "freeing the result of a wait":
            assert connection.read_response()[0] == "a"
        else:
            with pytest.raises(redis.ResponseError, match="a fault in redis-lb"):
                connection.read_response()
        connection.send_command("PING")
        assert connection.read_response() == "PONG"
    assert poisoned(client) == []
    assert client.execute_command("LB.ADD waited a 5 b 3") >= 1
    assert client.execute_command("LB.PICK waited BLOCK 50") in ("a", "b")


def test_a_panic_in_a_pick_for_who_waits_is_answered_once(server, client):
    """To the one who waits; the one who freed something has its own reply, and no other."""
    arm(client, "a pick for a waiter")
    with server.client() as waits:
        connection = waits.connection_pool.get_connection()
        connection.send_command("LB.PICK", "waited", "BLOCK", 0)
        eventually(lambda: client.info("clients")["blocked_clients"] == 1)
        assert client.execute_command("LB.ADD waited a 5") == 1
        assert client.ping()
        with pytest.raises(redis.ResponseError, match="a fault in redis-lb"):
            connection.read_response()
        connection.send_command("PING")
        assert connection.read_response() == "PONG"
    with pytest.raises(redis.ResponseError, match=HALF_CHANGED):
        client.execute_command("LB.CARD waited")
    client.delete("waited")
    assert client.execute_command("LB.ADD waited a 5 b 3") == 2
    assert client.execute_command("LB.PICK waited BLOCK 50") in ("a", "b")
    assert poisoned(client) == []
