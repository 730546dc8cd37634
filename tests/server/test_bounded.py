"""No command does unbounded work for others (version 2 of the rules): LB.TICK clears what is over, a thousand
things each time. Until then it is counted.
"""

import random
import shutil
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

import pytest
import redis

import callgrind
from conftest import module
from memory import used_memory
from persistence import AOF, WAYS, stream
from pools import Pools
from replication import in_step, is_linked, replica_of
from server import eventually, waiting
from waiter import Waiter, leases
from wire import Refused, dict_of, pack, words

OVER = 5000
BUDGET = 1000

# A pool with 5,000 leases on `a` until 1510, and one on `b` that stays open.
MAKE = [
    "LB.ADD web a 1 b 1",
    "LB.RULES web 2",
    "LB.SEED web 1",
    "LB.TICK web 1000",
    f"LB.PICK web COUNT {OVER} EXCLUDE 1 b LEASE 500 OWNER o",
    "LB.PICK web EXCLUDE 1 a LEASE 1000000 OWNER stays",
]
# The ways in which those on `a` are over.
WAYS_TO_END = {
    "RELEASE": "LB.RELEASE web OWNER o",
    "down": "LB.STATE web a down",
    "REM": "LB.REM web a",
    "SET": "LB.SET web b 1 c 1",
    "deadline": "LB.TICK web 2000",
}
# Leases of all kinds and 3,000 buckets: of each 1,000 to 2,000 things, which are over at 2000.
MIXED = [
    "LB.ADD web a 1 b 1 gone 1",
    "LB.RULES web 2",
    "LB.SEED web 1",
    "LB.TICK web 1000",
    " ".join(["LB.ADD web", *(f"r{n} 1" for n in range(3000))]),
    *(f"LB.LIMIT web BACKEND r{n} RATE 1 500" for n in range(3000)),
    "LB.PICK web rr COUNT 10000",
    "LB.LIMIT web MAX 9000",
    " ".join(["LB.WEIGHT web", *(f"r{n} 0" for n in range(3000))]),
    "LB.PICK web EXCLUDE 2 b gone COUNT 2000 LEASE 100 OWNER o",
    "LB.PICK web EXCLUDE 2 b gone COUNT 1000 LEASE 700000",
    "LB.PICK web EXCLUDE 2 a gone COUNT 1500 LEASE 500000 OWNER o",
    "LB.PICK web EXCLUDE 2 a gone COUNT 700 LEASE 500000 OWNER p",
    "LB.PICK web EXCLUDE 2 a b COUNT 1500 LEASE 500000 OWNER o",
    "LB.REM web gone",
    "LB.RELEASE web OWNER o",
    "LB.STATE web a down",
    "LB.STATE web a up",
    "LB.PICK web EXCLUDE 1 b LEASE 1000000 OWNER o",
    "LB.TICK web 2000",
]


def listed(pools, words):
    """The leases that LB.LEASES lists."""
    return [dict_of(told) for told in pools.ask(f"LB.LEASES {words}")]


def make(pools, commands):
    """Sends commands in one piece, none of which is refused."""
    pools.send(b"".join(pack(words(command)) for command in commands))
    for command in commands:
        answer = pools.read()
        assert not isinstance(answer, Refused), f"{command}: {answer}"


def make_quietly(pools, commands):
    """The same, without the replies."""
    packed = [pack(words(command)) for command in ("CLIENT REPLY OFF", *commands, "CLIENT REPLY ON")]
    pools.send(b"".join(packed))
    assert pools.read() == "OK"


@pytest.fixture
def pools(manual):
    with Pools(manual) as pools:
        yield pools


# What a tick clears, and what counts until then


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_a_tick_clears_a_thousand(pools, way):
    pools.make(MAKE)
    first, last = (listed(pools, "web OWNER o")[place][b"lease"] for place in (0, -1))
    begun = pools.ask(WAYS_TO_END[way])
    assert begun == {"RELEASE": OVER, "REM": 1, "SET": 2}.get(way, "OK")
    left = OVER - BUDGET if way == "deadline" else OVER
    clock = 2000 if way == "deadline" else 1000
    while left:
        assert leases(pools, "web") == left + 1
        for id in first, last:
            assert pools.ask([b"LB.DONE", b"web", id]) == pools.ask([b"LB.RENEW", b"web", id, b"9"]) == 0
        assert pools.ask("LB.RELEASE web OWNER nobody") == 0
        told = listed(pools, "web OWNER o")
        assert len(told) == (0 if way in ("REM", "SET") else left)
        assert {entry[b"remaining"] for entry in told} <= {0}
        # A tick to an earlier time clears nothing.
        pools.make(["LB.TICK web 999"])
        assert leases(pools, "web") == left + 1
        pools.make([f"LB.TICK web {clock}"])
        left -= BUDGET
    assert leases(pools, "web") == 1
    expired = dict_of(pools.ask("LB.STATS web a") or {}).get(b"expired")
    assert expired == (None if way in ("REM", "SET") else OVER if way == "deadline" else 0)


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_what_is_over_counts_until_it_is_cleared(pools, way):
    """So no more are granted than MAX allows. When all is cleared, as many are."""
    pools.make([*MAKE, f"LB.LIMIT web MAX {OVER + 1}", WAYS_TO_END[way], "LB.ADD web more 1"])
    clock = 2000 if way == "deadline" else 1000
    granted = []
    while sum(granted) < OVER:
        free = OVER + 1 - leases(pools, "web")
        granted.append(len(pools.ask("LB.PICK web COUNT 10000 LEASE 60000")))
        assert granted[-1] == free
        # The next tick may help. It comes with the next step of the clock, at the latest.
        reason, millis = pools.ask("LB.WHEN web")
        assert reason == b"limited" and (millis == 10) == (sum(granted) < OVER)
        pools.make([f"LB.TICK web {clock}"])
    # By a deadline one tick more has cleared some: that with which it came.
    assert granted == [0] * (way != "deadline") + [BUDGET] * (OVER // BUDGET)


def test_marks_are_cleared_in_the_order_in_which_they_were_made(pools):
    """Behind the leases that are due, and behind the buckets. The first tick was in the list of commands."""
    make(pools, MIXED)
    counts = []
    for _ in range(10):
        of_a, of_b = (dict_of(pools.ask(f"LB.STATS web {name}"))[b"leases"] for name in "ab")
        counts.append((leases(pools, "web"), of_a, of_b))
        pools.make(["LB.TICK web 2000"])
    due = [(5701, 2001, 2200)]
    buckets = [(4701, 1001, 2200)] * 4
    # `gone` first, then `o` on `b`, then `a`.
    marks = [(3701, 1001, 2200), (2701, 1001, 1700), (1701, 1001, 700), (701, 1, 700)]
    assert counts == [*due, *buckets, *marks, marks[-1]]


# In the middle of it


def trace(pools, key):
    """Ticks at one time until nothing is over: what the pool comes to after each."""
    digests = pools.digest(key)
    for _ in range(20):
        pools.ask([b"LB.TICK", key, b"2000"])
        digests += pools.digest(key)
    return digests


def in_the_middle(pools, commands, ticks):
    """Makes a pool `web` in which that many ticks have cleared, and a twin that tells what becomes of it."""
    make(pools, [*commands, *["LB.TICK web 2000"] * ticks])
    assert pools.ask("COPY web twin REPLACE") == 1
    expected = trace(pools, b"twin")
    assert len(set(expected[:3])) == 3, "it was not in the middle"
    assert len(set(expected)) < len(expected), "it is never over"
    return expected


KINDS = {way: [*MAKE, command] for way, command in WAYS_TO_END.items()} | {"mixed": MIXED}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("ticks", [0, 1, 2])
def test_a_copy_goes_on_as_the_original(pools, kind, ticks):
    expected = in_the_middle(pools, KINDS[kind], ticks)
    pools.make(
        ["COPY web copied", [b"RESTORE", b"restored", b"0", pools.ask("DUMP web")], "RENAME web other"]
    )
    for key in b"other", b"copied", b"restored":
        assert trace(pools, key) == expected


@pytest.mark.parametrize("way", WAYS)
def test_a_server_goes_on_where_it_was(new_server, way):
    come_back, options = WAYS[way]
    server = new_server(module_args=["clock", "manual"], **options)
    pools = Pools(server)
    expected = in_the_middle(pools, MIXED, 1)
    for again in range(3):
        assert expected[again:] == [*pools.digest(b"web"), *expected[again + 1 :]]
        come_back(server)
        pools = Pools(server)
        assert pools.digest(b"web") == [expected[again]]
        pools.make(["LB.TICK web 2000"])
    assert trace(pools, b"web")[: len(expected) - 3] == expected[3:]


def test_a_replica_goes_on_where_it_joined(new_server):
    start = {"module_args": ["clock", "manual"], **AOF}
    primary = new_server(**start)
    pools = Pools(primary)
    expected = in_the_middle(pools, MIXED, 1)
    chain = [primary]
    for place in range(3):
        chain.append(new_server(**start, **replica_of(chain[-1])))
        eventually(lambda: is_linked(chain[-1]))
        assert pools.digest(b"web") == [expected[place]]
        pools.make(["LB.TICK web 2000"])
    in_step(chain)
    for server in chain:
        assert Pools(server).digest(b"web") == [expected[3]]
    assert trace(pools, b"web")[:-3] == expected[3:]
    in_step(chain)
    for server in chain:
        assert Pools(server).digest(b"web") == expected[-1:]
        server.restart()
        assert Pools(server).digest(b"web") == expected[-1:]


# By the real clock

# The same as above, in a pool whose clock is the server's.
MAKE_NOW = [
    "LB.ADD web a 1 b 1",
    f"LB.PICK web COUNT {OVER} EXCLUDE 1 b LEASE 600000 OWNER o",
    "LB.PICK web EXCLUDE 1 a LEASE 1000000 OWNER stays",
]
AT_ONCE = {way: command for way, command in WAYS_TO_END.items() if way != "deadline"}


@pytest.mark.parametrize("way", AT_ONCE)
def test_all_is_cleared_by_itself_wherever_the_pool_went(server, way, binary):
    if binary.kind == "valkey" and binary.version < (9, 1, 2):
        pytest.skip("on Valkey 8.1 to 9.1.1 the module does not listen to events")
    with Pools(server) as pools:
        make(pools, MAKE_NOW)
        make(pools, ["MULTI", AT_ONCE[way], "COPY web copied", "LB.INFO web", "DUMP web"])
        make(pools, ["DEBUG DIGEST-VALUE web copied", "RENAME web other", "LB.INFO copied"])
        *_, info, dump, digests, _, copied = pools.ask("EXEC")
        # The command and the copy stand in one transaction: so nothing was cleared between them.
        assert dict_of(info)[b"leases"] == dict_of(copied)[b"leases"] == OVER + 1
        assert digests[0] == digests[1]
        make(pools, [[b"RESTORE", b"restored", b"0", dump]])
        for key in "other", "copied", "restored":
            eventually(lambda key=key: leases(pools, key) == 1)


def test_replicas_and_files_follow_while_all_is_being_cleared(new_server):
    """Replicas join, and the AOF is rewritten, while thousands of leases begin and are over all the time."""
    primary = new_server(appendonly="yes")
    stop = Event()
    chance = random.Random(1)

    def work():
        with Pools(primary) as pools:
            make(pools, ["LB.ADD web a 1 b 1 c 1"])
            while not stop.is_set():
                name = chance.choice("abc")
                granted = [
                    f"LB.PICK web COUNT {chance.randrange(1, 6000)} LEASE {span}" for span in (20, 9000)
                ]
                over = ["LB.RELEASE web OWNER o", f"LB.STATE web {name} down", f"LB.REM web {name}"]
                back = ["LB.ADD web a", "LB.ADD web b", "LB.ADD web c", f"LB.STATE web {name} up"]
                make(pools, [f"{granted[0]} OWNER o", *granted, chance.choice(over), *back])

    worker = Thread(target=work)
    worker.start()
    try:
        with ExitStack() as stack:
            stack.callback(worker.join)
            stack.callback(stop.set)
            chain = [primary]
            for _ in range(2):
                chain.append(new_server(appendonly="yes", **replica_of(chain[-1])))
                eventually(lambda: is_linked(chain[-1]))
                # The server may have begun one by itself.
                with suppress(redis.ResponseError):
                    primary.client().bgrewriteaof()
                eventually(lambda: not primary.client().info("persistence")["aof_rewrite_in_progress"])
        with Pools(primary) as pools:
            # No grant is left. What is over is gone without a further command.
            make(pools, [f"LB.STATE web {name} down" for name in "abc"])
            eventually(lambda: leases(pools, "web") == 0)
            in_step(chain)
            expected = pools.digest(b"web")
        for server in chain:
            assert Pools(server).digest(b"web") == expected
        for server in chain:
            # SIGTERM would wait for replicas.
            server.kill()
            server.start()
            with Pools(server) as pools:
                assert leases(pools, "web") == 0
                assert pools.digest(b"web") == expected
    finally:
        stop.set()


def test_no_count_is_too_low_and_none_above_max(server):
    """Held against the leases that one client knows to be open, while more are over than a tick clears."""
    chance = random.Random(2)
    most, of_a = 6000, 3000
    held: dict[bytes, tuple] = {}
    with Pools(server) as pools:
        make(pools, ["LB.ADD web a 1 b 1", f"LB.LIMIT web MAX {most}", f"LB.LIMIT web BACKEND a MAX {of_a}"])
        counted_more, over = 0, ["PING"]
        for _ in range(60):
            owner, name = chance.choice("op"), chance.choice("ab")
            # In one piece, so that the timer has not cleared all before we look.
            pick = f"LB.PICK web COUNT 4000 LEASE 600000 OWNER {owner}"
            first, *_, answers, stats, info = pools.ask_all(*over, pick, "LB.STATS web", "LB.INFO web")
            assert first in ("PONG", "OK") or first <= most
            held |= {id: (backend.decode(), owner) for backend, id in answers}
            stats, total = dict_of(stats), dict_of(info)[b"leases"]
            counted = {name: dict_of(told)[b"leases"] for name, told in stats.items()}
            assert total <= most and counted[b"a"] <= of_a
            for backend in "ab":
                open_here = sum(backend == on for on, _ in held.values())
                assert counted[backend.encode()] >= open_here
            counted_more += total > len(held)
            if chance.random() < 0.5:
                over = [f"LB.RELEASE web OWNER {owner}"]
                gone = owner
            else:
                over = [f"LB.STATE web {name} down", f"LB.STATE web {name} up"]
                gone = name
            held = {id: of for id, of in held.items() if gone not in of}
        assert counted_more > 10, "nothing was over"


# Who waits

AT_ONCE_OR_LATER = AT_ONCE | {"deadline": "PING"}


@pytest.mark.parametrize("way", AT_ONCE_OR_LATER)
def test_who_waits_is_served_at_once(server, way):
    """One tick follows the other, until 5,000 leases are cleared. A busy machine gets more rounds."""
    late = []
    for _ in waiting(60):
        with Pools(server) as pools:
            make(pools, ["FLUSHALL", *MAKE_NOW, "LB.ADD web c 1", f"LB.LIMIT web MAX {OVER + 1}"])
            others = [Waiter(server, "LB.PICK web EXCLUDE 1 a LEASE 600000 BLOCK 0") for _ in range(9)]
            if way == "deadline":
                ids = [entry[b"lease"] for entry in listed(pools, "web OWNER o")]
                begun = time.monotonic() + 0.3
                make(pools, ["MULTI", *([b"LB.RENEW", b"web", id, b"300"] for id in ids), "EXEC"])
            else:
                begun = time.monotonic()
                make(pools, [AT_ONCE_OR_LATER[way]])
            for waiter in others:
                assert waiter.read()[0] in (b"b", b"c")
            late.append(time.monotonic() - begun)
            eventually(lambda: leases(pools, "web") == 10)
        if late[-1] < 0.2:
            break
    else:
        raise AssertionError(f"late by {late} s")
    print(f"{way}: served within {1000 * late[-1]:.0f} ms")


def test_who_waits_is_served_in_turn_while_all_is_cleared(server):
    """The places that come free go to those who wait, before one who comes later."""
    with Pools(server) as pools:
        make(pools, [*MAKE_NOW, f"LB.LIMIT web MAX {OVER + 1}"])
        first = [Waiter(server, "LB.PICK web LEASE 600000 BLOCK 0") for _ in range(5)]
        make(pools, ["MULTI", "LB.RELEASE web OWNER o", "LB.PICK web LEASE 600000"])
        # Nothing is cleared when the pick comes. It ticks, and the waiters are served before it.
        released, (_, newcomer) = pools.ask("EXEC")
        numbers = [
            int(id.partition(b"-")[2]) for _, id in (*(waiter.read() for waiter in first), (0, newcomer))
        ]
        assert released == OVER and numbers == sorted(numbers)


# Rules

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "0.2.1"


def rules(pools, key):
    return dict_of(pools.ask([b"LB.INFO", key]))[b"rules-version"]


@pytest.mark.parametrize(("file", "as_file"), [("dump.rdb", "dump.rdb"), ("stream.aof", "appendonly.aof")])
def test_a_pool_with_leases_keeps_the_rules_that_it_had(new_server, tmp_path, file, as_file):
    """After an upgrade: other nodes may still run it by those. Its first lease gives a pool the newest."""
    shutil.copy(GOLDEN / file, tmp_path / as_file)
    server = new_server(folder=tmp_path, appendonly="yes" if file == "stream.aof" else "no")
    pools = Pools(server)
    for key, before, after in [(b"busy", 1, 1), (b"limit", 1, 2), (b"web", 1, 2)]:
        assert rules(pools, key) == before
        make(pools, [[b"LB.ADD", key, b"x", b"1"], [b"LB.PICK", key], [b"LB.STATS", key]])
        assert rules(pools, key) == before
        make(pools, [[b"LB.LIMIT", key, b"RATE", b"0", b"0"], [b"LB.PICK", key, b"LEASE", b"600000"]])
        assert rules(pools, key) == after
        make(pools, [[b"LB.LIMIT", key, b"RATE", b"5", b"9"], [b"LB.PICK", key, b"LEASE", b"600000"]])
        assert rules(pools, key) == after
    # By version 1 what is released is gone at once.
    make(
        pools,
        ["LB.LIMIT busy MAX 0 RATE 0 0", "LB.ADD busy y 1", "LB.PICK busy COUNT 3000 LEASE 600000 OWNER new"],
    )
    before = leases(pools, "busy")
    make(pools, ["MULTI", "LB.RELEASE busy OWNER new", "LB.INFO busy"])
    assert dict_of(pools.ask("EXEC")[1])[b"leases"] == before - 3000


def test_rules_are_raised_once_and_never_lowered(new_server):
    server = new_server(module_args=["clock", "manual"], **AOF)
    pools = Pools(server)
    make(pools, ["LB.ADD web a 1", "LB.PICK web LEASE 9", "LB.RULES web 2"])
    digest = pools.digest(b"web")
    make(pools, ["LB.RULES web 2", "LB.RULES web 1", "LB.RULES none 2"])
    assert pools.digest(b"web") == digest and rules(pools, b"web") == 2
    assert pools.ask("EXISTS none") == 0
    assert [c for c in stream(server) if c[0] == b"LB.RULES"] == [[b"LB.RULES", b"web", b"2"]]


@pytest.mark.parametrize(
    "begin", ["LB.PICK web LEASE 600000", "LB.LIMIT web RATE 5 1000", "LB.LIMIT web BACKEND a RATE 5 9"]
)
def test_a_primary_writes_the_rules_before_what_needs_them(new_server, begin):
    """Once, and its replica follows."""
    primary = new_server(**AOF)
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    pools = Pools(primary)
    make(pools, ["LB.ADD web a 1", "LB.PICK web", "LB.LIMIT web MAX 9", "LB.LIMIT web RATE 0 0"])
    assert rules(pools, b"web") == 1
    make(pools, [begin, begin, "LB.PICK web LEASE 600000"])
    assert rules(pools, b"web") == 2
    in_step([primary, replica])
    written = stream(primary)
    assert written.count(rules_2 := [b"LB.RULES", b"web", b"2"]) == 1
    assert written.index(rules_2) < written.index(words(begin))
    # A tick that ends what is due can come between the two looks.
    eventually(lambda: Pools(replica).digest(b"web") == pools.digest(b"web"))


# Memory


@pytest.mark.parametrize("way", [way for way in [*WAYS_TO_END, "DONE"] if way != "SET"])
@pytest.mark.parametrize("owners", ["one owner", "an owner each"])
def test_the_memory_of_a_flood_comes_back(manual, way, owners):
    """While one lease stays open: at most twice as much as a pool takes that never had more, and 16 KiB."""
    flood = 200_000
    with manual.client() as client, Pools(manual) as pools:
        one = ["LB.PICK fresh EXCLUDE 1 a LEASE 1000000 OWNER stays"]
        make(pools, ["LB.ADD fresh a 1 b 1", "LB.RULES fresh 2", "LB.TICK fresh 1000", *one])
        needed, before = client.memory_usage("fresh", samples=0), used_memory(manual)
        make(pools, [*MAKE[:4], one[0].replace("fresh", "web"), "LB.EPOCH web 7"])
        if owners == "one owner":
            make_quietly(pools, ["LB.PICK web COUNT 10000 EXCLUDE 1 b LEASE 500 OWNER o"] * (flood // 10_000))
        else:
            make_quietly(pools, [f"LB.PICK web EXCLUDE 1 b LEASE 500 OWNER {n}" for n in range(flood)])
        assert client.memory_usage("web", samples=0) > 40 * flood
        if way == "DONE":
            numbers = random.Random(1).sample(range(1, flood + 1), flood)
            make_quietly(pools, [f"LB.DONE web 7-{number}" for number in numbers])
        elif way == "RELEASE" and owners != "one owner":
            make_quietly(pools, [f"LB.RELEASE web OWNER {n}" for n in range(flood)])
        else:
            make(pools, [WAYS_TO_END[way]])
        make(pools, ["LB.TICK web 2000"] * (flood // BUDGET))
        assert leases(pools, "web") == 1
        left, used = client.memory_usage("web", samples=0), used_memory(manual) - before
        print(f"{way}, {owners}: {needed} bytes needed, {left} left by MEMORY USAGE, {used} by used_memory")
        assert left <= 2 * needed + 16384
        eventually(lambda: used_memory(manual) - before <= 2 * needed + 262_144)


# What a single command costs

FEW, MANY = 3000, 300_000


def steps(server, pools, number):
    """The instructions of single commands in a pool where that number of leases is over by each way."""
    cost = {}

    def count(name, *commands):
        cost[name] = server._instructions(pools, lambda: make(pools, commands)) / len(commands)

    def grant(key, backend, number, ms=10**9):
        # All but the last ones in large portions, of which each is as long as its reply.
        others = [name for name in "abcd" if name != backend]
        pick = f"LB.PICK {key} EXCLUDE 3 {' '.join(others)} LEASE {ms} OWNER {backend}"
        make_quietly(pools, [pick.replace("LEASE", "COUNT 1000 LEASE")] * (number // 1000))
        return pick

    make(pools, ["FLUSHALL", "LB.ADD web a 1 b 1 c 1 d 1", "LB.RULES web 2", "LB.ADD due a 1 b 1 c 1 d 1"])
    make(pools, ["LB.RULES due 2", "LB.PICK web LEASE 1000000000", "LB.EPOCH web 7"])
    for backend in "abcd":
        one = grant("web", backend, number)
    # Tables grow with each power of two, or with some share of it.
    grant("web", "d", (1 << (4 * number).bit_length()) - 4 * number - 1000)
    left = (1 << (4 * number).bit_length()) - leases(pools, "web") - 20
    make_quietly(pools, [one] * left)
    count("a grant where tables grow", *[one] * 40)
    count("LB.RENEW", "LB.RENEW web 7-7 1000000")
    count("LB.DONE", "LB.DONE web 7-7")
    make(pools, ["LB.LIMIT web MAX 1"])
    count("LB.WHEN", "LB.WHEN web")
    make(pools, ["LB.LIMIT web MAX 0"])
    count("LB.RELEASE", "LB.RELEASE web OWNER a")
    count("LB.STATE down", "LB.STATE web b down")
    count("LB.REM", "LB.REM web c")
    count("a pick while all that is over", "LB.PICK web")
    count("LB.WHEN while all that is over", "LB.WHEN web")
    count("LB.DONE while all that is over", "LB.DONE web 7-9")
    count("LB.TICK, a thousand that have a mark", "LB.TICK web 0")
    grant("due", "a", number, 100)
    count("LB.TICK, a thousand that are due", "LB.TICK due 1000")
    count("a pick while all are due", "LB.PICK due")
    return cost


@pytest.mark.skipif(callgrind.missing() is not None, reason="counts instructions by valgrind")
@pytest.mark.timeout(600)
@pytest.mark.once("instructions are counted on one server")
def test_no_command_costs_more_where_more_leases_are_over(binary):
    """A hundred times as many: at most twice the instructions, for a logarithm and for luck."""
    with callgrind.Callgrind(binary, module(), ["clock", "manual"]) as server, Pools(server) as pools:
        few, many = (steps(server, pools, number) for number in (FEW, MANY))
    for name in few:
        print(f"{name}: {few[name]:,.0f} with {FEW:,} each, {many[name]:,.0f} with {MANY:,}")
    assert not [name for name in few if many[name] > 2 * few[name]]
