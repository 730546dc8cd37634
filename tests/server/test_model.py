"""One million random commands: the server answers what a plain model does, and has the same pools at the end.

Among them are malformed ones, names and keys of any bytes, pools that are copied, renamed and deleted, and
reloads of all data. Time is what LB.TICK says. Pools have rules of version 1 or 2: by
version 2 a lease that is over counts until the next LB.TICK.

The same again, or others: `REDIS_LB_SEED=1 scripts/test tests/server/test_model.py`.
"""

import os
import random
from collections import deque

import pytest

from algorithms import ALGORITHMS, FORESEEABLE, packed
from commands import COMMANDS
from model import COMMANDS as MODELLED
from model import LEASED, NOT_MODELLED, OVER, PAYLOAD, Model, Pool, Unopened, Unseeded
from wire import Refused, Wire, pack

NUMBER = 1_000_000
BATCH = 500

KEYS = [b"web", b"api", b"fleet", b"\0\r\n", b"\xff\xfe", b"%s%n", b"", b"text"]
NAMES = [
    b"a",
    b"b",
    b"c",
    b"10.0.0.1:8080",
    b"10.0.0.2:8080",
    b"COUNT",
    b"rr",
    b"2",
    b"\0\r\n",
    b"\xff\xfe",
    b"%s%n",
]
NAMES += ["Ā".encode(), b"n" * 512, *[b"worker-%d" % number for number in range(12)]]
# A pool with so many that the server keeps it in trees of several levels.
FLEET = [b"%d.fleet" % number for number in range(150)]
WORDS = [*packed(ALGORITHMS), b"RR", b"wRandom"]
SESSIONS = [b"alice", b"bob", b"STRICT", b"5", b"\0\xff", b"s" * 512]
# One more than a pool can limit, and one that is never limited.
COSTS = [b"tokens", b"COSTS", b"\0\xff", b"5", b"requests"]
OWNERS = [b"gateway-1", b"gateway-2", b"a", b"LEASE", b"\0\xff", b"o" * 512]
WEIGHTS = [b"0", b"1", b"1", b"1", b"2", b"3", b"5", b"60000", b"65535"]
STATES = [b"up", b"up", b"drain", b"DOWN"]
# What a mistake puts in place of an argument.
JUNK = [
    b"",
    b"n" * 513,
    b"70000",
    b"-1",
    b"01",
    b"+1",
    b"5x",
    b"0",
    b"3",
    b"10001",
    b"9" * 30,
    b"COUNT",
    b"DISTINCT",
]
JUNK += [b"EXCLUDE", b"hash", b"wrr", b"REPLACE", PAYLOAD, LEASED, OVER, b"\0\xff", b"down", "Ā".encode()]
JUNK += [b"COST", b"COSTS", b"EACH", b"LEFT", b"BURST", b"STICKY", b"STRICT"]
JUNK += [b"LEASE", b"OWNER", b"MAX", b"RATE", b"TIER", b"BACKEND", b"FAIL", b"7-0", b"1099511627777"]


class Typist:
    """Makes up commands."""

    def __init__(self, seed: int, model: Model) -> None:
        self._random = random.Random(seed)
        self._model = model
        self.one_of = self._random.choice
        self.names = NAMES
        self.key = KEYS[0]
        self.past = deque([b"7-0"], maxlen=20)
        self._time = 0
        self._kinds = [kind for kind, times in KINDS.items() for _ in range(times)]

    def chance(self, percent: float) -> bool:
        """True so often."""
        return self._random.random() * 100 < percent

    def name(self) -> bytes:
        """The name of a backend."""
        return self.one_of(self.names)

    def some(self, most: int) -> list[bytes]:
        """Names, one at least, some of them perhaps twice."""
        return self._random.choices(self.names, k=self._random.randint(1, most))

    def number(self, most: int) -> bytes:
        """A number from 1."""
        return b"%d" % self._random.randint(1, most)

    def pairs(self, most: int) -> list[bytes]:
        """Backends with weights."""
        return [word for name in self.some(most) for word in (name, self.one_of(WEIGHTS))]

    def options(self) -> list[bytes]:
        """What can stand behind the algorithm, in any order."""
        options = []
        if self.chance(40):
            options.append([b"COUNT", self.number(9)])
            if self.chance(40):
                options.append([b"distinct"])
        if self.chance(30):
            excluded = self.some(4)
            options.append([b"EXCLUDE", b"%d" % len(excluded), *excluded])
        return self.shuffled(options)

    def shuffled(self, options: list[list[bytes]]) -> list[bytes]:
        """Options in any order."""
        self._random.shuffle(options)
        return [word for option in options for word in option]

    def costs(self) -> list[bytes]:
        """Amounts of costs, some perhaps twice."""
        costs = self._random.choices([*COSTS, b"free"], k=self._random.randint(1, 3))
        words = [
            word for cost in costs for word in (cost, self.one_of([b"0", *map(self.number, (3, 9, 40))]))
        ]
        return [b"COSTS", b"%d" % len(costs), *words]

    def left(self) -> list[bytes]:
        """How much is left of a cost."""
        return [b"LEFT", self.one_of(COSTS), self.number(9)]

    def lease(self) -> list[bytes]:
        """That a pick is to give leases."""
        owner = [b"OWNER", self.one_of(OWNERS)] if self.chance(50) else []
        return [b"LEASE", self.number(self.one_of([10, 300, 3000])), *owner]

    def sticky(self) -> list[bytes]:
        """That a pick is for a session."""
        strict = [[b"strict"]] if self.chance(40) else []
        excluded = self.some(3)
        exclude = [[b"EXCLUDE", b"%d" % len(excluded), *excluded]] if self.chance(20) else []
        span = self.number(self.one_of([10, 300, 3000]))
        return self.shuffled([[b"STICKY", self.one_of(SESSIONS), span], *strict, *exclude])

    def leased(self) -> bytes:
        """The id of a lease, which is open or was."""
        pool = self._model.keys.get(self.key)
        if isinstance(pool, Pool) and pool.leases and self.chance(80):
            return self.one_of([*pool.leases])
        return self.one_of(self.past)

    def outcome(self) -> list[bytes]:
        """How it went."""
        options = [[self.one_of([b"OK", b"fail"])]] if self.chance(60) else []
        options += [[b"LATENCY", self.number(9999)]] * self.chance(40)
        return self.shuffled(options + [[b"LOAD", self.one_of([b"0", b"0.35", b"1.5"])]] * self.chance(20))

    def limits(self) -> list[bytes]:
        """Limits of a backend or of the pool; often none, so that not all is limited at last."""
        if self.chance(8):
            return [b"BALANCE", self.one_of([b"0", b"0", b"101", b"125", b"250", b"10000"])]
        is_backend = self.chance(70)
        limits = [[b"BACKEND", self.name()]] if is_backend else [[b"EACH"]] * self.chance(60)
        if self.chance(40):
            limits.append([b"MAX", self.one_of([b"0", b"0", b"0", self.number(4), self.number(40)])])
        if self.chance(40):
            rate = [b"RATE", self.number(9), self.number(100)]
            limits.append(self.one_of([[b"RATE", b"0", b"0"], rate, [*rate, b"BURST", self.number(9)]]))
        if is_backend and self.chance(30):
            limits.append([b"TIER", self.one_of([b"0", b"0", b"1", b"2", b"255"])])
        for cost in self._random.sample(COSTS, k=self.one_of([0, 0, 1, 2])):
            rate = [b"COST", cost, self.number(40), self.number(100)]
            limits.append(self.one_of([[*rate[:2], b"0", b"0"], rate, [*rate, b"BURST", self.number(30)]]))
        return self.shuffled(limits)

    def queue(self) -> list[bytes]:
        """How clients wait; often by default, so that pools can go."""
        options = [[b"MAX", self.one_of([b"0", b"0", self.number(9)])]] if self.chance(70) else []
        options += [[b"ORDER", self.one_of([b"fifo", b"FIFO", b"fair"])]] if self.chance(70) else []
        return self.shuffled(options)

    def filters(self) -> list[bytes]:
        """Which leases are to be listed."""
        filters = [[b"BACKEND", self.name()]] if self.chance(20) else []
        filters += [[b"OWNER", self.one_of(OWNERS)]] if self.chance(30) else []
        return self.shuffled(filters + [[b"COUNT", self.number(5)]] * self.chance(50))

    def time(self) -> bytes:
        """Later, save now and then."""
        self._time += self._random.choice([1, 9, 10, 40])
        return b"%d" % (self._time if self.chance(95) else self._random.randrange(self._time))

    def command(self) -> list[bytes]:
        """A command; one of twelve has a mistake in it."""
        if self.chance(0.5):
            return self.one_of(MOVES)(self)
        name, arguments = self.one_of(self._kinds)
        key = self.key = self.one_of(KEYS)
        self.names = FLEET if key == b"fleet" else NAMES
        command = [name, key, *arguments(self)]
        return self.mistaken(command) if self.chance(8) else command

    def mistaken(self, command: list[bytes]) -> list[bytes]:
        """A word is missing, twice there, another one or at another place. That is not always an error."""
        at = self._random.randrange(1, len(command))
        before, word, after = command[:at], command[at], command[at + 1 :]
        tails = [after, [word, word, *after], [self.one_of(JUNK), *after], [word, self.one_of(JUNK), *after]]
        return before + self.one_of([*tails, [*after, word]])

    def seed(self) -> bytes:
        """A seed for a pool."""
        return b"%d" % self._random.getrandbits(64)


ITEMS = [b"item", b"a", b"\0\xff", *[b"%d" % number * (number // 4 + 1) for number in range(60)]]

# What stands behind the key in each command, and how often the command comes.
KINDS = {
    (b"LB.PICK", lambda typist: []): 10,
    (b"LB.PICK", lambda typist: [typist.one_of(WORDS)]): 15,
    (b"LB.PICK", lambda typist: [typist.one_of(WORDS), *typist.options()]): 15,
    (b"lb.pick", lambda typist: typist.options()): 5,
    (b"LB.PICK", lambda typist: [typist.one_of(WORDS), *typist.lease()]): 8,
    (b"LB.PICK", lambda typist: [*typist.options(), *typist.lease()]): 3,
    (b"LB.PICK", lambda typist: [typist.one_of(WORDS), *typist.sticky()]): 6,
    (b"LB.PICK", lambda typist: [*typist.sticky(), *typist.lease()]): 3,
    (b"LB.PICK", lambda typist: [*typist.sticky(), *typist.costs()]): 2,
    (b"LB.PEEK", lambda typist: [b"STICKY", typist.one_of(SESSIONS)]): 2,
    (b"LB.FORGET", lambda typist: [typist.one_of(SESSIONS)]): 1,
    (b"LB.PICK", lambda typist: [typist.one_of(WORDS), *typist.costs(), *typist.lease()]): 6,
    (b"LB.PICK", lambda typist: [*typist.options(), *typist.costs()]): 3,
    (b"LB.DONE", lambda typist: [typist.leased(), *typist.outcome(), *typist.costs()]): 4,
    (b"LB.REPORT", lambda typist: [typist.name(), *typist.left()]): 1,
    (b"LB.WHEN", lambda typist: typist.costs()): 1,
    (b"LB.PEEK", lambda typist: [typist.one_of(packed(FORESEEABLE)), *typist.options()]): 6,
    (b"LB.PEEK", lambda typist: typist.options()): 2,
    (b"LB.PICK", lambda typist: [b"hash", typist.one_of(ITEMS), *typist.options()]): 4,
    (b"LB.PICK", lambda typist: [b"Hash", typist.one_of(ITEMS), *typist.lease()]): 2,
    (b"LB.PEEK", lambda typist: [b"hash", typist.one_of(ITEMS), *typist.options()]): 2,
    (b"LB.ADD", lambda typist: [typist.name()]): 6,
    (b"LB.ADD", lambda typist: typist.pairs(6)): 6,
    (b"LB.SET", lambda typist: typist.pairs(len(typist.names))): 1,
    (b"LB.REM", lambda typist: typist.some(5)): 7,
    (b"LB.WEIGHT", lambda typist: [typist.name()]): 2,
    (b"LB.WEIGHT", lambda typist: typist.pairs(2)): 6,
    (b"LB.STATE", lambda typist: [typist.name()]): 2,
    (b"LB.STATE", lambda typist: [typist.name(), typist.one_of(STATES)]): 5,
    (b"LB.POLICY", lambda typist: []): 1,
    (b"LB.POLICY", lambda typist: [typist.one_of(WORDS)]): 2,
    (b"LB.DONE", lambda typist: [typist.leased(), *typist.outcome()]): 8,
    (b"LB.REPORT", lambda typist: [typist.name(), *typist.outcome()]): 3,
    (b"LB.RENEW", lambda typist: [typist.leased(), typist.number(300)]): 2,
    (b"LB.RELEASE", lambda typist: [b"OWNER", typist.one_of(OWNERS)]): 1,
    (b"LB.LEASES", lambda typist: typist.filters()): 1,
    (b"LB.LIMIT", lambda typist: typist.limits()): 6,
    (b"LB.QUEUE", lambda typist: typist.queue()): 1,
    (b"LB.WHEN", lambda typist: []): 2,
    (b"LB.TICK", lambda typist: [typist.time()]): 6,
    (b"LB.EPOCH", lambda typist: [typist.seed()]): 1,
    (b"LB.RULES", lambda typist: [typist.one_of([b"1", b"2", b"2"])]): 1,
    (b"LB.LIST", lambda typist: []): 1,
    (b"LB.CARD", lambda typist: []): 1,
    (b"LB.INFO", lambda typist: []): 1,
    (b"LB.STATS", lambda typist: []): 1,
    (b"LB.STATS", lambda typist: [typist.name()]): 2,
    (b"LB.SEED", lambda typist: [typist.seed()]): 1,
    (b"LB.LOAD", lambda typist: [typist.one_of([PAYLOAD, LEASED, OVER, OVER, *JUNK]), b"REPLACE"]): 1,
}

# Commands of the server that move pools about.
MOVES = [
    lambda typist: [b"DEL", typist.one_of(KEYS)],
    lambda typist: [b"DEL", typist.one_of(KEYS)],
    lambda typist: [b"COPY", typist.one_of(KEYS), typist.one_of(KEYS), b"REPLACE"],
    lambda typist: [b"RENAME", typist.one_of(KEYS), typist.one_of(KEYS)],
    lambda typist: [b"SET", b"text", b"text"] if typist.chance(20) else [b"DEL", b"text"],
    lambda typist: [b"DEBUG", b"RELOAD"] if typist.chance(10) else [b"DEL", b"text"],
]


def exchange(wire, batch):
    """Sends commands at once, and holds each reply against the one that is expected."""
    wire.send(b"".join(pack(command) for command, _ in batch))
    for number, (command, expected) in enumerate(batch):
        answer = wire.read()
        same = answer.code == expected if isinstance(answer, Refused) else answer == expected
        if not same:
            before = "\n".join(
                f"  {earlier} -> {reply}" for earlier, reply in batch[max(0, number - 20) : number]
            )
            pytest.fail(
                f"{command} answers\n  {answer!r}, not\n  {expected!r}; before:\n{before}", pytrace=False
            )


class Exchange:
    """Takes commands to the server in batches, with the answers that the model gives."""

    def __init__(self, wire: Wire, typist: Typist, model: Model) -> None:
        self._wire = wire
        self._typist = typist
        self._model = model
        self._batch: list[tuple] = []

    def tell(self, command: list[bytes]) -> None:
        """One command more."""
        try:
            self._batch.append((command, self._model.run(command)))
        except Unseeded:
            self.tell([b"LB.SEED", command[1], self._typist.seed()])
            self.tell(command)
        except Unopened:
            self._let_open(command)
        if len(self._batch) >= BATCH:
            self.flush()

    def _let_open(self, command: list[bytes]) -> None:
        """The first one that gives leases in a pool that is new, or newly loaded or copied."""
        self.flush()
        answer = self._wire.ask(command)
        pool = self._model.keys[command[1]]
        pool.is_open = True
        if not answer:
            # Nobody holds what it takes. The epoch, if there is one now, is not known yet.
            assert answer == self._model.run(command), command
            pool.is_open = False
            return
        _, lease = answer[0] if isinstance(answer[0], list) else answer
        pool.epoch = int(lease.partition(b"-")[0])
        assert answer == self._model.run(command), command
        self._typist.past.append(lease)

    def flush(self) -> None:
        """Sends all that was told."""
        exchange(self._wire, self._batch)
        self._batch = []


def test_the_model_has_every_command_and_each_is_typed():
    modelled = COMMANDS.keys() - NOT_MODELLED
    assert {name.decode() for name in MODELLED if name.startswith(b"LB.")} == modelled
    assert {name.decode().upper() for name, _ in KINDS} == modelled


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_a_million_commands_do_what_the_model_does(manual):
    seed = int(os.environ.get("REDIS_LB_SEED", 1))
    print(f"REDIS_LB_SEED={seed}")
    model = Model()
    typist = Typist(seed, model)
    with Wire(manual.port) as wire:
        between = Exchange(wire, typist, model)
        for _ in range(NUMBER):
            between.tell(typist.command())
        for look in [b"LB.LIST", b"LB.STATS", b"LB.INFO", b"LB.LEASES", b"LB.LIMIT", b"LB.QUEUE"]:
            for key in model.keys:
                between.tell([look, key])
        between.flush()
        assert wire.ask("DBSIZE") == len(model.keys)
