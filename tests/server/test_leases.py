"""Leases: what is in flight counts until LB.DONE, or until its time is over; no two ever have the same id."""

import random
import time
from collections import Counter
from fractions import Fraction
from itertools import product

import pytest
import redis

import callgrind
from algorithms import ALGORITHMS, BLIND
from conftest import module
from memory import used_when_empty
from persistence import WAYS
from replication import is_linked, replica_of
from server import eventually, waiting
from wire import Refused, Wire, dict_of, pack, words

# Ids that no lease has.
MALFORMED = [
    b"",
    b"-",
    b"1",
    b"1-",
    b"-1",
    b"1-2-3",
    b"+1-2",
    b"1--2",
    b"a-1",
    b"0x1-1",
    b"1-1 ",
    b" 1-1",
    b"1.0-1",
]
MALFORMED += [b"1-18446744073709551616", b"18446744073709551616-1", b"9" * 100_000, b"-" * 512, b"\xff\xfe-1"]
MALFORMED += [b"1-1\0", b"\0", b"\r\n", b"%s%n-1", "١-١".encode(), b"OWNER", b"nan-0", b"1e3-1", b"1-1,1-2"]


def leases(lb, options="", key="web"):
    """What is in flight."""
    return [dict_of(told) for told in lb(f"LB.LEASES {key} {options}")]


def ids(lb, options="", key="web"):
    """The ids alone."""
    return [lease["lease"] for lease in leases(lb, options, key)]


def lease(lb, options="", ms=500):
    """The id of a new one."""
    return lb(f"LB.PICK web {options} LEASE {ms}")[1]


def stats(lb, backend):
    """As LB.STATS tells, without what has nothing to do with leases."""
    told = dict_of(lb(f"LB.STATS web {backend}"))
    return {field: told[field] for field in ["leases", "done", "failures", "expired", "latency-us"]}


def state(lb):
    """What a command could have changed, and how often anything was."""
    pools = [lb("DEBUG", "DIGEST-VALUE", key) for key in ["web", "other"]]
    return pools, lb("INFO", "persistence")["rdb_changes_since_last_save"]


# Granting


@pytest.mark.parametrize("algorithm", BLIND)
@pytest.mark.parametrize("options", ["", "EXCLUDE 1 b"])
def test_single_picks_with_a_lease_are_those_without(lb, algorithm, options):
    lb("COPY web twin")
    leased = [lb(f"LB.PICK web {algorithm} {options} LEASE 500") for _ in range(20)]
    assert [backend for backend, _ in leased] == [
        lb(f"LB.PICK twin {algorithm} {options}") for _ in range(20)
    ]
    assert leased == [[lease["backend"], lease["lease"]] for lease in leases(lb)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("options", ["", "DISTINCT", "EXCLUDE 1 b", "DISTINCT EXCLUDE 1 b"])
def test_each_of_many_picks_gets_a_lease(lb, algorithm, options):
    leased = lb(f"LB.PICK web {algorithm} COUNT 20 {options} LEASE 500 OWNER o")
    assert len({id for _, id in leased}) == len(leased)
    assert leased == [[lease["backend"], lease["lease"]] for lease in leases(lb)]
    picked = [backend for backend, _ in leased]
    expected = [backend for backend in "abc" if "EXCLUDE" not in options or backend != "b"]
    assert sorted(picked) == expected if "DISTINCT" in options else len(picked) == 20
    assert {lease["owner"] for lease in leases(lb)} == {"o"}


@pytest.mark.parametrize("algorithm", ["lc", "p2c"])
def test_count_counts_each_lease_into_the_next_pick(lb, algorithm):
    lb("COPY web twin")
    many = lb(f"LB.PICK web {algorithm} COUNT 50 LEASE 500")
    single = [lb(f"LB.PICK twin {algorithm} LEASE 500") for _ in range(50)]
    assert [backend for backend, _ in many] == [backend for backend, _ in single]


def test_lc_keeps_all_as_busy_as_their_weights_say(lb):
    open_leases = Counter()
    last = Counter()
    weights = {"a": 5, "b": 3, "c": 2}
    chance = random.Random(1)
    for turn in range(1, 200):
        load = {b: (Fraction(open_leases[b] + 1, weights[b]), last[b]) for b in weights}
        expected = min(weights, key=load.get)
        backend, id = lb("LB.PICK web lc LEASE 500")
        assert backend == expected
        open_leases[backend] += 1
        last[backend] = turn
        if chance.random() < 0.6:
            ended = chance.choice(leases(lb))
            assert lb("LB.DONE", "web", ended["lease"]) == 1
            open_leases[ended["backend"]] -= 1


def test_a_pick_without_a_lease_leaves_none(lb):
    lb("LB.PICK web COUNT 9")
    assert lb("LB.LEASES web") == []
    assert stats(lb, "a")["leases"] == 0


def test_nobody_eligible_is_no_lease_and_no_change(lb):
    before = state(lb)
    assert lb("LB.PICK web LEASE 500 EXCLUDE 3 a b c") is None
    assert lb("LB.PICK web p2c COUNT 2 LEASE 500 EXCLUDE 3 a b c") == []
    assert state(lb) == before


def test_a_full_server_grants_none_and_goes_on_picking_and_ending(new_server):
    server = new_server(appendonly="yes", appendfsync="always", maxmemory_policy="noeviction")
    with server.client() as client:
        lb = client.execute_command
        lb("LB.ADD web a 5 b 3 c 2")
        held = [lease(lb, "OWNER o", 10**7) if n else lease(lb, "", 10**7) for n in range(4)]
        with Wire(server.port) as unit:
            # What is queued when there is no room the server itself refuses.
            for command in ["MULTI", "LB.PICK web LEASE 500", "LB.PICK web"]:
                unit.ask(command)
            client.config_set("maxmemory", 1)
            refused, picked = unit.ask("EXEC")
            assert refused.code == "OOM" and picked in [b"a", b"b", b"c"]
        for command in [
            "LB.PICK web LEASE 500",
            "LB.PICK web COUNT 2 LEASE 500 OWNER o",
            "LB.PICK none LEASE 5",
        ]:
            with pytest.raises(redis.OutOfMemoryError):
                lb(command)
        assert lb("LB.PICK web") in list("abc")
        assert (lb("LB.RENEW", "web", held[0], 10**8), lb("LB.DONE", "web", held[0])) == (1, 1)
        assert lb("LB.RELEASE web OWNER o") == 3
        # What is in the stream was granted when there was room.
        client.config_set("maxmemory", 0)
        lease(lb, "", 10**7)
        before = lb("DEBUG DIGEST-VALUE web")
        client.config_set("maxmemory", 1)
        assert client.config_rewrite()
    server.restart()
    with server.client() as client:
        assert client.config_get("maxmemory")["maxmemory"] == "1"
        assert client.execute_command("DEBUG DIGEST-VALUE web") == before


# Ending


def test_done_ends_a_lease_once(lb):
    first, second = lease(lb), lease(lb)
    assert lb(f"LB.DONE web {first}") == 1
    assert ids(lb) == [second]
    before = state(lb)
    assert lb(f"LB.DONE web {first} FAIL LATENCY 99") == 0
    assert state(lb) == before


def test_done_of_a_lease_that_ran_out_is_too_late(lb):
    id = lease(lb, "wrr", 500)
    lb("LB.TICK web 1510")
    before = state(lb)
    assert lb(f"LB.DONE web {id}") == 0
    assert lb(f"LB.RENEW web {id} 500") == 0
    assert state(lb) == before
    assert stats(lb, "a") == {"leases": 0, "done": 0, "failures": 0, "expired": 1, "latency-us": 0}


def test_an_id_that_is_no_lease_of_this_pool_is_0_and_changes_nothing(lb):
    id = lease(lb)
    epoch, number = id.split("-")
    lb("LB.ADD other x")
    lb("LB.TICK other 1000")
    _, others = lb("LB.PICK other LEASE 500")
    similar = [
        f"{epoch}-{int(number) + 1}",
        f"{int(epoch) - 1}-{number}",
        f"0-{number}",
        number,
        f"{id}-{number}",
    ]
    similar += [f"0{id}", f"{epoch}-0{number}", f"{id} ", f"{epoch}_{number}", others]
    before = state(lb)
    for wrong in similar + MALFORMED:
        assert lb("LB.DONE", "web", wrong) == 0, wrong
        assert lb("LB.DONE", "web", wrong, "FAIL", "LATENCY", 5) == 0, wrong
        assert lb("LB.RENEW", "web", wrong, 5) == 0, wrong
        assert lb("LB.DONE", "none", wrong) == 0, wrong
    assert state(lb) == before
    assert (lb(f"LB.DONE web {id}"), lb(f"LB.DONE other {others}")) == (1, 1)


@pytest.mark.parametrize("clock", [1000, 1001, 1005, 1009, 2**47 - 2**41])
@pytest.mark.parametrize("ms", [1, 9, 10, 11, 500, 2**40])
def test_a_lease_ends_exactly_when_the_rule_says(lb, clock, ms):
    lb(f"LB.TICK web {clock}")
    lease(lb, "wrr", ms)
    end = -(-(clock + ms + 10) // 10) * 10
    (listed,) = leases(lb)
    assert (listed["age"], listed["remaining"]) == (0, end - clock)
    lb(f"LB.TICK web {end - 1}")
    (listed,) = leases(lb)
    assert (listed["age"], listed["remaining"]) == (end - 1 - clock, 1)
    lb(f"LB.TICK web {end}")
    assert leases(lb) == []
    assert stats(lb, "a")["expired"] == 1


def test_a_lease_lasts_as_long_as_it_should_by_the_servers_clock(server):
    """At least ms and at most ms + 20; each pick brings the pool's clock up to the time."""
    with server.client() as client:
        for ms in [1, 10, 33, 100, 101, 250]:
            client.execute_command("LB.ADD", ms, "a")
            # What the bounds are taken from lies outside: before the command was sent, after it was answered.
            sent = time.monotonic()
            client.execute_command("LB.PICK", ms, "LEASE", ms)
            answered = time.monotonic()
            seen = answered
            for _ in waiting(20, pause=0.001):
                asked = time.monotonic()
                with client.pipeline(transaction=True) as unit:
                    unit.execute_command("LB.PICK", ms).execute_command("LB.STATS", ms, "a")
                    _, told = unit.execute()
                gone = time.monotonic()
                if not dict_of(told)["leases"]:
                    break
                seen = asked
            # Servers count whole milliseconds.
            assert gone - sent >= (ms - 2) / 1000
            assert seen - answered <= (ms + 20 + 2) / 1000


@pytest.mark.parametrize("ms", [1, 100, 5000])
def test_renew_lets_a_lease_end_later_or_sooner(lb, ms):
    first, second = lease(lb, "", 500), lease(lb, "", 500)
    lb("LB.TICK web 1300")
    assert lb(f"LB.RENEW web {first} {ms}") == 1
    end = -(-(1300 + ms + 10) // 10) * 10
    told = {lease["lease"]: (lease["age"], lease["remaining"]) for lease in leases(lb)}
    assert told == {first: (300, end - 1300), second: (300, 210)}
    lb(f"LB.TICK web {end - 1}")
    assert first in ids(lb)
    lb(f"LB.TICK web {end}")
    assert first not in ids(lb)
    lb("LB.TICK web 9000")
    assert lb(f"LB.RENEW web {first} {ms}") == 0


def test_release_ends_all_of_an_owner(lb):
    lb("LB.PICK web COUNT 5 LEASE 500 OWNER o")
    kept = [lease(lb), lease(lb, "OWNER oo"), lease(lb, "OWNER O")]
    lb("LB.PICK web rr COUNT 3 LEASE 9000 OWNER o")
    assert lb("LB.RELEASE web OWNER o") == 8
    assert ids(lb) == kept
    before = state(lb)
    assert lb("LB.RELEASE web OWNER o") == 0
    assert lb("LB.RELEASE web OWNER web") == 0
    assert state(lb) == before
    assert sum(stats(lb, backend)["done"] + stats(lb, backend)["expired"] for backend in "abc") == 0


def test_leases_are_listed_oldest_first_by_backend_and_owner(lb):
    chance = random.Random(2)
    granted = []
    for _ in range(120):
        owner = chance.choice(["", "o", "p", "a-third-one"])
        ms = chance.randrange(1, 900)
        picked = lb(f"LB.PICK web {chance.choice(ALGORITHMS)} LEASE {ms} {owner and f'OWNER {owner}'}")
        granted.append((picked[1], picked[0], owner or None))
        if chance.random() < 0.2:
            gone = granted.pop(chance.randrange(len(granted)))
            assert lb("LB.DONE", "web", gone[0]) == 1
        if chance.random() < 0.2:
            lb("LB.RENEW", "web", chance.choice(granted)[0], chance.randrange(1, 900))
    for backend, owner, count in product([None, *"abc", "x"], [None, "o", "p", "x"], [None, 1, 7, 10_000]):
        options = " ".join(
            f"{word} {value}"
            for word, value in [("COUNT", count), ("OWNER", owner), ("BACKEND", backend)]
            if value is not None
        )
        expected = [each for each in granted if backend in (None, each[1]) and owner in (None, each[2])]
        listed = [(told["lease"], told["backend"], told["owner"]) for told in leases(lb, options)]
        assert listed == expected[:count], options


@pytest.mark.parametrize("command", ["LB.REM web a", "LB.SET web b 3 c 2 d 1", "LB.STATE web a down"])
def test_what_takes_a_backend_away_ends_its_leases(lb, command):
    leased = lb("LB.PICK web COUNT 10 LEASE 500")
    lb(command)
    assert ids(lb) == [id for backend, id in leased if backend != "a"]
    before = state(lb)
    for backend, id in leased:
        if backend == "a":
            assert (lb(f"LB.DONE web {id}"), lb(f"LB.RENEW web {id} 500")) == (0, 0)
    assert state(lb) == before
    lb("LB.ADD web a 5")
    lb("LB.STATE web a up")
    assert stats(lb, "a") == {"leases": 0, "done": 0, "failures": 0, "expired": 0, "latency-us": 0}
    assert ids(lb, "BACKEND a") == []


@pytest.mark.parametrize(
    "command",
    [
        "LB.STATE web a drain",
        "LB.WEIGHT web a 0",
        "LB.SET web a 1 b 3 c 2 d 1",
        "LB.ADD web a 9",
        "LB.REM web b",
    ]
    + ["LB.LIMIT web MAX 1", "LB.LIMIT web BACKEND a MAX 1 TIER 3 RATE 1 1000", "LB.POLICY web rr"]
    + ["LB.EPOCH web 5", "LB.SEED web 5"],
)
def test_what_only_changes_a_backend_ends_no_lease_of_it(lb, command):
    leased = lb("LB.PICK web COUNT 10 LEASE 500")
    of_a = [id for backend, id in leased if backend == "a"]
    lb(command)
    assert ids(lb, "BACKEND a") == of_a
    assert [lb(f"LB.DONE web {id}") for id in of_a] == [1] * len(of_a)
    assert stats(lb, "a")["done"] == len(of_a)


def test_down_ends_only_what_runs_there_now(lb):
    lb("LB.STATE web a down")
    lb("LB.STATE web a up")
    assert lb(f"LB.DONE web {lease(lb, 'EXCLUDE 2 b c')}") == 1


def test_stats_tell_how_leases_ended(lb):
    leased = [lease(lb, "EXCLUDE 2 b c") for _ in range(7)]
    for id, how in zip(
        leased, ["", "OK", "FAIL", "LATENCY 100", "fail latency 201", "LATENCY 0 OK"], strict=False
    ):
        assert lb(f"LB.DONE web {id} {how}") == 1
    # (100 + 201 + 0) / 3
    assert stats(lb, "a") == {"leases": 1, "done": 6, "failures": 2, "expired": 0, "latency-us": 100}
    lb("LB.TICK web 9000")
    assert stats(lb, "a") == {"leases": 0, "done": 6, "failures": 2, "expired": 1, "latency-us": 100}
    assert stats(lb, "b") == {"leases": 0, "done": 0, "failures": 0, "expired": 0, "latency-us": 0}
    assert dict_of(lb("LB.STATS web a"))["picks"] == 7


def test_latencies_saturate(lb):
    done = """
        for _ = 1, 9000 do
            local leased = redis.call('LB.PICK', KEYS[1], 'EXCLUDE', 2, 'b', 'c', 'LEASE', 9)
            redis.call('LB.DONE', KEYS[1], leased[2], 'LATENCY', ARGV[1])
        end
    """
    lb("EVAL", done, 1, "web", 2**50)
    assert stats(lb, "a")["done"] == 9000
    # 2^63 - 1 is the largest sum that there is.
    assert stats(lb, "a")["latency-us"] == (2**63 - 1) // 9000
    assert lb("DEBUG RELOAD") == "OK"


# Ids


def more(client, keys, granted):
    """Three leases more from each of these pools."""
    for key in keys:
        granted += [id for _, id in client.execute_command("LB.PICK", key, "COUNT", 3, "LEASE", 60_000)]


def assert_no_id_twice(granted):
    twice = [id for id, times in Counter(granted).items() if times > 1]
    assert not twice, f"{twice} of {granted}"


def test_no_id_comes_again_whatever_becomes_of_a_pool(server):
    granted = []
    with server.client() as client, server.client(decode_responses=False) as raw:
        for _ in range(2):
            client.execute_command("LB.ADD web a 1 b 2")
            more(client, ["web"], granted)
            dump = raw.dump("web")
            client.copy("web", "copy")
            client.copy("copy", "copy-of-copy")
            for key in "first", "second", "third":
                raw.restore(key, 0, dump)
            keys = ["web", "copy", "copy-of-copy", "first", "second", "third"]
            more(client, keys * 2, granted)
            client.copy("web", "copy", replace=True)
            raw.restore("first", 0, raw.dump("second"), replace=True)
            client.rename("second", "third")
            more(client, ["web", "copy", "first", "third"], granted)
            assert client.execute_command("DEBUG RELOAD") == "OK"
            more(client, ["web", "copy", "first", "third"], granted)
            client.delete("web")
            client.execute_command("LB.ADD web a 1 b 2")
            more(client, ["web"], granted)
            client.execute_command("LB.REM web a b")
            client.execute_command("LB.ADD web a 1 b 2")
            more(client, ["web"], granted)
            client.move("web", 1)
            client.swapdb(0, 1)
            more(client, ["web"], granted)
            client.flushall()
    assert_no_id_twice(granted)


@pytest.mark.parametrize("fsync", ["everysec", "no", None])
def test_no_id_comes_again_when_the_end_of_the_stream_is_lost(new_server, fsync):
    """A killed server comes back without its last leases: out of an old RDB file, or of a shorter AOF."""
    options = {"appendonly": "yes", "appendfsync": fsync} if fsync else {}
    server = new_server(**options)
    granted = []
    with server.client() as client:
        client.execute_command("LB.ADD web a 1 b 2")
    for _ in range(3):
        with server.client() as client:
            more(client, ["web"], granted)
            if not fsync:
                client.save()
            aof = [*server.folder.glob("**/*.aof")]
            sizes = {path: path.stat().st_size for path in aof}
            before = len(client.execute_command("LB.LEASES web"))
            more(client, ["web", "web"], granted)
        server.kill()
        # As if they had not been written yet.
        for path, size in sizes.items():
            with path.open("ab") as file:
                file.truncate(size)
        server.start()
        with server.client() as client:
            assert len(client.execute_command("LB.LEASES web")) <= before, "nothing was lost"
    with server.client() as client:
        more(client, ["web"], granted)
    assert_no_id_twice(granted)


def test_no_id_comes_again_after_restarts_and_kills(new_server):
    granted = []
    server = new_server(appendonly="yes", appendfsync="everysec")
    with server.client() as client:
        client.execute_command("LB.ADD web a 1 b 2")
    for restart in [server.restart, server.kill, server.restart, server.kill]:
        with server.client() as client:
            more(client, ["web"] * 20, granted)
        restart()
        if not server.alive():
            server.start()
    with server.client() as client:
        more(client, ["web"], granted)
    assert_no_id_twice(granted)


def test_no_id_comes_again_when_primaries_change(new_server):
    """Both go on from the same state, and so from the same number; then they change places, and again."""
    one = new_server()
    two = new_server(**replica_of(one))
    granted = []
    with one.client() as here, two.client() as there:
        here.execute_command("LB.ADD web a 1 b 2")
        for _ in range(3):
            more(here, ["web"], granted)
            eventually(lambda: is_linked(two))
            assert here.wait(1, 10_000) == 1
            there.replicaof("NO", "ONE")
            for client in (here, there, here, there):
                more(client, ["web"], granted)
            here.replicaof("127.0.0.1", two.port)
            eventually(lambda: is_linked(one))
            more(there, ["web"], granted)
            assert there.wait(1, 10_000) == 1
            here.replicaof("NO", "ONE")
            for client in (here, there):
                more(client, ["web"], granted)
            there.replicaof("127.0.0.1", one.port)
    assert_no_id_twice(granted)


def test_no_id_comes_again_where_a_replica_takes_writes(new_server):
    """Such a replica grants leases of its own. An epoch that comes through the stream is not its own."""
    primary = new_server()
    replica = new_server(**replica_of(primary), replica_read_only="no")
    granted = []
    with primary.client() as here, replica.client() as there:
        here.execute_command("LB.ADD web a 1 b 2")
        eventually(lambda: is_linked(replica))
        assert here.wait(1, 10_000) == 1
        more(there, ["web"], granted)
        more(here, ["web"], granted)
        assert here.wait(1, 10_000) == 1
        for client in (there, here, there, here):
            more(client, ["web"], granted)
        # Nor is one that a client opens.
        for client in (here, there):
            for _ in range(2):
                client.execute_command("LB.EPOCH web 7")
                more(client, ["web"], granted)
    assert_no_id_twice(granted)


def test_no_id_comes_again_where_a_pool_is_moved_to_and_back(server, new_server):
    other = new_server()
    granted = []
    with server.client() as here, other.client() as there:
        here.execute_command("LB.ADD web a 1 b 2")
        for _ in range(3):
            more(here, ["web"], granted)
            assert here.migrate("127.0.0.1", other.port, "web", 0, 10_000, copy=True, replace=True) == "OK"
            for client in (here, there, here, there):
                more(client, ["web"], granted)
            assert there.migrate("127.0.0.1", server.port, "web", 0, 10_000, replace=True) == "OK"
            more(here, ["web"], granted)
    assert_no_id_twice(granted)


# Going on elsewhere


@pytest.mark.parametrize(("way", "options"), WAYS.values(), ids=WAYS)
def test_a_lease_outlives_the_process(new_server, way, options):
    server = new_server(module_args=["clock", "manual"], **options)
    with server.client() as client:
        lb = client.execute_command
        lb("LB.ADD web a 5 b 3 c 2")
        lb("LB.TICK web 1000")
        lb("LB.PICK web COUNT 6 LEASE 500 OWNER o")
        lb("LB.EPOCH web 7")
        lb("LB.PICK web COUNT 6 LEASE 900")
        before = leases(lb)
    for _ in range(2):
        way(server)
    with server.client() as client:
        lb = client.execute_command
        assert leases(lb) == before
        first, second, *rest = [told["lease"] for told in before]
        last = rest.pop()
        assert (lb(f"LB.DONE web {first}"), lb(f"LB.RENEW web {second} 100"), lb(f"LB.DONE web {last}")) == (
            1,
            1,
            1,
        )
        lb("LB.TICK web 1110")
        assert ids(lb) == rest
        assert lb("LB.RELEASE web OWNER o") == 4


@pytest.mark.parametrize("way", ["COPY", "DUMP", "replica"])
def test_a_lease_is_known_by_its_id_wherever_its_pool_goes(new_server, way):
    server = new_server()
    with server.client() as client, server.client(decode_responses=False) as raw:
        lb = client.execute_command
        lb("LB.ADD web a 5 b 3 c 2")
        held = [id for _, id in lb("LB.PICK web COUNT 6 LEASE 600000")]
        where, key = server, "twin"
        if way == "COPY":
            client.copy("web", "twin")
        elif way == "DUMP":
            raw.restore("twin", 0, raw.dump("web"))
        else:
            where, key = new_server(**replica_of(server)), "web"
            eventually(lambda: is_linked(where))
            where.client().replicaof("NO", "ONE")
    with where.client() as client, server.client() as original:
        assert ids(client.execute_command, key=key) == held
        assert [client.execute_command("LB.DONE", key, id) for id in held] == [1] * 6
        # They live on their own.
        assert ids(original.execute_command) == held


def test_leases_in_a_copy_end_by_their_deadline_as_their_holders_know_nothing_of_it(lb):
    lb("LB.LIMIT web MAX 3")
    held = [id for _, id in lb("LB.PICK web rr COUNT 3 LEASE 500")]
    lb("COPY web twin")
    assert [lb(f"LB.DONE web {id}") for id in held] == [1, 1, 1]
    assert lb("LB.LEASES web") == []
    assert (ids(lb, key="twin"), lb("LB.PICK twin")) == (held, None)
    lb("LB.TICK twin 1509")
    assert ids(lb, key="twin") == held
    lb("LB.TICK twin 1510")
    assert lb("LB.LEASES twin") == []
    told = {backend: dict_of(of) for backend, of in dict_of(lb("LB.STATS twin")).items()}
    assert {backend: (of["expired"], of["done"]) for backend, of in told.items()} == dict.fromkeys(
        "abc", (1, 0)
    )


def test_whoever_follows_has_the_same_leases_at_any_time(new_server):
    """On the servers' own clock, with leases that run out and rates that fill up amid the traffic.

    One replica has no clock but the stream's; another server reads the AOF so.
    """
    primary = new_server(appendonly="yes", appendfsync="always")
    manual = {"module_args": ["clock", "manual"]}
    followers = [new_server(**replica_of(primary)), new_server(**manual, **replica_of(primary))]
    eventually(lambda: all(map(is_linked, followers)))
    chance = random.Random(3)
    with Wire(primary.port) as wire:
        for command in TRAFFIC_BEGINS:
            assert not isinstance(wire.ask(command), Refused)
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            batch = [chance.choice(TRAFFIC) for _ in range(chance.randrange(1, 30))]
            wire.send(b"".join(pack(words(command)) for command in batch))
            replies = [wire.read() for _ in batch]
            for _, id in [reply for reply in replies if isinstance(reply, list) and len(reply) == 2]:
                if isinstance(id, bytes) and chance.random() < 0.5:
                    wire.ask([b"LB.DONE", b"web", id])
            time.sleep(chance.choice([0, 0.001, 0.02]))

        def digest(server):
            with Wire(server.port) as wire:
                return wire.ask("DEBUG DIGEST-VALUE web")

        def is_over():
            return wire.ask("LB.LEASES web") == []

        def is_followed():
            # The primary may tick by itself meanwhile.
            return {str(digest(server)) for server in [*followers, primary]} == {str(digest(primary))}

        eventually(is_over)
        eventually(is_followed)
        for command in ["MULTI", "DEBUG DIGEST-VALUE web", "CLIENT PAUSE 60000 WRITE"]:
            wire.ask(command)
        last, paused = wire.ask("EXEC")
        # Nobody ticks any more.
        assert paused == "OK"
        primary.kill()
    read_again = new_server(folder=primary.folder, appendonly="yes", **manual)
    assert digest(read_again) == last


TRAFFIC_BEGINS = ["LB.ADD web a 5 b 3 c 2 d 1 e 1", "LB.LIMIT web BACKEND a MAX 9 RATE 3 7 BURST 5"]
TRAFFIC_BEGINS += ["LB.LIMIT web BACKEND b RATE 300 1000", "LB.LIMIT web BACKEND d TIER 1 RATE 1 11"]
TRAFFIC_BEGINS += ["LB.LIMIT web BACKEND e TIER 2 MAX 40", "LB.LIMIT web MAX 90 RATE 9 10 BURST 70"]
TRAFFIC = [f"LB.PICK web {algorithm} LEASE {ms}" for algorithm in ALGORITHMS for ms in (1, 20, 100)]
TRAFFIC += [
    "LB.PICK web",
    "LB.PICK web COUNT 3 LEASE 15 OWNER short",
    "LB.PICK web rr EXCLUDE 2 a b LEASE 40",
]
TRAFFIC += [
    "LB.RELEASE web OWNER short",
    "LB.WEIGHT web a 5 b 3",
    "LB.ADD web f",
    "LB.REM web f",
    "LB.STATE web c up",
]
TRAFFIC += ["LB.LIMIT web BACKEND c RATE 5 30", "LB.LIMIT web BACKEND c RATE 0 0", "LB.STATE web c down"]


# What they cost

MILLION = 1_000_000


def grant(wire, key, number):
    """So many leases, and none of the replies. In a new pool they have the ids 7-1, 7-2 and so on."""
    wire.ask(f"LB.ADD {key} a 5 b 3 c 2")
    wire.ask(f"LB.PICK {key} LEASE 1 OWNER opener")
    wire.ask(f"LB.RELEASE {key} OWNER opener")
    wire.ask(f"LB.EPOCH {key} 7")
    count = min(number, 10_000)
    commands = pack(words(f"LB.PICK {key} COUNT {count} LEASE 100000000 OWNER gateway")) * (number // count)
    wire.send(pack([b"CLIENT", b"REPLY", b"OFF"]) + commands + pack([b"CLIENT", b"REPLY", b"ON"]))
    assert wire.read() == "OK"
    assert len(wire.ask(f"LB.LEASES {key} COUNT {count}")) == count


def test_a_million_leases_take_64_bytes_each(server):
    with server.client() as client, Wire(server.port) as wire:
        before = used_when_empty(client)
        grant(wire, "web", MILLION)
        told = client.memory_usage("web", samples=0) / MILLION
        grown = (client.info("memory")["used_memory"] - before) / MILLION
        print(f"a lease takes {told:.1f} bytes by MEMORY USAGE, {grown:.1f} by used_memory")
        assert told <= 64 and grown <= 64
        # Nothing of them stays.
        assert client.execute_command("LB.RELEASE web OWNER gateway") == MILLION
        eventually(lambda: client.memory_usage("web", samples=0) < 8192)
        eventually(lambda: client.info("memory")["used_memory"] - before < 1_000_000)


def test_the_name_of_an_owner_is_kept_once(client):
    """However many leases it has. Nothing of it stays when they have ended."""
    lb = client.execute_command
    lb("LB.ADD web a 5 b 3 c 2")
    before = client.memory_usage("web", samples=0)
    owners = [f"{number:0512}" for number in range(100)]
    for owner in owners:
        lb("LB.PICK", "web", "COUNT", 100, "LEASE", 10**9, "OWNER", owner)
    # What each name takes beside its bytes: an entry in a table, a list, and what an allocator rounds up.
    assert client.memory_usage("web", samples=0) - before <= 10_000 * 64 + 100 * (512 + 256)
    assert sum(lb("LB.RELEASE", "web", "OWNER", owner) for owner in owners) == 10_000
    eventually(lambda: client.memory_usage("web", samples=0) < 8192)


@pytest.mark.skipif(callgrind.missing() is not None, reason="counts instructions by valgrind")
@pytest.mark.timeout(600)
@pytest.mark.once("instructions are counted on one server")
def test_lc_costs_little_among_many_backends(binary):
    """O(log n) a pick, and O(k log n) where the k least busy ones are passed over."""
    cost = {}
    with callgrind.Callgrind(binary, module(), ["clock", "manual"]) as server:
        with Wire(server.port) as wire:
            for backends in 100, 20_000:
                wire.ask(f"LB.ADD {backends} " + " ".join(f"b{n} {n % 7 + 1}" for n in range(backends)))
                wire.ask(f"LB.PICK {backends} random COUNT 10000 LEASE 100000000")
                for k in 0, 10, 50:
                    idle = wire.ask(f"LB.PEEK {backends} lc COUNT {k} DISTINCT") if k else []
                    exclude = " ".join([f"EXCLUDE {k}", *(name.decode() for name in idle)]) if k else ""
                    grant = f"LB.PICK {backends} lc {exclude} LEASE 100000 OWNER me"
                    cost[backends, k] = server.cost([grant, f"LB.RELEASE {backends} OWNER me"], 128)
    print(cost)
    for k in 0, 10, 50:
        assert cost[20_000, k] <= 2 * cost[100, k], cost
    for backends in 100, 20_000:
        assert cost[backends, 50] <= 5 * cost[backends, 10], cost


@pytest.mark.skipif(callgrind.missing() is not None, reason="counts instructions by valgrind")
@pytest.mark.timeout(600)
@pytest.mark.once("instructions are counted on one server")
def test_a_million_open_leases_cost_a_command_little(binary):
    """At most twice the instructions that it takes with ten."""
    with callgrind.Callgrind(binary, module(), ["clock", "manual"]) as server:
        cost = {}
        with Wire(server.port) as wire:
            for key, leases in [("few", 10), ("many", MILLION)]:
                grant(wire, key, leases)
                cost[key] = costs(server, wire, key, leases)
        for command, instructions in cost["many"].items():
            print(f"{command}: {cost['few'][command]:.0f} with ten, {instructions:.0f} with a million")
            assert instructions <= 2 * cost["few"][command], command


def costs(server, wire, key, leases):
    """The instructions of each command with so many open leases. What is granted by them is ended by them."""
    cost = {"a pick": server.cost([f"LB.PICK {key}"], 128)}
    for algorithm in ["wrr", "lc", "p2c"]:
        granted = f"LB.PICK {key} {algorithm} LEASE 100000 OWNER me"
        cost[f"a lease by {algorithm} and its end"] = server.cost(
            [granted, f"LB.RELEASE {key} OWNER me"], 128
        )
    cost["LB.RENEW"] = server.cost([f"LB.RENEW {key} 7-1 50000", f"LB.RENEW {key} 7-1 500000000"], 128)

    for look in [f"LB.PEEK {key} lc", f"LB.LEASES {key} COUNT 10", f"LB.STATS {key} a", f"LB.WHEN {key}"]:
        cost[look.replace(key, "key")] = server.cost([look], 128)

    def done(numbers):
        wire.send(b"".join(pack(words(f"LB.DONE {key} 7-{number}")) for number in numbers))
        assert all(wire.read() for _ in numbers)

    # These are from anywhere among those that are open, of which there are few more than ten, or many.
    fresh = wire.ask(f"LB.PICK {key} COUNT 100 LEASE 100000")
    numbers = (
        [int(id.partition(b"-")[2]) for _, id in fresh] if leases < 100 else range(9, leases, leases // 100)
    )
    twice, once = numbers[:60], numbers[60:90]
    counted = [server._instructions(wire, lambda some=some: done(some)) for some in (twice, once)]
    cost["LB.DONE"] = (counted[0] - counted[1]) / 30

    # One after another ends by its deadline.
    for number in range(1, 91):
        wire.ask(f"LB.PICK {key} LEASE {10 * number}")

    def tick(numbers):
        wire.send(b"".join(pack(words(f"LB.TICK {key} {10 * number + 10}")) for number in numbers))
        assert all(wire.read() == "OK" for _ in numbers)

    counted = [
        server._instructions(wire, lambda some=some: tick(some)) for some in (range(1, 61), range(61, 91))
    ]
    cost["the end of a lease by its deadline"] = (counted[0] - counted[1]) / 30
    return cost
