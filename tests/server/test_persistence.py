"""Whatever way a pool takes to another process or key, it arrives whole and goes on picking where it was."""

import random
from contextlib import suppress

import pytest

from server import Server, eventually, waiting
from wire import Refused, Wire, read, words

ALGORITHMS = [b"rr", b"wrr", b"random", b"wrandom"]
ODD = b"\0\r\n\xff"
KEYS = [b"web", b"large", ODD, b"policy"]


def large():
    """Commands that make a pool with 2,000 backends of a hundred weights, and take every third one away."""
    weight = random.Random(1).randint
    yield " ".join(["LB.ADD large", *(f"b{n} {weight(1, 100)}" for n in range(2000))])
    yield "LB.SEED large 1"
    yield from ("LB.PICK large rr COUNT 700", "LB.PICK large COUNT 3000", "LB.PICK large wrandom COUNT 9")
    yield " ".join(["LB.REM large", *(f"b{n}" for n in range(0, 2000, 3))])
    yield "LB.PICK large COUNT 99"


# Commands that make a pool of each kind, in the middle of all sequences.
MAKE = [
    "LB.ADD web a 5 b 3 gone 4 c 2 d 1",
    "LB.SEED web 18446744073709551615",
    *(f"LB.PICK web {algorithm} COUNT 13" for algorithm in ["rr", "wrr", "random", "wrandom"]),
    *(
        "LB.STATE web d drain",
        "LB.POLICY web wrandom",
        "LB.REM web gone",
        "LB.WEIGHT web a 7",
        "LB.ADD web e 0",
    ),
    "LB.PICK web wrr COUNT 2 DISTINCT EXCLUDE 1 a",
    *large(),
    [b"LB.ADD", ODD, b"\0", b"1", b"\xff" * 512, b"65535", b"\r\n", b"2"],
    [b"LB.SEED", ODD, b"0"],
    [b"LB.STATE", ODD, b"\0", b"down"],
    [b"LB.PICK", ODD, b"random"],
    "LB.POLICY policy rr",
]
# The same, with seeds of the server's own.
MAKE_UNSEEDED = [command for command in MAKE if not words(command)[0] == b"LB.SEED"]


class Pools(Wire):
    """The pools of a server."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.port, protocol=3)

    def make(self, commands):
        """Runs commands, none of which is refused."""
        for command in commands:
            answer = self.ask(command)
            assert not isinstance(answer, Refused), f"{command}: {answer}"

    def digest(self, *keys):
        """What the state of these pools comes down to."""
        return self.ask([b"DEBUG", b"DIGEST-VALUE", *keys])

    def picks(self, *keys):
        """The next 50 picks of every algorithm from each of these pools."""
        return [self.ask([b"LB.PICK", key, by, b"COUNT", b"50"]) for key in keys for by in ALGORITHMS]


def assert_same(one, other):
    """The pools of two servers are the same, and go on alike."""
    here, there = Pools(one), Pools(other)
    assert there.digest(*KEYS) == here.digest(*KEYS)
    assert there.picks(*KEYS) == here.picks(*KEYS)


def stream(server):
    """The commands in its AOF. Those that only say where and how they belong together are left out."""
    commands = []
    for path in sorted(server.folder.glob("**/appendonly*.aof")):
        # A rewrite may have replaced the file since it was listed.
        with suppress(FileNotFoundError), path.open("rb") as file:
            while file.peek(1):
                commands.append(read(file))
    return [c for c in commands if c[0].upper() not in (b"SELECT", b"MULTI", b"EXEC")]


# From one process to the next


def saved(server):
    server.client().save()
    server.kill()
    server.start()


def saved_in_background(server):
    client = server.client()
    client.bgsave()
    eventually(lambda: not client.info("persistence")["rdb_bgsave_in_progress"])
    server.kill()
    server.start()


def reloaded(server):
    assert server.client().execute_command("DEBUG RELOAD") == "OK"


def killed(server):
    server.kill()
    server.start()


def rewritten(server):
    client = server.client()
    client.bgrewriteaof()
    pending = ["aof_rewrite_scheduled", "aof_rewrite_in_progress"]
    eventually(lambda: not any(client.info("persistence")[field] for field in pending))
    server.restart()


AOF = {"appendonly": "yes"}
WAYS = {
    "SAVE": (saved, {}),
    "BGSAVE": (saved_in_background, {}),
    "DEBUG RELOAD": (reloaded, {}),
    "AOF": (Server.restart, AOF),
    "AOF and kill -9": (killed, AOF | {"appendfsync": "always"}),
    "AOF rewritten as RDB": (rewritten, AOF | {"aof_use_rdb_preamble": "yes"}),
    "AOF rewritten as commands": (rewritten, AOF | {"aof_use_rdb_preamble": "no"}),
}


@pytest.mark.parametrize(("way", "options"), WAYS.values(), ids=WAYS)
def test_pools_outlive_the_process(server, new_server, way, options):
    other = new_server(**options)
    for each in server, other:
        Pools(each).make(MAKE)
    # The second time what was loaded is written, and the AOF has a tail behind what was rewritten.
    for _ in range(2):
        way(other)
        assert_same(server, other)


def test_an_aof_is_rewritten_to_one_command_for_each_pool(new_server):
    server = new_server(**AOF, aof_use_rdb_preamble="no")
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
def test_a_twin_is_the_same_and_lives_on_its_own(server, way):
    pools = Pools(server)
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


def replica_of(server):
    """An option of a server."""
    return {"replicaof": f"127.0.0.1 {server.port}"}


def is_linked(server):
    """Whether a replica has its first copy and follows."""
    return server.client().info("replication").get("master_link_status") == "up"


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


def test_replicas_that_were_there_before_follow(new_server):
    primary = new_server()
    replica = new_server(**replica_of(primary))
    second = new_server(**replica_of(replica))
    eventually(lambda: is_linked(replica) and is_linked(second))
    Pools(primary).make(MAKE_UNSEEDED)
    assert_followed(primary, replica, second)


def test_replicas_that_join_late_follow(new_server):
    primary = new_server()
    Pools(primary).make(MAKE_UNSEEDED)
    replica = new_server(**replica_of(primary))
    second = new_server(**replica_of(replica))
    eventually(lambda: is_linked(replica) and is_linked(second))
    Pools(primary).picks(*KEYS)
    assert_followed(primary, replica, second)


def test_a_replica_that_joins_amid_picks_follows(new_server):
    primary, replica = new_server(), new_server()
    pools = Pools(primary)
    pools.make(MAKE_UNSEEDED)
    replica.client().replicaof("127.0.0.1", primary.port)
    for _ in waiting(20, pause=0):
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
WRITES += ["LB.LOAD web x"]
READS = [
    "LB.LIST web",
    "LB.CARD web",
    "LB.STATS web",
    "LB.STATS web a",
    "LB.PEEK web rr COUNT 9",
    "LB.PEEK large",
]


def test_a_replica_answers_reads_and_refuses_writes(new_server):
    primary = new_server()
    Pools(primary).make(MAKE)
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    here, there = Wire(primary.port), Wire(replica.port)
    assert {there.ask(command).code for command in WRITES} == {"READONLY"}
    assert [there.ask(command) for command in READS] == [here.ask(command) for command in READS]
    *described, _bytes, _ = here.ask("LB.INFO web")
    assert there.ask("LB.INFO web")[:-2] == described


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
    server = new_server(**AOF, appendfsync="always")
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
}


def test_what_changes_nothing_is_not_in_the_stream(new_server):
    server = new_server(**AOF, appendfsync="always")
    pools = Pools(server)
    pools.make(["LB.ADD web a 5 b 1", *UNCHANGING])
    assert stream(server) == [words("LB.ADD web a 5 b 1")]


@pytest.mark.parametrize("command", [*UNCHANGING, *CHANGING])
def test_a_watch_is_touched_by_changes_alone(server, command):
    watching, changing = Pools(server), Pools(server)
    changing.make(["LB.ADD web a 5 b 1"])
    watching.make(["WATCH web none"])
    changing.make([command])
    watching.make(["MULTI", "PING"])
    assert watching.ask("EXEC") == (None if command in CHANGING else ["PONG"])


def test_events_tell_of_changes_but_not_of_picks(new_server):
    server = new_server(notify_keyspace_events="KEA")
    pools, events = Pools(server), server.client().pubsub(ignore_subscribe_messages=True)
    events.psubscribe("__keyevent@0__:*")
    for command, expected in [*CHANGING.items(), *((command, []) for command in UNCHANGING)]:
        pools.make(["SET start x", "DEL web start", "LB.ADD web a 5 b 1", "SET from x", command, "DEL from"])
        heard = []
        while heard[-1:] != [("del", "from")]:
            message = events.get_message(timeout=10)
            heard += [(message["channel"].partition(":")[2], message["data"])] if message else []
        after = heard[heard.index(("set", "from")) + 1 : -1]
        assert after == [(event, "web") for event in expected], command
