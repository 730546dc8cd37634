"""Whatever way a pool takes to another process or key, it arrives whole and goes on picking where it was."""

from functools import partial

import pytest

from persistence import AOF, WAYS, stream
from pools import KEYS, MAKE, MAKE_UNSEEDED, Pools
from replication import is_linked, replica_of
from server import SECONDS, eventually, waiting
from waiter import leases
from wire import Wire, words


@pytest.fixture
def start(new_server):
    """Starts servers in which only LB.TICK moves clocks: so all that have the same commands are the same."""
    return partial(new_server, module_args=["clock", "manual"])


def assert_same(one, other):
    """The pools of two servers are the same, and go on alike."""
    here, there = Pools(one), Pools(other)
    assert there.digest(*KEYS) == here.digest(*KEYS)
    assert there.picks(*KEYS) == here.picks(*KEYS)


# From one process to the next


@pytest.mark.parametrize(("way", "options"), WAYS.values(), ids=WAYS)
def test_pools_outlive_the_process(manual, start, way, options):
    other = start(**options)
    for each in manual, other:
        Pools(each).make(MAKE)
    # The second time what was loaded is written, and the AOF has a tail behind what was rewritten.
    for _ in range(2):
        way(other)
        assert_same(manual, other)


def test_an_aof_is_rewritten_to_one_command_for_each_pool(start):
    server = start(**AOF)
    Pools(server).make(MAKE)
    server.client().bgrewriteaof()
    whole = [(b"LB.LOAD", key) for key in sorted(KEYS)]
    eventually(lambda: sorted((name, key) for name, key, *_ in stream(server)) == whole)


# From one key to another


def restored(pools, key, twin):
    return pools.ask([b"RESTORE", twin, b"0", pools.ask([b"DUMP", key])])


def restored_over_another(pools, key, twin):
    pools.ask([b"LB.ADD", twin, b"x"])
    return pools.ask([b"RESTORE", twin, b"0", pools.ask([b"DUMP", key]), b"REPLACE"])


def copied(pools, key, twin):
    return pools.ask([b"COPY", key, twin])


@pytest.mark.parametrize("way", [restored, restored_over_another, copied])
def test_a_twin_is_the_same_and_lives_on_its_own(manual, way):
    pools = Pools(manual)
    pools.make(MAKE)
    for key in KEYS:
        twin = key + b"-twin"
        assert way(pools, key, twin) in ("OK", 1)
        before = pools.digest(key)
        assert pools.digest(twin) == before
        picked = pools.picks(twin)
        assert pools.digest(key) == before
        assert pools.picks(key) == picked


# From a primary to its replicas


def assert_followed(primary, *replicas):
    """The replicas come to have the pools of the primary; as primaries they pick what it picks."""
    expected = Pools(primary).digest(*KEYS)
    for replica in replicas:
        eventually(lambda replica=replica: Pools(replica).digest(*KEYS) == expected)
    for replica in replicas:
        replica.client().replicaof("NO", "ONE")
    picked = Pools(primary).picks(*KEYS)
    for replica in replicas:
        assert Pools(replica).picks(*KEYS) == picked


def test_replicas_that_were_there_before_follow(start):
    primary = start()
    replica = start(**replica_of(primary))
    second = start(**replica_of(replica))
    eventually(lambda: is_linked(replica) and is_linked(second))
    Pools(primary).make(MAKE_UNSEEDED)
    assert_followed(primary, replica, second)


def test_replicas_that_join_late_follow(start):
    primary = start()
    Pools(primary).make(MAKE_UNSEEDED)
    replica = start(**replica_of(primary))
    second = start(**replica_of(replica))
    eventually(lambda: is_linked(replica) and is_linked(second))
    Pools(primary).picks(*KEYS)
    assert_followed(primary, replica, second)


def test_a_replica_that_joins_amid_picks_follows(start):
    primary, replica = start(), start()
    pools = Pools(primary)
    pools.make(MAKE_UNSEEDED)
    replica.client().replicaof("127.0.0.1", primary.port)
    for _ in waiting(SECONDS, pause=0):
        pools.picks(*KEYS)
        if is_linked(replica):
            break
    pools.picks(*KEYS)
    assert_followed(primary, replica)


WRITES = [
    "LB.ADD web x",
    "LB.SET web x 1",
    "LB.REM web a",
    "LB.WEIGHT web a",
    "LB.WEIGHT web a 1",
    "LB.STATE web a",
]
WRITES += [
    "LB.STATE web a up",
    "LB.POLICY web",
    "LB.POLICY web rr",
    "LB.PICK web",
    "LB.PICK none",
    "LB.SEED web 1",
]
WRITES += ["LB.LOAD web x", "LB.PICK web LEASE 9", "LB.DONE busy 7-1", "LB.RENEW busy 7-1 9", "LB.LIMIT web"]
WRITES += ["LB.RELEASE busy OWNER o", "LB.LIMIT web MAX 9", "LB.TICK busy 9999", "LB.EPOCH busy 9"]
READS = [
    "LB.LIST web",
    "LB.CARD web",
    "LB.STATS web",
    "LB.STATS web a",
    "LB.PEEK web rr COUNT 9",
    "LB.PEEK large",
    "LB.PEEK busy lc COUNT 9",
    "LB.LEASES busy",
    "LB.LEASES busy BACKEND a OWNER o COUNT 2",
    "LB.STATS busy",
    "LB.WHEN busy",
    "LB.WHEN policy",
]


def test_a_replica_answers_reads_and_refuses_writes(start):
    primary = start()
    Pools(primary).make(MAKE)
    replica = start(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    here, there = Wire(primary.port), Wire(replica.port)
    assert {there.ask(command).code for command in WRITES} == {"READONLY"}
    assert [there.ask(command) for command in READS] == [here.ask(command) for command in READS]
    *described, _bytes, _, _costs, _ = here.ask("LB.INFO web")
    assert there.ask("LB.INFO web")[:-4] == described


# What goes into the stream, and who hears of it


def plainly(pools, command):
    return pools.ask(command)


def in_a_transaction(pools, command):
    pools.ask("MULTI")
    pools.ask(command)
    (answer,) = pools.ask("EXEC")
    return answer


def in_a_script(pools, command):
    name, key, *rest = words(command)
    script = b"return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"
    return pools.ask([b"EVAL", script, b"1", key, name, *rest])


@pytest.mark.parametrize("way", [plainly, in_a_transaction, in_a_script])
def test_the_stream_has_one_seed_and_every_pick_as_it_came(new_server, way):
    server = new_server(**AOF)
    pools = Pools(server)
    first, *more = [
        "LB.PICK web random COUNT 3",
        "LB.PICK web wrandom",
        "LB.PICK web",
        "LB.PICK web EXCLUDE 1 a",
    ]
    assert way(pools, "LB.ADD web a 5 b 1") == 2
    for command in [first, *more]:
        assert way(pools, command)
    added, seeded, *picked = stream(server)
    assert added == words("LB.ADD web a 5 b 1")
    assert seeded[:2] == [b"LB.SEED", b"web"]
    assert picked == [words(command) for command in [first, *more]]
    before = pools.digest(b"web")
    server.restart()
    assert Pools(server).digest(b"web") == before


@pytest.mark.parametrize("way", [plainly, in_a_transaction, in_a_script])
def test_the_stream_has_one_epoch_and_the_time_before_what_depends_on_it(new_server, way):
    server = new_server(**AOF)
    pools = Pools(server)
    leased = ["LB.PICK web LEASE 60000", "LB.PICK web COUNT 2 LEASE 60000 OWNER o", "LB.PICK web"]
    for command in ["LB.ADD web a 5 b 1", *leased * 3, "LB.RELEASE web OWNER o"]:
        assert way(pools, command)
    # The timer clears the leases that were released.
    with Wire(server.port) as wire:
        eventually(lambda: leases(wire, "web") == 3)
    written = stream(server)
    ticks = [command for command in written if command[0] == b"LB.TICK"]
    added, rules, epoch, *commands = [command for command in written if command[0] != b"LB.TICK"]
    assert (added, rules) == (words("LB.ADD web a 5 b 1"), words("LB.RULES web 2"))
    assert epoch[:2] == [b"LB.EPOCH", b"web"]
    assert commands == [words(command) for command in [*leased * 3, "LB.RELEASE web OWNER o"]]
    assert written[2] == ticks[0], "the first lease begins to run in the year 1970"
    assert ticks[0][:2] == [b"LB.TICK", b"web"]
    # The ticks behind the release clear its leases, and need no step of their own.
    released = written.index(words("LB.RELEASE web OWNER o"))
    steps = [
        int(clock) // 10 for _, _, clock in ticks if written.index([b"LB.TICK", b"web", clock]) < released
    ]
    assert steps == sorted(set(steps))
    before = pools.digest(b"web")
    server.restart()
    assert Pools(server).digest(b"web") == before


# What changes nothing in a pool `web` with the backends a 5, b 1.
UNCHANGING = [
    "LB.PICK none",
    "LB.PICK none random COUNT 2",
    "LB.PICK web EXCLUDE 2 a b",
    "LB.PICK web random EXCLUDE 2 a b",
    "LB.PEEK web COUNT 2",
    "LB.WEIGHT web a",
    "LB.STATE web a",
    "LB.POLICY web",
    "LB.LIST web",
    "LB.CARD web",
    "LB.INFO web",
    "LB.STATS web",
    "LB.ADD web a",
    "LB.ADD web b 1",
    "LB.SET web b 1 a 5",
    "LB.REM web x",
    "LB.SEED none 1",
    "LB.WEIGHT web a 5",
    "LB.STATE web a up",
    "LB.POLICY web wrr",
    "LB.POLICY none wrr",
    "LB.PICK none LEASE 9",
    "LB.PICK web lc LEASE 9 COUNT 2 EXCLUDE 2 a b",
    "LB.PEEK web lc COUNT 2",
    "LB.DONE web 7-1",
    "LB.DONE web nonsense FAIL LATENCY 9",
    "LB.RENEW web 7-1 9",
    "LB.RELEASE web OWNER o",
    "LB.LEASES web",
    "LB.LIMIT web",
    "LB.LIMIT web BACKEND a",
    "LB.LIMIT none MAX 0 RATE 0 0",
    "LB.LIMIT web MAX 0 RATE 0 0",
    "LB.LIMIT web BACKEND a MAX 0 TIER 0 RATE 0 0",
    "LB.WHEN web",
    "LB.TICK none 9",
    "LB.TICK web 0",
    "LB.EPOCH none 9",
    "LB.RULES none 2",
    "LB.RULES web 1",
]
# What does, and the events that tell of it.
CHANGING = {
    "LB.PICK web": [],
    "LB.PICK web random COUNT 2": [],
    "LB.ADD web a 2 c 1 d 1": ["lb.add", "lb.weight"],
    "LB.SET web a 3 c 1": ["lb.rem", "lb.add", "lb.weight"],
    "LB.REM web a": ["lb.rem"],
    "LB.REM web a b": ["lb.rem", "del"],
    "LB.WEIGHT web a 1 b 2": ["lb.weight"],
    "LB.STATE web a drain": ["lb.state"],
    "LB.PICK web lc": [],
    "LB.PICK web LEASE 9 OWNER o": [],
    "LB.LIMIT web MAX 9": ["lb.limit"],
    "LB.LIMIT none RATE 1 9": ["lb.limit"],
    "LB.LIMIT web BACKEND a TIER 1": ["lb.limit"],
    "LB.TICK web 9": [],
    "LB.EPOCH web 9": [],
    "LB.RULES web 2": [],
}


def test_what_changes_nothing_is_not_in_the_stream(start):
    server = start(**AOF)
    pools = Pools(server)
    pools.make(["LB.ADD web a 5 b 1", *UNCHANGING])
    assert stream(server) == [words("LB.ADD web a 5 b 1")]


@pytest.mark.parametrize("command", [*UNCHANGING, *CHANGING])
def test_a_watch_is_touched_by_changes_alone(manual, command):
    watching, changing = Pools(manual), Pools(manual)
    changing.make(["LB.ADD web a 5 b 1"])
    watching.make(["WATCH web none"])
    changing.make([command])
    watching.make(["MULTI", "PING"])
    assert watching.ask("EXEC") == (None if command in CHANGING else ["PONG"])


def test_events_tell_of_changes_but_not_of_picks(start):
    server = start(notify_keyspace_events="KEA")
    pools, events = Pools(server), server.client().pubsub(ignore_subscribe_messages=True)
    events.psubscribe("__keyevent@0__:*")
    for command, expected in [*CHANGING.items(), *((command, []) for command in UNCHANGING)]:
        pools.make(
            ["SET start x", "DEL web none start", "LB.ADD web a 5 b 1", "SET from x", command, "DEL from"]
        )
        heard = []
        while heard[-1:] != [("del", "from")]:
            message = events.get_message(timeout=SECONDS)
            heard += [(message["channel"].partition(":")[2], message["data"])] if message else []
        after = heard[heard.index(("set", "from")) + 1 : -1]
        assert after == [(event, command.split()[1]) for event in expected], command
