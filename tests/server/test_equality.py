"""Any sequence of commands leaves the same pools everywhere: equal digests, and equal picks from then on.

One sequence has keys of its own, `A` and `B`, so that many share the servers. In the middle of each a second
replica takes a full copy and the first one rewrites its AOF: what comes after it reaches some servers as
commands on top of a copy. All is held against the primary, which is never restarted. Clocks obey LB.TICK.

A sequence that comes out otherwise somewhere is shrunk until nothing can be taken out of it. Hypothesis would
try one thing after another; here all are tried at once, on the same servers.

Ten times as many: `scripts/test --long tests/server/test_equality.py`. Others than always: REDIS_LB_SEED=2.
"""

import os
import shutil
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from algorithms import ALGORITHMS, ALL, BY_CHANCE, FORESEEABLE, packed
from epoch import OPENER, opened
from payload import member, payload, varint
from replication import in_step
from server import eventually, waiting
from wire import Wire, pack

# Each round is one set of servers. Six servers: 2,100 sequences, or 21,600.
SEQUENCES = 350 if os.environ.get("REDIS_LB_LONG") != "1" else 400
ROUNDS = 1 if os.environ.get("REDIS_LB_LONG") != "1" else 9

# Commands are lists of words. A word that is `str` is a key, of which each sequence has its own.
KEYS = ["A", "B"]
NAMES = [b"a", b"b", b"c", b"d", b"COUNT", b"\0\r\n", b"%s%n", b"\xff" * 512]
NAMES += [b"worker-%d" % number for number in range(8)]
WEIGHTS = [b"1", b"2", b"3", b"5", b"0", b"60000", b"65535"]
TIMES = [b"5", b"10", b"40", b"41", b"100", b"333", b"1000", b"5000", b"%d" % 2**47]
# What a mistake puts among the words.
JUNK = [b"", b"n" * 513, b"70000", b"-1", b"01", b"5x", b"0", b"3", b"10001", b"9" * 30, b"\x01\0\xff"]
JUNK += [b"COUNT", b"DISTINCT", b"EXCLUDE", b"hash", b"wrr", b"REPLACE", b"drain", "Ā".encode()]
JUNK += [b"COST", b"COSTS", b"EACH", b"LEFT"]
JUNK += [b"COOL", b"LOAD", b"LEASE", b"OWNER", b"MAX", b"RATE", b"7-0", b"%d" % 2**40]

# Runs commands, each behind the number of its words; `call` stops at an error, `pcall` goes on.
SCRIPT = b"""
local at = 2
while at <= #ARGV do
  local words = {}
  for i = 1, tonumber(ARGV[at]) do words[i] = ARGV[at + i] end
  redis[ARGV[1]](unpack(words))
  at = at + #words + 1
end
"""

# A command about the lease at that place among the oldest ones: nobody but the server knows its id.
ABOUT_LEASE = b"""
local leases = redis.call('LB.LEASES', KEYS[1], 'COUNT', ARGV[1])
local lease = leases[tonumber(ARGV[1])]
return lease and redis.call(ARGV[2], KEYS[1], lease[2], unpack(ARGV, 3))
"""

# LB.LOAD of the pool at another key. In a dump eleven bytes and a length stand before it, eleven behind it.
RELOAD = b"""
local dump = redis.call('DUMP', KEYS[1])
local length = ({[0] = 1, 2, 5})[math.floor(dump:byte(12) / 64)]
return redis.pcall('LB.LOAD', KEYS[2], dump:sub(12 + length, -12), unpack(ARGV))
"""


# The commands. What is drawn from one long list is drawn fast.


def flat(parts):
    """One list of parts that are words or lists of words."""
    return [word for part in parts for word in (part if isinstance(part, list) else [part])]


def each(*parts):
    """Every list of words that takes one choice for each part."""
    return [flat(choice) for choice in product(*parts)]


def fleet(size, step):
    """So many backends, with weights, that the pool has trees of several levels."""
    return flat([b"%d" % number, b"%d" % (number * step % 7 + 1)] for number in range(size))


EDGE = 2**60
CREDITS = [0, 1, -1, EDGE, -EDGE, EDGE - 3, 70_000 - EDGE]
COUNTERS = [0, 5, 2**63 - 2, 2**63 - 1]
MEMBERS = [member(*fields) for fields in product(NAMES, WEIGHTS, [0, 1, 2], CREDITS, COUNTERS)]
GENERATORS = [b"\0", b"\1" + varint(7) + varint(2**64 - 1) + b"\0\1"]
HEADS = list(product(range(7), COUNTERS, range(4), GENERATORS))

# What keeps account of time: at a clock, limits and counters of the pool and of each backend, and leases.
RATES = [None, (1, 1, 1, 1), (3, 7, 2, 0), (1, 500, 1, 499), (2**40, 2**40, 2**40, 2**79)]
LIMITS = list(product([0, 0, 1, 3, 2**31 - 1], RATES))
ENDED = [(0, 0, 0, 0, 0), (5, 2, 1, 900, 3), (2**63 - 1,) * 5, (2**63 - 2, 0, 2**63 - 2, 2**63 - 1, 1)]
ENTRIES = list(product([0, 0, 0, 1, 255], LIMITS, [0, 4, 5], ENDED))
ACCOUNTS = list(
    product([0, 95, 2**47], [5, 2**63 - 2, 2**63 - 1], LIMITS, [0, 1, 6], [6, 2**63 - 3, 2**63 - 1])
)
# In the middle of clearing: which leases are over, and by which marks.
# Names of sessions, and their hashes as XXH3 makes them. In a crafted pool some are pinned, some are over.
SESSIONS = {b"s": 0xD6B9D4D14FF6BE13, b"t": 0x76033E85F0ACF92D, b"\0\xff": 0xA99B043A346C8BF3}
PINNED = [None] * 8 + [
    (turn, *zip(SESSIONS.values(), deadlines, turns, strict=True))
    for turn in (0, 65_535)
    for deadlines in [(40, 400, 10), (2**40, -5, 0), (10, 10, 10)]
    for turns in [(0, 1, 2), (7, 7, 65_535)]
]
OVERS = [None] * 10 + [*product([False, True], [False, True], [b"", b"\0", b"\2", b"\1\2", b"\0\2\1"])]

KEY = [*KEYS, "A"]
ITEMS = [[b"hash", b"item"], [b"Hash", b"\0\r\n"]]
OPTIONAL_ALGORITHM = [[], *packed(ALGORITHMS), b"wRandom", *ITEMS]
COUNT = [[], *each([b"COUNT"], [b"2", b"9"]), [b"COUNT", b"3", b"DISTINCT"], [b"count", b"99", b"distinct"]]
EXCLUDE = [[], [b"EXCLUDE", b"1", b"a"], [b"EXCLUDE", b"3", b"b", b"nobody", b"\0\r\n"]]
REPLACE = [[b"REPLACE"], []]
OWNERS = [b"o", b"\0\xff"]
LEASE = [[b"LEASE", b"1"], *each([b"LEASE"], [b"30", b"400"], [b"OWNER"], OWNERS), [b"lease", b"%d" % 2**40]]

# One more than a pool can limit.
COST = [b"tokens", b"t", b"\0\xff", b"COSTS", b"images"]
COSTS = [
    *each([b"COSTS", b"1"], COST, [b"0", b"3", b"9", b"%d" % 2**40]),
    *each([b"costs", b"2"], COST[:2], [b"2"], COST[1:4], [b"1", b"30"]),
]

PICK = each([b"LB.PICK"], KEY, OPTIONAL_ALGORITHM, COUNT, EXCLUDE)
GRANT = each([b"LB.PICK"], KEY, [*OPTIONAL_ALGORITHM, b"ewma", b"Ewma"], COUNT, EXCLUDE, LEASE)
STICKY = each([b"STICKY"], [*SESSIONS], [b"30", b"400", b"%d" % 2**40], [[], [], [b"strict"]])
STICK = each([b"LB.PICK"], KEY, [*OPTIONAL_ALGORITHM, b"lc"], EXCLUDE, STICKY)
STICK += each([b"LB.PICK"], KEY, [[], b"lc", b"ewma"], STICKY, LEASE)
SPEND = each([b"LB.PICK"], KEY, [*OPTIONAL_ALGORITHM, b"ewma"], [[], [b"COUNT", b"3"]], COSTS, LEASE)
SPEND += each([b"LB.PICK"], KEY, OPTIONAL_ALGORITHM, EXCLUDE, COSTS)
SPEND += each([b"LB.PICK"], KEY, [[], b"lc"], STICKY, COSTS)
FORGET = each([b"LB.FORGET"], KEY, [*SESSIONS])
LOOK = [
    *each([b"LB.PEEK"], KEY, [[], b"rr", b"lc"], EXCLUDE, [b"STICKY"], [*SESSIONS]),
    *each([b"LB.PEEK"], KEY, [*OPTIONAL_ALGORITHM, b"ewma"], COUNT, EXCLUDE),
    *each([b"LB.WEIGHT", b"LB.STATE", b"LB.STATS"], KEY, NAMES),
    *each([b"LB.LIST", b"LB.CARD", b"LB.INFO", b"LB.STATS", b"LB.POLICY"], KEY) * 5,
    *each([b"LB.LEASES", b"LB.LIMIT", b"LB.WHEN"], KEY) * 5,
    *each([b"LB.LEASES"], KEY, [b"OWNER"], OWNERS),
    *each([b"LB.WHEN"], KEY, COSTS),
    *each([b"LB.LIMIT"], KEY, [b"EACH"]) * 5,
]
CHANGE = [
    *each([b"LB.ADD", b"LB.REM"], KEY, NAMES),
    *each([b"LB.STATE"], KEY, NAMES, [b"drain", b"up", b"DOWN"]),
    *each([b"LB.POLICY"], KEY, packed(ALL)) * 3,
    *each([b"LB.SEED"], KEY, [b"%d" % seed for seed in [0, 1, 2**64 - 1, 2**64]]) * 2,
    *each([b"LB.EPOCH"], KEY, [b"0", b"7", b"%d" % (2**64 - 1)]) * 3,
    *each([b"LB.RULES"], KEY, [b"2", b"2", b"1"]) * 4,
    *each([b"LB.RELEASE"], KEY, [b"OWNER"], OWNERS) * 2,
]
HEALTH = [
    *each(
        [b"LB.HEALTH"], KEY, [b"FAILS"], [b"0", b"1", b"2"], [[], [b"EJECT", b"30"], [b"maxeject", b"100"]]
    ),
    *each([b"LB.HEALTH"], KEY, [b"FAILRATE", b"50", b"MIN", b"2"], [[], [b"WINDOW", b"50"]]),
    *each([b"LB.HEALTH"], KEY, [b"SLOWSTART", b"ADAPT"], [b"0", b"100", b"%d" % 2**40]),
]
QUEUE = each(
    [b"LB.QUEUE"], KEY, [[], [b"MAX", b"0"], [b"max", b"7"]], [[], [b"ORDER", b"fair"], [b"order", b"FIFO"]]
)
REPORTS = [[], [b"OK"], [b"FAIL"], [b"FAIL"], [b"OK", b"LATENCY", b"900"], [b"OK", b"latency", b"70"]]
REPORTS += [[b"LOAD", b"0.9", b"FAIL"], [b"LOAD", b"0.25"], [b"COOL", b"40"], [b"cool", b"%d" % 2**40, b"OK"]]
REPORT = each([b"LB.REPORT"], KEY, NAMES, REPORTS)
LEFT = each([b"LB.REPORT"], KEY, NAMES, [[], [b"OK"]], [b"LEFT"], COST, [b"0", b"7"])
TICK = each([b"LB.TICK"], KEY, TIMES)
MOST = each([b"MAX"], [b"0", b"1", b"2", b"9"])
RATE = [*each([b"RATE"], [b"1", b"3"], [b"7", b"300"], [[], [b"BURST", b"5"]]), [b"RATE", b"0", b"0"]]
LIMIT = [
    *each(
        [b"LB.LIMIT"], KEY, [b"BACKEND"], NAMES, [*MOST, *RATE, *each([b"TIER"], [b"0", b"0", b"1", b"255"])]
    ),
    *each([b"LB.LIMIT"], KEY, [*MOST, *RATE]) * 2,
    *each([b"LB.LIMIT"], KEY, [b"BALANCE"], [b"0", b"101", b"125", b"400"]) * 3,
    *each([b"LB.LIMIT"], KEY, [b"EACH"], [*MOST, *RATE]) * 3,
]
COSTING = [
    [b"0", b"0"],
    *each([b"20", b"100"], [b"30", b"500"], [[], [], [b"BURST", b"3"], [b"burst", b"40"]]),
]
COSTED = each(
    [b"LB.LIMIT"], KEY, [[], [], [b"EACH"], [b"each"], *each([b"BACKEND"], NAMES)], [b"COST"], COST, COSTING
)
MOVE = [
    *each([b"DEL", b"UNLINK"], KEY) * 2,
    *each([b"RENAME"], KEY, KEY),
    *each([b"COPY"], KEY, KEY, REPLACE),
    *each([b"SET"], KEY, [b"text"]),
]
SIZES = [*range(9, 20), 64, 65, 150]
FLEETS = each([b"LB.ADD", b"LB.SET"], KEY, [fleet(size, step) for size in SIZES for step in range(7)])
RELOADS = each([b"EVAL"], [RELOAD], [b"2"], KEY, KEY, REPLACE)
OUTCOMES = [[], [b"FAIL"], [b"OK", b"LATENCY", b"900"], [b"LATENCY", b"%d" % 2**50, b"FAIL"]]
OUTCOMES += REPORTS + COSTS
ABOUT = [*each([b"LB.DONE"], OUTCOMES), *each([b"LB.RENEW"], [b"1", b"70", b"9000"])]
ABOUT_LEASES = each([b"EVAL"], [ABOUT_LEASE], [b"1"], KEY, [b"1", b"2", b"7"], ABOUT)


def of(start, choices):
    """Commands of one such start and any of such words behind it."""
    more = st.lists(st.sampled_from(choices), min_size=1)
    return st.tuples(st.sampled_from(start), more).map(lambda parts: flat([*parts[0], *parts[1]]))


def mixed(*kinds):
    """One of these kinds, each as often as it stands there. (st.one_of looks into kinds that have kinds.)"""
    kinds = [st.sampled_from(kind) if isinstance(kind, list) else kind for kind in kinds]
    return st.sampled_from(kinds).flatmap(lambda kind: kind)


WEIGHTED = of(each([b"LB.ADD", b"LB.WEIGHT", b"LB.SET"], KEY), each(NAMES, WEIGHTS))
REMOVED = of(each([b"LB.REM"], KEY), NAMES)
CRAFTED = st.builds(
    lambda key, *parts: [b"LB.LOAD", key, payload(*parts), b"REPLACE"],
    st.sampled_from(KEY),
    st.sampled_from(HEADS),
    st.lists(st.sampled_from(MEMBERS), min_size=3, max_size=len(NAMES)),
    st.one_of(st.none(), st.sampled_from(ACCOUNTS)),
    st.lists(st.sampled_from(ENTRIES), min_size=len(NAMES), max_size=len(NAMES)),
    st.sampled_from(OVERS),
    st.sampled_from(PINNED),
)
PICKS = [PICK, PICK, PICK, GRANT, GRANT, SPEND, SPEND, STICK, STICK, FORGET, TICK]
VALID = mixed(
    *PICKS,
    CHANGE,
    CHANGE,
    LIMIT,
    COSTED,
    HEALTH,
    QUEUE,
    REPORT,
    REPORT,
    LEFT,
    WEIGHTED,
    REMOVED,
    LOOK,
    MOVE,
    FLEETS,
    CRAFTED,
)


def mistaken(command, mistake):
    """With a wrong word, one too many or one too few. That is not always an error."""
    name, key, *rest = command
    at, junk, gone = mistake
    return flat([name, key, *rest[:at], junk, *rest[at + gone :]])


class Unit(NamedTuple):
    """Commands as they are, a transaction with that end, or a script that runs them by `call` or `pcall`."""

    end: bytes
    commands: list

    def sent(self):
        """The commands that a client sends."""
        if self.end in {b"EXEC", b"DISCARD"}:
            return [[b"MULTI"], *self.commands, [self.end]]
        if self.end:
            counted = flat([b"%d" % len(command), *command] for command in self.commands)
            return [[b"EVAL", SCRIPT, b"2", *KEYS, self.end, *counted]]
        return self.commands


class Sequence(NamedTuple):
    """What comes before the copy in the middle and what after it; whether all pools get a seed at the end."""

    before: list
    after: list
    is_seeded: bool

    def size(self):
        """Smaller ones are easier to understand."""
        units = self.before + self.after
        words = sum(len(command) + 1 for unit in units for command in unit.commands)
        return words + sum(1 + bool(unit.end) for unit in units) + self.is_seeded


MISTAKES = list(product(range(4), [[], *JUNK], range(2)))
MISTAKEN = st.builds(mistaken, st.sampled_from(PICK + CHANGE + LOOK + LIMIT), st.sampled_from(MISTAKES))
ALONE = mixed(*[VALID] * 10, ABOUT_LEASES, MISTAKEN, RELOADS).map(lambda command: Unit(b"", [command]))
ENDS = [b"EXEC", b"call", b"pcall", b"DISCARD"]
TOGETHER = st.builds(Unit, st.sampled_from(ENDS), st.lists(mixed(VALID, VALID, MISTAKEN)))
# A list of lists has more in it.
UNITS = st.lists(st.lists(mixed(*[ALONE] * 8, TOGETHER))).map(flat)
SEQUENCE = st.builds(Sequence, UNITS, UNITS, st.booleans())


def drawn(seed):
    """Sequences: the same seed gives the same ones."""
    sequences = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=SEQUENCES,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(SEQUENCE)
    def draw(sequence):
        sequences.append(sequence)

    draw()
    return sequences


def smaller(sequence):
    """All that lacks some of the sequence."""
    yield sequence._replace(is_seeded=False)
    for part in "before", "after":
        units = getattr(sequence, part)
        fewer = [*without_a_run(units), *with_one_changed(units, smaller_unit)]
        yield from (sequence._replace(**{part: units}) for units in fewer)


def smaller_unit(unit):
    """The unit without some of it; its commands alone."""
    fewer = [*without_a_run(unit.commands), *with_one_changed(unit.commands, shorter)]
    return [unit._replace(end=b""), *(unit._replace(commands=commands) for commands in fewer)]


def shorter(command):
    """The command with its name and key, without some of the rest."""
    return [command[:2] + rest for rest in without_a_run(command[2:])]


def without_a_run(things):
    """The list without its first half, without its second one, and so on down to each single thing."""
    size = len(things)
    while size:
        yield from (things[:at] + things[at + size :] for at in range(0, len(things), size))
        size //= 2


def with_one_changed(things, change):
    """The list with something else in place of one thing."""
    for at, thing in enumerate(things):
        yield from ([*things[:at], changed, *things[at + 1 :]] for changed in change(thing))


SEEDING = Unit(b"", [[b"LB.PICK", key, b"random"] for key in KEYS])


def questions(sequence):
    """What its pools are asked at the end. They get a seed if they may have none: a server would take any."""
    digests = [b"DEBUG", b"DIGEST-VALUE", *KEYS]
    yield digests
    for key in KEYS:
        yield from ([b"LB.WHEN", key], [b"LB.LEASES", key, b"COUNT", b"5"])
        yield from ([b"LB.STATS", key], [b"LB.HEALTH", key], [b"LB.QUEUE", key])
        yield from ([b"LB.PICK", key, algorithm, b"COUNT", b"15"] for algorithm in packed(FORESEEABLE))
        if not sequence.is_seeded:
            yield [b"LB.SEED", key, b"42"]
        yield from ([b"LB.PICK", key, algorithm, b"COUNT", b"8"] for algorithm in packed(BY_CHANCE))
        yield from ([b"LB.REM", key, b"a"], [b"LB.WEIGHT", key, b"b", b"7"], [b"LB.ADD", key, b"new"])
        yield [b"LB.PICK", key, b"wrr", b"COUNT", b"15", b"EXCLUDE", b"1", b"c"]
        yield from opened(key)
        yield from ([b"LB.PICK", key, b"rr", b"STICKY", session, b"99"] for session in SESSIONS)
        for time in [b"50", b"9000"]:
            yield [b"LB.PICK", key, b"lc", b"COUNT", b"5", b"LEASE", b"300", b"OWNER", b"o"]
            yield [b"LB.PICK", key, b"p2c", b"COUNT", b"5", b"LEASE", b"90"]
            yield [b"LB.PICK", key, b"ewma", b"COUNT", b"5", b"LEASE", b"90"]
            yield [b"LB.PICK", key, b"hash", b"item", b"COUNT", b"5", b"DISTINCT", b"LEASE", b"90"]
            yield from ([b"LB.WHEN", key], [b"LB.TICK", key, time])
        yield from ([b"LB.LEASES", key, b"COUNT", b"5"], [b"LB.PICK", key, b"lc"])
    yield digests


# The servers


class Pools(Wire):
    """A connection to a server with the pools of many sequences."""

    def run(self, number, commands):
        """Runs commands on the keys of the sequence with that number. What opens an epoch answers None."""
        self.send(b"".join(pack([real(number, word) for word in words]) for words in commands))
        answers = [self.read() for _ in commands]
        return [None if OPENER in words else answer for words, answer in zip(commands, answers, strict=True)]


def real(number, word):
    """The word as the sequence with that number sends it: its own key for the name of one."""
    return word if isinstance(word, bytes) else b"\xff\r\n%d:%b" % (number, word.encode())


def ways(start, folder, sequences):
    """Sends the sequences on all ways: the name of each, and what reads the pools at its end.

    `start` starts a server. The first way is the one that the others are held against: to the primary.
    """
    # Every write is in the AOF when its reply comes. Dumps are not compressed, so that RELOAD can be short.
    options = {"appendonly": "yes", "appendfsync": "no", "rdbcompression": "no"}
    primary = start(**options)
    replica = start(replicaof=f"127.0.0.1 {primary.port}", **options)
    chain = [primary, replica]

    def run(units):
        in_step(chain)
        with Pools(primary.port) as pools:
            for number, sequence in enumerate(sequences):
                pools.run(number, [command for unit in units(sequence) for command in unit.sent()])
        in_step(chain)

    def answers(server, place=0):
        """What each sequence's pools answer there, or those that were put into another place beside them."""
        with Pools(server.port) as pools:
            numbered = enumerate(sequences, place * len(sequences))
            return [pools.run(number, [*questions(sequence)]) for number, sequence in numbered]

    def restarted(name, server, appendonly):
        """Another server, started with what that one has in its files now."""
        files = folder / name.replace(" ", "-")
        aof_at_rest(server)
        shutil.copytree(server.folder, files)
        return name, lambda: answers(start(folder=files, appendonly=appendonly))

    run(lambda sequence: sequence.before)
    rewrite_aof(replica, "yes")
    second = start(replicaof=f"127.0.0.1 {replica.port}", aof_use_rdb_preamble="no", **options)
    chain.append(second)
    run(lambda sequence: sequence.after + [SEEDING] * sequence.is_seeded)
    for server in reversed(chain):
        with server.client() as client:
            client.replicaof("NO", "ONE")

    with Pools(primary.port) as pools:
        assert pools.ask("SAVE") == "OK"
        ends = [
            restarted("a restart after SAVE", primary, "no"),
            restarted("a replay of the AOF without a preamble", primary, "yes"),
            restarted("a replay of the AOF with a preamble in RDB", replica, "yes"),
            restarted("a replay of the AOF with LB.LOAD in front", second, "yes"),
        ]
        for preamble, form in [("yes", "RDB"), ("no", "LB.LOAD")]:
            rewrite_aof(primary, preamble)
            ends.append(restarted(f"BGREWRITEAOF into {form}", primary, "yes"))
        size = len(sequences)
        for number, name in product(range(size), KEYS):
            original, copied, restored = (real(place * size + number, name) for place in range(3))
            if dump := pools.ask([b"DUMP", original]):
                assert pools.ask([b"COPY", original, copied]) == 1
                assert pools.ask([b"RESTORE", restored, b"0", dump]) == "OK"

    return [
        ("the primary", lambda: answers(primary)),
        ("COPY", lambda: answers(primary, 1)),
        ("DUMP and RESTORE", lambda: answers(primary, 2)),
        ("the replica", lambda: answers(replica)),
        ("the replica of the replica", lambda: answers(second)),
        *ends,
    ]


def rewrite_aof(server, preamble):
    """Let it rewrite its AOF, with such a preamble or not."""
    aof_at_rest(server)
    with server.client() as client:
        client.config_set("aof-use-rdb-preamble", preamble)
        client.bgrewriteaof()
    aof_at_rest(server)


def aof_at_rest(server):
    """Wait until no rewrite of its AOF is due or under way, and what it replaced is gone."""

    def is_at_rest():
        told = client.info("persistence")
        assert told["aof_last_bgrewrite_status"] == "ok"
        is_busy = told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"]
        return not is_busy and len([*server.folder.rglob("*.incr.aof")]) <= 1

    with server.client() as client:
        eventually(is_at_rest)


class Difference(NamedTuple):
    """A sequence that does not come out of a way as it does on the primary."""

    sequence: Sequence
    way: str
    there: list
    on_primary: list

    def __str__(self):
        asked = zip(questions(self.sequence), self.there, self.on_primary, strict=True)
        lines = [
            f"{command} answers\n  {there}, on the primary\n  {here}"
            for command, there, here in asked
            if there != here
        ]
        return "\n".join([f"{self.way}: after", *map(str, self.sequence), *lines])


def differences(new_server, sequences, wanted=None):
    """What differs after all ways, or after the one that is wanted."""
    with TemporaryDirectory() as folder, ExitStack() as running:

        def start(**options):
            server = new_server(module_args=["clock", "manual"], **options)
            running.callback(server.kill)
            return server

        (_, primary), *others = ways(start, Path(folder), sequences)
        expected = primary()
        return [
            Difference(sequence, way, there, here)
            for way, answers in others
            if wanted in (None, way)
            for sequence, there, here in zip(sequences, answers(), expected, strict=True)
            if there != here
        ]


def smallest(new_server, found):
    """The smallest difference on the same way that is left when more and more of it is taken away."""
    for _ in waiting(200, pause=0):
        candidates = [
            sequence for sequence in smaller(found.sequence) if sequence.size() < found.sequence.size()
        ]
        still = differences(new_server, candidates, found.way)
        if not still:
            break
        found = min(still, key=lambda difference: difference.sequence.size())
    return found


@pytest.mark.timeout(900)
def test_any_sequence_of_commands_leaves_equal_pools_everywhere(new_server, binary):
    for part in range(ROUNDS):
        sequences = drawn(f"{os.environ.get('REDIS_LB_SEED', 1)} {binary.name} {part}")
        if found := differences(new_server, sequences):
            first = min(found, key=lambda difference: difference.sequence.size())
            pytest.fail(str(smallest(new_server, first)), pytrace=False)
