"""The clocks of pools: who moves them and when, and that what is due is done without a command, wherever the
pool is."""

import functools
import os
import random
import statistics
import subprocess
import time
from pathlib import Path

import pytest

import callgrind
from cluster import slots
from conftest import module
from persistence import AOF, rewritten, stream
from replication import is_linked, replica_of
from server import eventually, waiting
from servers import environment
from waiter import Waiter, lease, leases
from wire import Refused, Wire, dict_of, pack, words

MANUAL = {"module_args": ["clock", "manual"]}
HOUR = 3_600_000
# In which the timer is watched.
ROUNDS = 100 if os.environ.get("REDIS_LB_LONG") == "1" else 3
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def now():
    return time.time_ns() // 1_000_000


def clock(wire, key="web"):
    return dict_of(wire.ask(f"LB.INFO {key}"))[b"clock"]


def ticks(server):
    return [int(command[2]) for command in stream(server) if command[0] == b"LB.TICK"]


def is_followed(wire, other, *keys):
    """Whether the replica has what the primary has."""
    digest = "DEBUG DIGEST-VALUE " + " ".join(keys or ["web"])
    return wire.ask(digest) == other.ask(digest)


@pytest.fixture
def web(server):
    """A client of a server with a pool `web`."""
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a 1 b 1 c 1")
        yield wire


# Who ticks


def test_a_tick_stands_before_what_depends_on_it_and_a_step_apart(new_server):
    server = new_server(**AOF)
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        for _ in range(300):
            done = f"LB.DONE web {lease(wire.ask('LB.PICK web LEASE 60000'))}"
            assert wire.ask(done) == 1
    commands = stream(server)
    assert [command[0] for command in commands[:4]] == [b"LB.ADD", b"LB.RULES", b"LB.TICK", b"LB.EPOCH"]
    steps = [tick // 10 for tick in ticks(server)]
    assert len(set(steps)) == len(steps) and steps == sorted(steps)
    assert len(steps) < 300
    assert [c[0] for c in commands].count(b"LB.PICK") == 300


def test_nobody_ticks_where_time_does_not_matter(new_server):
    server = new_server(**AOF)
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a MAX 5 TIER 3")
        for command in "LB.PICK web", "LB.PICK web p2c COUNT 3", "LB.DONE web 1-1", "LB.STATE web a drain":
            wire.ask(command)
        assert clock(wire) == 0
        assert not ticks(server)
        wire.ask("LB.STATE web a up")
        assert wire.ask("LB.PICK web LEASE 50")
        eventually(lambda: leases(wire, "web") == 0)
        before = ticks(server)
        time.sleep(0.1)
        for _ in range(3):
            wire.ask("LB.PICK web")
        wire.ask("LB.LEASES web")
        assert ticks(server) == before


def test_reads_do_not_tick(new_server):
    server = new_server(**AOF)
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.PICK web LEASE 60000")
        before = clock(wire)
        time.sleep(0.05)
        for command in (
            "LB.INFO web",
            "LB.LEASES web",
            "LB.WHEN web",
            "LB.PEEK web",
            "LB.STATS web",
            "LB.CARD web",
        ):
            assert not isinstance(wire.ask(command), Refused)
        assert clock(wire) == before


def test_what_is_due_is_done_without_a_command(new_server):
    server = new_server(**AOF)
    with Wire(server.port) as wire:
        *_, info = wire.ask_all("LB.ADD web a", "LB.PICK web LEASE 100", "LB.INFO web")
        granted = dict_of(info)[b"clock"]
        wire.ask("LB.LIMIT web BACKEND a RATE 1 300")
        for command in "MULTI", "LB.PICK web", "LB.WHEN web":
            wire.ask(command)
        assert wire.ask("EXEC")[1][0] == b"limited"
        eventually(lambda: leases(wire, "web") == 0)
        assert clock(wire) >= granted + 100
        eventually(lambda: wire.ask("LB.WHEN web") == [b"available", 0])
        digest = wire.ask("DEBUG DIGEST-VALUE web")
    server.restart()
    with Wire(server.port) as wire:
        assert wire.ask("DEBUG DIGEST-VALUE web") == digest


@pytest.mark.skipif(callgrind.missing() is not None, reason=callgrind.missing() or "")
@pytest.mark.once("calls are counted on one server")
def test_where_time_does_not_matter_nobody_looks_at_a_clock(binary):
    """Nor where there are limits in which time changes nothing. The few calls of the timer count too."""
    picks = 2000
    with callgrind.Callgrind(binary, module()) as server:
        with Wire(server.port) as wire:
            for command in [
                *(f"LB.ADD {key} a 5 b 1 c 1" for key in ("plain", "limited", "timed")),
                "LB.LIMIT limited BACKEND a MAX 5 TIER 3",
                "LB.LIMIT limited MAX 9",
                "LB.PICK timed LEASE 100000000",
            ]:
                wire.ask(command)
            commands = {"plain": "LB.PICK plain", "limited": "LB.PICK limited lc", "timed": "LB.PICK timed"}
            calls = {
                key: server.calls("RM_Milliseconds|RM_CachedMicroseconds", wire, command, picks)
                for key, command in commands.items()
            }
    assert calls["timed"] >= picks
    assert calls["plain"] < picks / 2 and calls["limited"] < picks / 2, calls


def test_the_timer_is_in_time(server):
    """Within 100 ms, and nobody else moves a clock: where a pool's only lease has ended, its clock
    stands where the timer has put it.

    The deadlines lie 10 ms apart over 200 ms, so a timer with a longer period is too late for some of them. A
    machine that stands still may make it late: then there is another round. No lease is ever forgotten.
    """
    keys, late = [f"p{n}" for n in range(20)], []
    with Wire(server.port) as wire:
        for key in keys:
            wire.ask(f"LB.ADD {key} a")
        for _ in waiting(120, pause=0):
            wire.ask("MULTI")
            for n, key in enumerate(keys):
                wire.ask(f"LB.PICK {key} LEASE {20 + 10 * n}")
            for key in keys:
                wire.ask(f"LB.INFO {key}")
                wire.ask(f"LB.LEASES {key}")
            told = wire.ask("EXEC")[len(keys) :]
            clocks = [of[of.index(b"clock") + 1] for of in told[::2]]
            ends = [at + lease[-1] for at, [lease] in zip(clocks, told[1::2], strict=True)]
            eventually(lambda: not any(leases(wire, key) for key in keys))
            late.append([clock(wire, key) - end for key, end in zip(keys, ends, strict=True)])
            assert min(late[-1]) >= 0
            if max(late[-1]) <= 100 and len(late) >= ROUNDS:
                break
        else:
            raise AssertionError(f"late by so many ms: {late}")
    every = sum(late, [])
    print(f"{len(every)} leases: late by {statistics.median(every)} ms in the median, {max(every)} at most")


def test_a_lease_whose_reply_was_lost_ends_by_its_deadline(server, web):
    with Wire(server.port) as gone:
        gone.send(pack(words("LB.PICK web LEASE 300 OWNER gone")))
        eventually(lambda: dict_of(web.ask("LB.STATS web a"))[b"picks"] == 1)
    eventually(lambda: leases(web, "web") == 0)
    assert dict_of(web.ask("LB.STATS web a"))[b"expired"] == 1


def test_what_is_due_is_done_where_before_nothing_was_due_any_more(web):
    web.ask(f"LB.DONE web {lease(web.ask('LB.PICK web LEASE 50'))}")
    web.ask("LB.ADD later a")
    web.ask("LB.PICK later LEASE 50")
    # The list of what is due is in order of time.
    eventually(lambda: leases(web, "later") == 0)
    web.ask("LB.PICK web LEASE 50")
    eventually(lambda: leases(web, "web") == 0)


def test_a_lease_that_is_renewed_to_end_sooner_does_so(web):
    held = lease(web.ask("LB.PICK web LEASE 600000"))
    web.ask("LB.PICK web LEASE 600000")
    assert web.ask(f"LB.RENEW web {held} 10") == 1
    eventually(lambda: leases(web, "web") == 1)


# LB.TICK and its like, from a client


def test_a_client_moves_a_clock_forward_but_not_ahead_of_time(web):
    assert web.ask(f"LB.TICK web {now() + 60_000}").code == "ERR"
    assert clock(web) == 0
    assert web.ask("LB.TICK web 1000") == "OK"
    assert web.ask("LB.TICK web 999") == "OK"
    assert clock(web) == 1000
    assert web.ask(f"LB.TICK web {now() - 60_000}") == "OK"
    for bad in "-1", "x", "1.5", str((1 << 47) + 1), str(1 << 64):
        assert web.ask(f"LB.TICK web {bad}").code == "ERR"


def test_a_tick_that_moves_nothing_is_not_in_the_stream(new_server):
    server = new_server(**AOF)
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        for tick in 1000, 1000, 5, now() + 60_000:
            wire.ask(f"LB.TICK web {tick}")
        for command in "LB.TICK none 5", "LB.SEED none 5", "LB.EPOCH none 5":
            assert wire.ask(command) == "OK"
        assert wire.ask("EXISTS none") == 0
    assert [c for c in stream(server) if c[0] != b"LB.ADD"] == [words("LB.TICK web 1000")]


def test_under_the_manual_clock_nobody_else_ticks(new_server):
    server = new_server(**MANUAL, **AOF)
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a MAX 1")
        assert wire.ask("LB.TICK web 1000000") == "OK"
        wire.ask("LB.PICK web LEASE 50")
        waiter = Waiter(server)
        time.sleep(0.3)
        wire.ask("LB.PICK web LEASE 50")
        assert leases(wire, "web") == 1 and waiter.waits() and clock(wire) == 1000000
        assert wire.ask("LB.TICK web 1000050") == "OK"
        assert waiter.waits()
        assert wire.ask("LB.TICK web 1000060") == "OK"
        assert waiter.read()[0] == b"a"
        assert wire.ask(f"LB.TICK web {now() + HOUR}") == "OK"
        assert leases(wire, "web") == 0
    assert len(ticks(server)) == 4


def test_many_ticks_leave_what_one_leaves(manual):
    """What ends in one tick ends in the order in which it was due."""
    chance = random.Random(6)
    with Wire(manual.port) as wire:
        for key in (f"p{n}" for n in range(20)):
            for command in [
                "LB.ADD {} a 5 b 3 c 2 d 1",
                "LB.SEED {} 1",
                "LB.TICK {} 1000",
                "LB.LIMIT {} BACKEND a MAX 9 RATE 3 70 BURST 20",
                "LB.LIMIT {} BACKEND b RATE 1 300 BURST 9",
                "LB.LIMIT {} BACKEND d TIER 1 MAX 30",
                "LB.LIMIT {} MAX 50 RATE 7 10 BURST 90",
            ]:
                assert wire.ask(command.format(key)) == (4 if "ADD" in command else "OK")
            for _ in range(40):
                by = chance.choice(["rr", "wrr", "lc", "p2c", "random"])
                wire.ask(f"LB.PICK {key} {by} LEASE {chance.randrange(1, 900)} OWNER o{chance.randrange(3)}")
            wire.ask(f"COPY {key} twin")
            times = sorted(chance.sample(range(1001, 3000), 30))
            for time in times:
                wire.ask(f"LB.TICK {key} {time}")
            wire.ask(f"LB.TICK twin {times[-1]}")
            digests = wire.ask(f"DEBUG DIGEST-VALUE {key} twin")
            assert digests[0] == digests[1]
            picks = [f"LB.PICK {{}} {by} COUNT 9" for by in ("lc", "wrr", "rr", "p2c", "random")]
            assert [wire.ask(p.format(key)) for p in picks] == [wire.ask(p.format("twin")) for p in picks]
            wire.ask("DEL twin")


# Replicas and promotions


def test_a_replica_keeps_still_until_it_is_promoted(new_server):
    # The primary ends no lease by itself, however long it lives.
    primary = new_server(module_args=["clock", "manual"])
    replica = new_server(**AOF, **replica_of(primary))
    eventually(lambda: is_linked(replica))
    with Wire(primary.port) as wire, Wire(replica.port) as other:
        for key in "web", "late":
            wire.ask(f"LB.ADD {key} a")
            wire.ask(f"LB.TICK {key} {now()}")
            wire.ask(f"LB.PICK {key} LEASE {300 if key == 'web' else 900_000}")
        eventually(lambda: is_followed(wire, other, "web", "late"))
        primary.kill()
        time.sleep(0.5)
        assert leases(other, "web") == 1
        other.ask("REPLICAOF NO ONE")
        eventually(lambda: leases(other, "web") == 0)
        assert leases(other, "late") == 1


LONG = pytest.mark.long
WAYS = ["promotion", "MIGRATE", "RESTORE", "RDB", "AOF"]


@pytest.mark.parametrize(
    ("way", "ahead"),
    [*((way, HOUR) for way in WAYS), *(pytest.param(way, -HOUR, marks=LONG) for way in WAYS)],
)
def test_time_goes_on_for_a_pool_whose_clock_was_not_ours(new_server, way, ahead):
    """A clock by hand stands for that of a host whose clock was an hour ahead of ours, or behind."""
    options = {"RDB": {}, "AOF": AOF}.get(way, {})
    there = new_server(**MANUAL, **options)
    with Wire(there.port) as wire:
        wire.ask("LB.ADD web a 1 b 1")
        wire.ask("LB.LIMIT web BACKEND b RATE 1 400")
        wire.ask(f"LB.TICK web {now() + ahead}")
        for _ in range(2):
            wire.ask("LB.PICK web LEASE 400")
        wire.ask(f"LB.PICK web LEASE {HOUR // 2}")
        before = clock(wire)
        if way == "promotion":
            here = new_server(**replica_of(there))
            eventually(lambda: is_linked(here))
            there.kill()
            here.client().replicaof("NO", "ONE")
        elif way in ("RDB", "AOF"):
            if way == "RDB":
                wire.ask("SAVE")
            there.kill()
            here = new_server(folder=there.folder, **options)
        else:
            here = new_server()
            with Wire(here.port) as other:
                if way == "MIGRATE":
                    assert wire.ask(f"MIGRATE 127.0.0.1 {here.port} web 0 10000") == "OK"
                else:
                    assert other.ask([b"RESTORE", b"web", b"0", wire.ask("DUMP web")]) == "OK"
    with Wire(here.port) as wire:
        # Without a command: it is the timer that finds them.
        eventually(lambda: leases(wire, "web") == (1 if ahead > 0 else 0))
        first = clock(wire)
        expected = before if ahead > 0 else now()
        assert abs(first - expected) < 30_000
        picked, told = wire.ask_all("LB.PICK web LEASE 200", "LB.INFO web")
        held = lease(picked)
        assert dict_of(told)[b"leases"] == (2 if ahead > 0 else 1)
        eventually(lambda: leases(wire, "web") == (1 if ahead > 0 else 0))
        assert wire.ask(f"LB.DONE web {held}") == 0
        assert clock(wire) > first


def test_a_clock_that_can_show_no_more_stands_still(new_server):
    there, here = new_server(**MANUAL), new_server()
    replica = new_server(**replica_of(here))
    eventually(lambda: is_linked(replica))
    latest = 2**47
    with Wire(there.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask(f"LB.TICK web {latest}")
        wire.ask("LB.PICK web LEASE 1")
        dump = wire.ask("DUMP web")
    with Wire(here.port) as wire, Wire(replica.port) as other:
        assert wire.ask([b"RESTORE", b"web", b"0", dump]) == "OK"
        wire.ask("LB.ADD late a")
        wire.ask("LB.PICK late LEASE 100")
        while leases(wire, "late"):
            wire.ask("LB.PICK web LEASE 1")
        assert clock(wire) == latest
        eventually(lambda: is_followed(wire, other, "web"))
        assert wire.ask("DEBUG RELOAD") == "OK"
        # It keeps nobody else from what is due.
        wire.ask("LB.PICK late LEASE 100")
        eventually(lambda: leases(wire, "late") == 0)
    assert not replica.crashed()


def test_a_dump_that_is_a_day_old(new_server):
    there, here = new_server(**MANUAL), new_server()
    with Wire(there.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a RATE 1 60000 BURST 9")
        wire.ask(f"LB.TICK web {now() - 24 * HOUR}")
        assert len(wire.ask("LB.PICK web COUNT 20 LEASE 60000")) == 9
        dump = wire.ask("DUMP web")
    with Wire(here.port) as wire:
        assert wire.ask([b"RESTORE", b"web", b"0", dump]) == "OK"
        assert len(wire.ask("LB.PICK web COUNT 20 LEASE 60000")) == 9
        assert leases(wire, "web") == 9


@pytest.mark.parametrize("command", ["CLIENT PAUSE", "FAILOVER"])
def test_leases_that_run_out_while_writes_are_paused(new_server, command):
    """A timer that wrote into the stream then would end redis 7.0 by an assertion."""
    primary = new_server()
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    with Wire(primary.port) as wire, Wire(replica.port) as other:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a MAX 1")
        held = lease(wire.ask("LB.PICK web LEASE 600000"))
        waiter = Waiter(primary)
        # In one piece, and for long: a machine that stands still must not let either end before we look.
        assert wire.ask_all(f"LB.RENEW web {held} 150", "CLIENT PAUSE 60000 WRITE") == [1, "OK"]
        time.sleep(0.3)
        assert leases(wire, "web") == 1 and waiter.waits()
        wire.ask("CLIENT UNPAUSE")
        assert waiter.read()[0] == b"a"
        wire.ask("LB.LIMIT web BACKEND a MAX 50")
        for _ in range(40):
            wire.ask("LB.PICK web LEASE 30")
        if command == "FAILOVER":
            assert wire.ask("FAILOVER") == "OK"
            eventually(lambda: b"role:master" in other.ask("INFO replication"))
            eventually(lambda: leases(other, "web") == 1)
            eventually(lambda: is_linked(primary))
            assert leases(wire, "web") == 1
        eventually(lambda: is_followed(wire, other))


def test_leases_that_run_out_during_a_failover_of_a_cluster(new_server):
    options = {"cluster_enabled": "yes", "cluster_node_timeout": 5000}
    nodes = [new_server(**options) for _ in range(2)]
    here, there = [Wire(node.port) for node in nodes]
    slots(here, "SET-CONFIG-EPOCH", 1)
    slots(there, "SET-CONFIG-EPOCH", 2)
    slots(here, "ADDSLOTS", *range(16384))
    slots(there, "MEET", "127.0.0.1", nodes[0].port)
    eventually(lambda: b"cluster_state:ok" in slots(there, "INFO"))
    slots(there, "REPLICATE", slots(here, "MYID").decode())
    eventually(lambda: is_linked(nodes[1]) and b" slave " in slots(here, "NODES"))
    here.ask("LB.ADD web a")
    here.ask("LB.LIMIT web BACKEND a MAX 1000")
    here.ask("LB.PICK web COUNT 1000 LEASE 60000")
    waiter = Waiter(nodes[0])
    for held in here.ask("LB.LEASES web COUNT 900")[::3]:
        here.ask(f"LB.RENEW web {held[1].decode()} 1500")
    eventually(lambda: is_followed(here, there))
    assert slots(there, "FAILOVER") == "OK"
    eventually(lambda: b"role:master" in there.ask("INFO replication"))
    assert isinstance(waiter.read(), Refused | list)
    eventually(lambda: is_linked(nodes[0]))
    eventually(lambda: leases(there, "web") <= 701)
    assert there.ask("LB.PICK web LEASE 60000")[0] == b"a"
    here.ask("READONLY")
    eventually(lambda: is_followed(there, here))


@pytest.mark.parametrize("trouble", ["ACL", "maxmemory 1"])
def test_the_timer_works_where_some_clients_may_not_write(new_server, trouble):
    server = new_server(**AOF, user="default on nopass ~* &* +@all")
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a MAX 1")
        wire.ask("LB.PICK web LEASE 400")
        waiter = Waiter(server, "LB.PICK web BLOCK 0")
        if trouble == "ACL":
            wire.ask("ACL SETUSER default -lb.tick -lb.done -lb.pick")
        else:
            wire.ask(f"CONFIG SET {trouble}")
        eventually(lambda: leases(wire, "web") == 0)
        assert waiter.read() == b"a"
        if trouble == "ACL":
            assert wire.ask("LB.PICK web").code == "NOPERM"
            wire.ask("ACL SETUSER default +@all")


@pytest.mark.parametrize("is_config_known", [True, False], ids=["CONFIG", "no CONFIG"])
def test_the_timer_rests_where_there_are_too_few_replicas(new_server, is_config_known):
    """How many there must be, no module is told where CONFIG was renamed: one at least."""
    renamed = {} if is_config_known else {"rename_command": 'CONFIG "SETTINGS"'}
    config = "CONFIG" if is_config_known else "SETTINGS"
    server = new_server(**AOF, min_replicas_max_lag=10, **renamed)
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a MAX 1")
        held = lease(wire.ask("LB.PICK web LEASE 600000"))
        waiter = Waiter(server, "LB.PICK web LEASE 60000 BLOCK 0")
        timed_out = Waiter(server, "LB.PICK web BLOCK 600")
        # In one piece, so that the lease runs out afterwards.
        rests = wire.ask_all(f"LB.RENEW web {held} 200", f"{config} SET min-replicas-to-write 1")
        assert rests == [1, "OK"]
        digest = wire.ask("DEBUG DIGEST-VALUE web")
        assert wire.ask("LB.PICK web").code == "NOREPLICAS"
        assert timed_out.read() is None
        assert wire.ask("DEBUG DIGEST-VALUE web") == digest
        assert waiter.waits()
        wire.ask(f"{config} SET min-replicas-to-write 0")
        assert waiter.read()[0] == b"a"


# Wherever the pool is


@pytest.mark.parametrize("way", ["SAVE", "AOF", "AOF rewritten", "DEBUG RELOAD"])
def test_what_fell_due_while_the_server_was_down(new_server, way):
    server = new_server(**({} if way == "SAVE" else AOF))
    with Wire(server.port) as wire:
        wire.ask("SELECT 3")
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a RATE 1 200")
        wire.ask("LB.PICK web LEASE 100")
        if way == "DEBUG RELOAD":
            wire.ask("DEBUG RELOAD")
        if way == "SAVE":
            wire.ask("SAVE")
    if way == "AOF rewritten":
        rewritten(server)
    elif way != "DEBUG RELOAD":
        server.kill()
        server.start()
    with Wire(server.port) as wire:
        wire.ask("SELECT 3")
        eventually(lambda: leases(wire, "web") == 0)
        eventually(lambda: wire.ask("LB.WHEN web") == [b"available", 0])


MOVES = {
    "RENAME": (["RENAME web new"], 0),
    "COPY": (["COPY web new"], 0),
    "MOVE": (["RENAME web new", "MOVE new 3"], 3),
    "COPY DB": (["COPY web new DB 3"], 3),
    "SWAPDB": (["RENAME web new", "SWAPDB 0 5"], 5),
    "RENAME and back": (["RENAME web new", "RENAME new web", "RENAME web new"], 0),
    "MULTI": (["MULTI", "RENAME web new", "EXEC"], 0),
}


@pytest.mark.parametrize(("commands", "db"), MOVES.values(), ids=MOVES)
def test_leases_end_in_time_where_the_pool_has_gone(server, binary, commands, db):
    with Wire(server.port) as wire:
        # It must not be listened to on some: there the next command finds what is due.
        more = ["LB.PICK new"] if binary.kind == "valkey" and binary.version < (9, 1, 2) else []
        all_of_it = ["LB.ADD web a", "LB.PICK web LEASE 300", *commands, f"SELECT {db}", *more, "LB.INFO new"]
        answers = wire.ask_all(*all_of_it)
        assert not any(isinstance(answer, Refused) for answer in answers)
        assert dict_of(answers[-1])[b"leases"] == 1
        eventually(lambda: leases(wire, "new") == 0)


@pytest.mark.long
def test_a_pool_in_a_slot_that_has_moved_is_left_alone(new_server):
    server = new_server(cluster_enabled="yes", **AOF)
    with Wire(server.port) as wire:
        slots(wire, "ADDSLOTS", *range(16384))
        eventually(lambda: b"cluster_state:ok" in slots(wire, "INFO"))
        wire.ask("LB.ADD web a")
        wire.ask("LB.PICK web LEASE 200")
        slot = slots(wire, "KEYSLOT", "web")
        slots(wire, "DELSLOTS", slot)
        time.sleep(0.5)
        before = ticks(server)
        slots(wire, "ADDSLOTS", slot)
        eventually(lambda: b"cluster_state:ok" in slots(wire, "INFO"))
        eventually(lambda: leases(wire, "web") == 0)
        assert ticks(server)[: len(before)] == before


# Many


@pytest.mark.parametrize("pools", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_pools_in_which_something_is_due_at_once(new_server, pools):
    primary = new_server()
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    with Wire(primary.port) as wire, Wire(replica.port) as other:
        for at in range(0, pools, 500):
            batch = range(at, at + 500)
            commands = [f"LB.ADD p{n} a" for n in batch] + [f"LB.PICK p{n} LEASE 1500" for n in batch]
            wire.send(b"".join(pack(words(command)) for command in commands))
            for _ in commands:
                assert not isinstance(wire.read(), Refused)
        wait = max(0.0, 1.5 - pools / 10_000)
        time.sleep(wait)
        sums = [b"EVAL", SUM.encode(), b"0", str(pools).encode()]
        eventually(lambda: wire.ask(sums) == 0)
        eventually(lambda: is_followed(wire, other, *[f"p{n}" for n in range(0, pools, 100)]))


SUM = """local open = 0
for n = 0, ARGV[1] - 1 do open = open + #redis.call('LB.LEASES', 'p' .. n) end
return open"""


@pytest.mark.parametrize("many", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_many_leases_that_are_due_at_once(new_server, many):
    """A timer ends a thousand at a time, unless more have one deadline."""
    server = new_server(**AOF)
    with Wire(server.port) as wire, Wire(server.port) as other:
        wire.ask("LB.ADD web a")
        for _ in range(many // 1000):
            wire.ask("LB.PICK web COUNT 1000 LEASE 60000")
        held = [e[1] for e in wire.ask("LB.LEASES web COUNT 10000")]
        # Deadlines of every step, all over by the time that the server is let go on.
        commands = [
            pack(words(f"LB.RENEW web {id.decode()} {100 + 10 * (n // 500)}")) for n, id in enumerate(held)
        ]
        wire.send(b"".join([*commands, pack(words("DEBUG SLEEP 1"))]))
        for _ in range(len(held) + 1):
            wire.read()
        longest = 0.0
        for _ in range(2000):
            begun = time.monotonic()
            other.ask("PING")
            longest = max(longest, time.monotonic() - begun)
            if leases(other, "web") == many - len(held):
                break
        eventually(lambda: leases(other, "web") == many - len(held))
        print("longest pause", longest)


def test_hints_do_not_pile_up(new_server):
    """A hint for each pool that was once there, or for each lease, would take a megabyte and more."""
    primary = new_server()
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    with Wire(primary.port) as wire:

        def load(rounds):
            for n in range(rounds):
                commands = [
                    "LB.ADD web a",
                    f"LB.PICK web LEASE {900_000 - n}",
                    f"LB.PICK web LEASE {50_000 - n}",
                ]
                wire.send(
                    b"".join(pack(words(command)) for command in [*commands, "RENAME web new", "DEL new"])
                )
                for _ in range(5):
                    assert not isinstance(wire.read(), Refused)

        def used(server):
            memory = server.client().info("memory")
            return memory["used_memory"] - memory.get("mem_total_replication_buffers", 0)

        load(2000)
        before = [used(primary), used(replica)]
        load(10_000)
        eventually(lambda: primary.client().wait(1, 1000) == 1)
        assert used(primary) - before[0] < 800_000
        assert used(replica) - before[1] < 800_000


@pytest.mark.needs("7.2", "keys that are opened without a trace")
def test_the_timer_is_no_access(server, web):
    web.ask("CONFIG RESETSTAT")
    web.ask("LB.ADD gone a")
    for key in "gone", "web":
        web.ask(f"LB.PICK {key} LEASE 50")
    web.ask("DEL gone")
    # The list of what is due is in order of time.
    eventually(lambda: clock(web) and not leases(web, "web"))
    asked = server.client().info("stats")
    assert asked["keyspace_misses"] == 0


# A clock on the wall that steps


@functools.cache
def bears_faketime(program):
    """Whether it comes up with libfaketime: with a jemalloc that asks for the time too early it hangs."""
    try:
        subprocess.run([program, "--version"], env=environment(program), capture_output=True, timeout=3)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.mark.skipif(
    not FAKETIME.exists(), reason="there is no libfaketime here (Debian's package libfaketime)"
)
@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forward"])
def test_a_clock_on_the_wall_that_is_put(binary, new_server, monkeypatch, tmp_path, step):
    shift = tmp_path / "shift"
    shift.write_text("+0")
    monkeypatch.setenv("LD_PRELOAD", str(FAKETIME))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(shift))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    if not bears_faketime(binary.path):
        pytest.skip("the server does not bear libfaketime")
    server = new_server()
    with Wire(server.port) as wire:
        picks = ["LB.PICK web LEASE 1000", f"LB.PICK web LEASE {2 * HOUR}"]
        *_, info = wire.ask_all("LB.ADD web a", *picks, "LB.INFO web")
        before = dict_of(info)[b"clock"]
        shift.write_text(f"{step // 1000:+d}")
        eventually(lambda: leases(wire, "web") == 1)
        wire.ask("LB.PICK web LEASE 100")
        eventually(lambda: leases(wire, "web") == 1)
        assert clock(wire) >= before + (step if step > 0 else 1000)
