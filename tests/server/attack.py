"""Attacks a server with all that clients can send, and checks what has to hold whatever they send.

    REDIS_LB_SERVERS=valkey-9.1.2 python tests/server/attack.py --seconds 1200 --seed 7

Commands of every kind in all combinations, right and wrong; pools that are moved, copied, expired and loaded
from damaged payloads; clients that wait and are killed; memory that is full; a replica that comes and goes.
The seed says what is sent. What comes of it also depends on time: a failure says what was sent last.

It checks that
- the server lives, no command panics, no reply has a wrong shape, and no lease id comes twice;
- a command that fails, or only reads, leaves the digest as it was (for a share of them);
- MAX and RATE hold in pools whose limits stay;
- the replica is equal whenever it is looked at, and in the end so is what the AOF leads to;
- no command takes long, and no memory stays taken.
"""

import argparse
import contextlib
import os
import random
import re
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from algorithms import ALGORITHMS, packed
from damage import Damage
from dump import Dump
from server import CRASH, Server, eventually
from servers import Binary, chosen
from wire import Refused, Wire, pack

SLOW_MICROS = 50_000
LEAK_BYTES = 16 << 20
WAITERS = 12
CHECKED_EVERY = 150  # batches
DEBUG_DIGEST = [b"DEBUG", b"DIGEST-VALUE"]
MISSING = "0" * 40
LEASE = re.compile(rb"\d+-\d+")
FAULT = "a fault in redis-lb: see the log"
# Codes that a refusal may begin with.
CODES = {"ERR", "WRONGTYPE", "NOBACKEND", "OOM", "BUSYKEY", "QUEUEFULL", "EXECABORT", "UNBLOCKED", "NOSCRIPT"}

KEYS = [b"p", b"q", b"r", b"\0\r\n", b"%s%n", b"", b"\xff" * 300]
NAMES = [b"a", b"b", b"c", b"COUNT", b"LEASE", b"\0\r\n", b"%s%n", b"\xff" * 512, b"10.0.0.1:8080"]
SESSIONS = [b"s", b"t", b"STRICT", b"9", b"\0\r\n", b"%n" * 256]
OWNERS = [b"o", b"OWNER", b"\0", b"%n" * 256]
COSTS = [b"tokens", b"t", b"COSTS", b"\0", b"%s", b"c" * 512]
# None of them is what is wanted, anywhere; some are.
JUNK = [b"", b"n" * 513, b"-1", b"01", b"1.5", b"5x", b"0", b"1", b"65536", b"10001", b"9" * 40, b"\xff\0"]
JUNK += [b"%d" % number for number in (2**31, 2**32, 2**40, 2**40 + 1, 2**47, 2**63, 2**64, -(2**63))]
JUNK += [b"COUNT", b"DISTINCT", b"EXCLUDE", b"LEASE", b"OWNER", b"MAX", b"RATE", b"BURST", b"TIER"]
JUNK += [b"COST", b"COSTS", b"EACH", b"LEFT"]
JUNK += [
    b"PRIO",
    b"FOR",
    b"ORDER",
    b"fair",
    b"BACKEND",
    b"OK",
    b"FAIL",
    b"LATENCY",
    b"REPLACE",
    b"STICKY",
    b"STRICT",
    b"hash",
    b"wrr",
    "Ā".encode(),
]
WORDS = [*packed(ALGORITHMS), b"WRR", b"Lc"]

# Runs commands, each behind the number of its words.
SCRIPT = b"""
local at = 1
while at <= #ARGV do
  local words = {}
  for i = 1, tonumber(ARGV[at]) do words[i] = ARGV[at + i] end
  redis.pcall(unpack(words))
  at = at + #words + 1
end
return at
"""


class Finding(AssertionError):
    """Something does not hold."""


# What replies look like


def is_int(reply: Any) -> bool:
    return isinstance(reply, int)


def is_ok(reply: Any) -> bool:
    return reply == "OK"


def is_name(reply: Any) -> bool:
    return isinstance(reply, bytes)


def is_map(reply: Any) -> bool:
    """A map of names, in either protocol."""
    if isinstance(reply, list):
        return len(reply) % 2 == 0 and all(map(is_name, reply[::2]))
    return isinstance(reply, dict) and all(map(is_name, reply))


def is_time(reply: Any) -> bool:
    """A reason, and milliseconds."""
    return isinstance(reply, list) and len(reply) == 2 and is_int(reply[1])


def is_anything(reply: Any) -> bool:
    return True


def is_list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda reply: isinstance(reply, list) and all(map(holds, reply))


def is_or_nil(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda reply: reply is None or holds(reply)


def is_lease(reply: Any) -> bool:
    """A backend and the id of a lease."""
    return bool(
        isinstance(reply, list) and len(reply) == 2 and all(map(is_name, reply)) and LEASE.fullmatch(reply[1])
    )


def leases_in(reply: Any) -> list[bytes]:
    """The ids of the leases that a pick was answered."""
    pairs = [reply] if is_lease(reply) else reply if isinstance(reply, list) else []
    return [pair[1] for pair in pairs if is_lease(pair)]


class Command(NamedTuple):
    """What is sent, and what a reply to it has to look like, if it is no refusal."""

    words: list[bytes]
    shape: Callable[[Any], bool] = is_anything
    only_reads: bool = False

    def __str__(self) -> str:
        return " ".join(repr(word if len(word) < 60 else word[:20] + b"...")[1:] for word in self.words)


# What is sent


class Generator:
    """Makes commands. The same seed makes the same ones, as long as the same leases and dumps are noted."""

    def __init__(self, seed: object) -> None:
        self.chance = random.Random(seed)
        self.leases: deque[bytes] = deque([b"7-1"], maxlen=60)
        self.dumps: deque[bytes] = deque(maxlen=60)
        self._makers = [
            *[self.pick] * 10,
            *[self.grant] * 8,
            *[self.stick] * 6,
            *[self.spend] * 6,
            self.forget,
            *[self.done] * 6,
            *[self.add] * 4,
            *[self.look] * 5,
            *[self.peek] * 2,
            *[self.limit] * 4,
            *[self.state] * 3,
            *[self.members] * 2,
            *[self.renew, self.release] * 2,
            *[self.report] * 4,
            self.health,
            self.queue,
            *[self.clockwork] * 2,
            *[self.moved] * 4,
            *[self.gone] * 1,
            *[self.restored] * 3,
            self.native,
        ]

    def any(self) -> Command:
        """One of all kinds; now and then with a mistake."""
        command = self.chance.choice(self._makers)()
        is_ours = command.words[0].startswith(b"LB.")
        return self._mistaken(command) if is_ours and self.chance.random() < 0.15 else command

    def _mistaken(self, command: Command) -> Command:
        """With a wrong word, one too many or one too few. None is BLOCK: nobody would hear it wait."""
        words = [*command.words]
        at = self.chance.randrange(1, len(words) + 1)
        gone = self.chance.randrange(2)
        words[at : at + gone] = self.chance.choice([[], [self.chance.choice(JUNK)]])
        return Command(words)

    def key(self) -> bytes:
        return self.chance.choice(KEYS[:3] * 4 + KEYS)

    def name(self) -> bytes:
        return self.chance.choice(NAMES[:3] * 3 + NAMES)

    def names(self, most: int) -> list[bytes]:
        return [self.name() for _ in range(self.chance.randint(1, most))]

    def number(self, *usual: int) -> bytes:
        return b"%d" % self.chance.choice(usual)

    def maybe(self, *options: list[bytes], share: float = 0.3) -> list[bytes]:
        """Some of these options, in any order."""
        taken = [option for option in options if self.chance.random() < share]
        self.chance.shuffle(taken)
        return [
            self.chance.choice([word, word.lower()]) if place == 0 else word
            for option in taken
            for place, word in enumerate(option)
        ]

    def algorithm(self) -> list[bytes]:
        """One, often none."""
        word = self.chance.choice([*WORDS, b"hash"])
        item = [self.chance.choice(SESSIONS)] if word == b"hash" else []
        return [word, *item] if self.chance.random() < 0.6 else []

    def wanted(self) -> tuple[list[bytes], bool]:
        """What stands behind the key in LB.PICK, but for LEASE and BLOCK; whether an array is answered."""
        count = self.chance.random() < 0.3
        words = self.algorithm()
        if count:
            words += [b"COUNT", self.number(1, 2, 3, 9, 100)]
            words += [b"DISTINCT"] * self.chance.randrange(2)
        if self.chance.random() < 0.2:
            names = self.names(4)
            words += [b"EXCLUDE", b"%d" % len(names), *names]
        return words, count

    def pick(self) -> Command:
        words, count = self.wanted()
        return Command([b"LB.PICK", self.key(), *words], is_list_of(is_name) if count else is_or_nil(is_name))

    def grant(self) -> Command:
        words, count = self.wanted()
        owner = self.maybe([b"OWNER", self.chance.choice(OWNERS)])
        lease = [b"LEASE", self.number(1, 5, 30, 200, 1000, 60_000, 2**40), *owner]
        shape = is_list_of(is_lease) if count else is_or_nil(is_lease)
        return Command([b"LB.PICK", self.key(), *words, *lease], shape)

    def costs(self) -> list[bytes]:
        """Amounts of costs."""
        costs = self.chance.choices(COSTS, k=self.chance.randint(1, 3))
        words = [word for cost in costs for word in (cost, self.number(0, 1, 7, 40, 2**40))]
        return [b"COSTS", b"%d" % len(costs), *words]

    def spend(self) -> Command:
        """A pick that takes costs too."""
        command = self.chance.choice([self.pick, self.grant, self.grant, self.stick])()
        return Command([*command.words, *self.costs()], command.shape)

    def stick(self) -> Command:
        """A pick for a session."""
        words = self.algorithm()
        lease = [b"LEASE", self.number(1, 30, 1000, 60_000)]
        excluded = self.names(3)
        words += [b"STICKY", self.chance.choice(SESSIONS), self.number(1, 30, 500, 60_000, 2**40)]
        words += self.maybe([b"STRICT"], [b"EXCLUDE", b"%d" % len(excluded), *excluded])
        if self.chance.random() < 0.4:
            return Command([b"LB.PICK", self.key(), *words, *lease], is_or_nil(is_lease))
        return Command([b"LB.PICK", self.key(), *words], is_or_nil(is_name))

    def forget(self) -> Command:
        return Command(
            [b"LB.FORGET", self.key(), self.chance.choice(SESSIONS)], lambda reply: reply in (0, 1)
        )

    def waiting(self) -> Command:
        """One that may wait."""
        command = self.chance.choice([self.pick, self.grant, self.stick, self.spend])()
        place = self.maybe(
            [b"PRIO", self.number(0, 1, 7, 255)], [b"FOR", self.chance.choice(OWNERS)], share=0.5
        )
        block = [b"BLOCK", self.number(0, 1, 20, 90, 300, 60_000), *place]
        command = Command([*command.words, *block], command.shape)
        return self._mistaken(command) if self.chance.random() < 0.1 else command

    def peek(self) -> Command:
        words, count = self.wanted()
        if not count:
            words += self.maybe([b"STICKY", self.chance.choice(SESSIONS)])
        shape = is_list_of(is_name) if count else is_or_nil(is_name)
        return Command([b"LB.PEEK", self.key(), *words], shape, only_reads=True)

    def lease(self) -> bytes:
        return self.chance.choice(self.leases)

    def told(self) -> list[bytes]:
        """What LB.DONE and LB.REPORT tell."""
        return self.maybe(
            [self.chance.choice([b"OK", b"FAIL", b"FAIL"])],
            [b"LATENCY", self.number(0, 9, 20_000, 2**50)],
            [b"LOAD", self.chance.choice([b"0", b"0.3", b"1", b"7.25", b"1000"])],
            *([[b"COOL", self.number(1, 20, 500, 2**40)]] if self.chance.random() < 0.2 else []),
        )

    def done(self) -> Command:
        words = [b"LB.DONE", self.key(), self.lease(), *self.told()]
        words += self.costs() if self.chance.random() < 0.4 else []
        return Command(words, lambda reply: reply in (0, 1))

    def report(self) -> Command:
        words = [b"LB.REPORT", self.key(), self.name(), *self.told()]
        left = [b"LEFT", self.chance.choice(COSTS), self.number(0, 5, 2**40)]
        words += left if self.chance.random() < 0.2 else []
        return Command(words, lambda reply: reply in (0, 1))

    def health(self) -> Command:
        window = [b"MIN", self.number(1, 3, 20), b"WINDOW", self.number(20, 500, 5000)]
        settings = self.maybe(
            [b"FAILS", self.number(0, 1, 3)],
            [b"FAILRATE", self.number(0, 1, 50, 100), *window],
            [b"EJECT", self.number(1, 100, 2000)],
            [b"MAXEJECT", self.number(1, 50, 100)],
            [b"SLOWSTART", self.number(0, 50, 1000)],
            [b"ADAPT", self.number(0, 10, 500)],
        )
        return Command([b"LB.HEALTH", self.key(), *settings])

    def queue(self) -> Command:
        options = self.maybe(
            [b"MAX", self.number(0, 0, 1, 3, 2**31 - 1)],
            [b"ORDER", self.chance.choice([b"fifo", b"fair"])],
            share=0.6,
        )
        return Command([b"LB.QUEUE", self.key(), *options], is_ok if options else is_map)

    def renew(self) -> Command:
        words = [b"LB.RENEW", self.key(), self.lease(), self.number(1, 20, 500, 2**40)]
        return Command(words, lambda reply: reply in (0, 1))

    def release(self) -> Command:
        return Command([b"LB.RELEASE", self.key(), b"OWNER", self.chance.choice(OWNERS)], is_int)

    def pairs(self, most: int) -> list[bytes]:
        weights = (0, 1, 1, 2, 3, 5, 60_000, 65_535)
        return [word for name in self.names(most) for word in (name, self.number(*weights))]

    def add(self) -> Command:
        if self.chance.random() < 0.05:
            size, step = self.chance.choice([15, 16, 17, 64, 120]), self.chance.randrange(7)
            pairs = [word for n in range(size) for word in (b"%d" % n, b"%d" % (n * step % 7 + 1))]
            return Command([self.chance.choice([b"LB.ADD", b"LB.SET"]), self.key(), *pairs], is_int)
        words = self.chance.choice([[self.name()], self.pairs(4)])
        return Command([b"LB.ADD", self.key(), *words], is_int)

    def members(self) -> Command:
        kind = self.chance.randrange(3)
        if kind == 0:
            return Command([b"LB.SET", self.key(), *self.pairs(6)], is_int)
        if kind == 1:
            return Command([b"LB.REM", self.key(), *self.names(3)], is_int)
        return Command([b"LB.WEIGHT", self.key(), *self.pairs(3)], is_ok)

    def state(self) -> Command:
        if self.chance.random() < 0.2:
            return Command([b"LB.POLICY", self.key(), self.chance.choice(WORDS)], is_ok)
        state = self.chance.choice([b"up", b"up", b"UP", b"drain", b"down"])
        return Command([b"LB.STATE", self.key(), self.name(), state], is_ok)

    def limit(self) -> Command:
        rate = [b"RATE", self.number(1, 3, 100), self.number(1, 7, 300, 2**40)]
        rate += self.maybe([b"BURST", self.number(1, 5, 2**40)])
        rate = self.chance.choice([rate, [b"RATE", b"0", self.number(0, 1, 300)]])
        words = [[b"MAX", self.number(0, 0, 1, 2, 9, 2**31 - 1)], rate]
        if backend := self.maybe([b"BACKEND", self.name()], share=0.6):
            words.append([b"TIER", self.number(0, 0, 1, 2, 255)])
        elif self.chance.random() < 0.5:
            backend = [b"EACH"]
        else:
            words.append([b"BALANCE", self.number(0, 101, 125, 10_000)])
        for cost in self.chance.sample(COSTS, self.chance.choice([0, 0, 1, 2])):
            limit = [self.number(1, 20, 1000, 2**40), self.number(1, 100, 2**40)]
            limit += self.maybe([b"BURST", self.number(1, 30, 2**40)])
            words.append([b"COST", cost, *self.chance.choice([limit, limit, [b"0", b"0"]])])
        options = self.maybe(*words, share=0.5)
        return Command([b"LB.LIMIT", self.key(), *backend, *options], is_anything if not options else is_ok)

    def look(self) -> Command:
        key = self.key()
        filters = self.maybe(
            [b"BACKEND", self.name()], [b"OWNER", self.chance.choice(OWNERS)], [b"COUNT", self.number(1, 9)]
        )
        words, shape = self.chance.choice(
            [
                ([b"LB.LIST", key], is_list_of(is_name)),
                ([b"LB.CARD", key], is_int),
                ([b"LB.INFO", key], is_or_nil(is_map)),
                ([b"LB.STATS", key], is_map),
                ([b"LB.STATS", key, self.name()], is_or_nil(is_map)),
                ([b"LB.LEASES", key, *filters], is_list_of(is_map)),
                ([b"LB.WEIGHT", key, self.name()], is_or_nil(is_int)),
                ([b"LB.STATE", key, self.name()], is_or_nil(lambda r: r in ("up", "drain", "down"))),
                ([b"LB.POLICY", key], is_or_nil(lambda r: isinstance(r, str))),
                ([b"LB.LIMIT", key, *self.maybe([b"BACKEND", self.name()])], is_or_nil(is_map)),
                ([b"LB.LIMIT", key, b"EACH"], is_map),
                (
                    [b"LB.WHEN", key, *self.maybe(self.costs(), share=0.5)],
                    is_time,
                ),
            ]
        )
        return Command(words, shape, only_reads=words[0] not in (b"LB.WHEN",))

    def clockwork(self) -> Command:
        """The primary's own commands, from a client."""
        key, kind = self.key(), self.chance.randrange(3)
        if kind == 0:
            now = int(time.time() * 1000)
            return Command([b"LB.TICK", key, self.number(0, 1, now - 5000, now, now + 9999, 2**47)], is_ok)
        if kind == 1:
            return Command([b"LB.SEED", key, self.number(0, 1, 2**64 - 1)], is_ok)
        return Command([b"LB.EPOCH", key, self.number(0, 7, 2**64 - 1)], is_ok)

    def moved(self) -> Command:
        there, here = self.key(), self.key()
        words = self.chance.choice(
            [
                [b"RENAME", there, here],
                [b"RENAMENX", there, here],
                [b"COPY", there, here, b"REPLACE"],
                [b"COPY", there, here, b"DB", b"1", b"REPLACE"],
                [b"MOVE", there, b"1"],
                [b"SWAPDB", b"0", b"1"],
                [b"PEXPIRE", there, self.number(1, 20, 90_000)],
                [b"PERSIST", there],
                [b"DUMP", there],
                [b"DUMP", there],
            ]
        )
        return Command(words)

    def gone(self) -> Command:
        key = self.key()
        return Command(
            self.chance.choice([[b"DEL", key], [b"UNLINK", key], [b"SET", key, b"x"], [b"LPUSH", key, b"x"]])
        )

    def restored(self) -> Command:
        """Somebody's dump, damaged or not."""
        if not self.dumps:
            return Command([b"DUMP", self.key()])
        dump = self.chance.choice(self.dumps)
        payload = Dump(dump).payload
        if self.chance.random() < 0.7:
            damage = Damage(self.chance.getrandbits(64), [Dump(each).payload for each in self.dumps])
            dump, payload = Dump(dump).damaged(damage, payload), damage.done_to(payload)
        if self.chance.random() < 0.5:
            return Command([b"LB.LOAD", self.key(), payload, *self.maybe([b"REPLACE"], share=0.8)], is_ok)
        return Command([b"RESTORE", self.key(), b"0", dump, *self.maybe([b"REPLACE"], share=0.8)])

    def native(self) -> Command:
        key = self.key()
        return Command(
            self.chance.choice(
                [
                    [b"MEMORY", b"USAGE", key],
                    [b"OBJECT", b"ENCODING", key],
                    [b"TYPE", key],
                    [b"TOUCH", key],
                    [b"SCAN", b"0", b"TYPE", b"lbpool---"],
                    [b"PING"],
                    [b"RANDOMKEY"],
                ]
            ),
            only_reads=True,
        )


# What it is sent to


class Limited:
    """Pools whose limits stay, in a database that nothing else touches."""

    DB = 3
    MAX, MAX_EACH = 4, 2
    RATE, RATE_MS, BURST = 20, 100, 5
    # In this order, because somebody may be waiting for them.
    SETUP = [
        b"LB.ADD max a 0 b 0 c 0",
        b"LB.LIMIT max BACKEND a MAX %d" % MAX_EACH,
        b"LB.LIMIT max BACKEND b MAX %d" % MAX_EACH,
        b"LB.LIMIT max BACKEND c MAX %d" % MAX_EACH,
        b"LB.LIMIT max MAX %d" % MAX,
        b"LB.WEIGHT max a 3 b 2 c 1",
        b"LB.LIMIT rate RATE %d %d BURST %d" % (RATE, RATE_MS, BURST),
        b"LB.ADD rate a 2 b 1",
    ]

    def __init__(self, port: int, chance: random.Random) -> None:
        self.wire = Wire(port)
        self.wire.ask(f"SELECT {self.DB}")
        self._chance = chance
        self.set_up()

    def set_up(self) -> None:
        """After they were lost."""
        self._seen: deque[tuple[int, int]] = deque(maxlen=100)
        self._held: list[bytes] = []
        for command in self.SETUP:
            if isinstance(answer := self.wire.ask(command.split()), Refused):
                raise Finding(f"{command} answers {answer}")

    def command(self) -> Command:
        chance, held = self._chance, self._held
        algorithm = chance.choice([[], [], [b"rr"], [b"lc"], [b"p2c"], [b"random"], [b"hash", b"x"]])
        count = chance.choice([[], [], [b"COUNT", b"3"], [b"COUNT", b"2", b"DISTINCT"]])
        shape = (is_list_of if count else is_or_nil)(is_lease)
        pick = Command(
            [b"LB.PICK", b"max", *algorithm, *count, b"LEASE", chance.choice([b"20", b"900"])], shape
        )
        kind = chance.randrange(12)
        if kind < 4:
            return pick
        if kind < 7 and held:
            return Command([b"LB.DONE", b"max", held.pop(chance.randrange(len(held)))], is_int)
        if kind == 7 and held:
            return Command([b"LB.RENEW", b"max", chance.choice(held), b"50"], is_int)
        if kind == 8:
            name, state = chance.choice([b"a", b"b"]), chance.choice([b"up", b"up", b"drain", b"down"])
            return Command([b"LB.STATE", b"max", name, state], is_ok)
        if kind == 9:
            return Command([b"LB.WEIGHT", b"max", b"b", chance.choice([b"0", b"1", b"9"])], is_ok)
        return Command([b"LB.PICK", b"rate", *algorithm, *count], is_anything)

    def waiting(self) -> Command:
        if self._chance.random() < 0.5:
            return Command([b"LB.PICK", b"max", b"LEASE", b"30", b"BLOCK", b"200"], is_or_nil(is_lease))
        return Command([b"LB.PICK", b"rate", b"COUNT", b"4", b"BLOCK", b"200"], is_list_of(is_name))

    def note(self, leases: list[bytes]) -> None:
        self._held = (self._held + leases)[-20:]

    def check(self) -> None:
        """Neither is exceeded."""
        leases, info = self.wire.ask("LB.LEASES max"), self.wire.ask("LB.INFO rate")
        if isinstance(leases, Refused) or isinstance(info, Refused):
            return
        on = Counter(lease[lease.index(b"backend") + 1] for lease in leases)
        if on.total() > self.MAX or max(on.values(), default=0) > self.MAX_EACH:
            raise Finding(f"MAX {self.MAX}, {self.MAX_EACH} each, but there are {on}")
        told = dict(zip(info[::2], info[1::2], strict=True))
        clock, picks = told[b"clock"], told[b"picks"]
        for then, before in self._seen:
            most = self.BURST + (clock - then) * self.RATE // self.RATE_MS
            if picks - before > most:
                raise Finding(f"{picks - before} picks in {clock - then} ms, at most {most}")
        self._seen.append((clock, picks))


DBS = [Limited.DB, 1, 0]  # a connection that has looked at all is back in the first one


class Attack:
    """One run against a primary with a replica."""

    def __init__(self, start: Callable[..., Server], seed: object) -> None:
        # Every write is in the AOF when its reply comes. Dumps are not compressed: they can be damaged.
        options = {"appendonly": "yes", "appendfsync": "no", "rdbcompression": "no"}
        options |= {"slowlog_log_slower_than": SLOW_MICROS, "save": '""'}
        # A replica's first copy goes through no file (as by default since 7.0): DEBUG RELOAD would overwrite
        # that file with a later state, and the replica would run twice what came between.
        options |= {"repl_diskless_sync": "yes"}
        self._start, self.seed = start, seed
        self.primary = start(**options)
        self.replica = start(replicaof=f"127.0.0.1 {self.primary.port}")
        self.chance = random.Random(f"{seed} of the attack")
        self.make = Generator(seed)
        self.sent: Counter = Counter()
        self.refused: Counter = Counter()
        self.last: deque[str] = deque(maxlen=60)
        self._granted: set[bytes] = set()
        self._logs = {each: (each.folder / "log").open() for each in (self.primary, self.replica)}
        self._asks = Wire(self.primary.port)
        self._wires = [Wire(self.primary.port, protocol) for protocol in (2, 3)]
        self._waiters: dict[Wire, Command] = {}
        self._killed: set[Wire] = set()
        self._limited = Limited(self.primary.port, self.chance)
        self._delay = self._run_delay()
        self._memory: int | None = None

    def run(self, seconds: float) -> None:
        """Until the time is over, or something does not hold."""
        end = time.monotonic() + seconds
        batches = 0
        try:
            while time.monotonic() < end:
                self._batch()
                self._disturb()
                self._hear_waiters()
                batches += 1
                if batches % CHECKED_EVERY == 0:
                    self.check()
            self.check()
            self._check_memory()
            self._check_aof()
        except (AssertionError, OSError) as error:
            state = "lives" if self.primary.alive() else f"is dead:\n{self.primary.log_tail()}"
            sent = "\n".join(self.last)
            raise Finding(f"seed {self.seed}: {error}\nthe server {state}\nsent last:\n{sent}") from error

    # Sending

    def _send(self, wire: Wire, commands: list[Command]) -> list[Any]:
        self.last += [f"{wire._socket.fileno()}: {each}" for each in commands]
        self.sent.update(each.words[0] for each in commands)
        wire.send(b"".join(pack(each.words) for each in commands))
        replies = []
        for command in commands:
            replies.append(wire.read())
            self.judge(command, replies[-1])
        return replies

    def judge(self, command: Command, reply: Any) -> None:
        """What holds for every reply."""
        if isinstance(reply, Refused):
            self.refused[reply.code] += 1
            # A damaged payload may be that of a half-changed pool; a panic is in the log, and counted.
            if reply.code not in CODES or FAULT in reply:
                raise Finding(f"{command} answers {reply}")
        elif reply == "QUEUED":
            pass
        elif not command.shape(reply):
            raise Finding(f"{command} answers {reply}")
        elif command.words[0] == b"LB.PICK":
            for lease in leases_in(reply):
                if lease in self._granted:
                    raise Finding(f"{command} answers {reply}: that id was granted before")
                self._granted.add(lease)
                self.make.leases.append(lease)
        elif command.words[0] == b"DUMP" and reply and is_pool(reply):
            self.make.dumps.append(reply)

    def _batch(self) -> None:
        kind, wire = self.chance.random(), self.chance.choice(self._wires)
        commands = [self.make.any() for _ in range(self.chance.randint(1, 25))]
        if kind < 0.45:
            self._send(wire, commands)
        elif kind < 0.6:
            self._transaction(wire, commands)
        elif kind < 0.7:
            counted = [word for each in commands for word in (b"%d" % len(each.words), *each.words)]
            self.sent.update(each.words[0] for each in commands)
            self._send(wire, [Command([b"EVAL", SCRIPT, b"0", *counted])])
        elif kind < 0.85:
            self._unchanged(commands[:8])
        else:
            limited = [self._limited.command() for _ in range(self.chance.randint(1, 12))]
            replies = self._send(self._limited.wire, limited)
            self._limited.note([lease for reply in replies for lease in leases_in(reply)])
            self._limited.check()

    def _transaction(self, wire: Wire, commands: list[Command]) -> None:
        *_, replies = self._send(wire, [Command([b"MULTI"]), *commands, Command([b"EXEC"])])
        if isinstance(replies, list):
            # What was refused before it was queued makes the whole fail.
            for command, reply in zip(commands, replies, strict=True):
                self.judge(command, reply)

    def _unchanged(self, commands: list[Command]) -> None:
        """What fails and what reads changes nothing. In a transaction nothing comes between."""
        digest = Command([*DEBUG_DIGEST, *KEYS])
        for command in commands:
            if command.words[0] in (b"SWAPDB", b"PEXPIRE", b"DUMP"):
                continue
            unit = [digest, command, digest]
            *_, replies = self._send(self._wires[0], [Command([b"MULTI"]), *unit, Command([b"EXEC"])])
            if isinstance(replies, list):
                before, reply, after = replies
                self.judge(command, reply)
                # A key whose time is over is deleted when it is opened; and before any command whoever waits
                # at its key is served with what has come there.
                waited = {each.words[1] for each in self._waiters.values()}
                digests = zip(KEYS, before, after, strict=True)
                changed = [
                    key for key, was, now in digests if now not in (was, MISSING) and key not in waited
                ]
                if changed and (isinstance(reply, Refused) or command.only_reads):
                    raise Finding(f"{command} answers {reply}, but changes {changed}")

    # What goes on beside

    def _disturb(self) -> None:
        kind = self.chance.random()
        if kind < 0.3:
            self._wait()
        elif kind < 0.36:
            self._end_a_wait()
        elif kind < 0.375:
            self._send(self._asks, [Command([b"CONFIG", b"SET", b"maxmemory", b"1"])])
            self._batch()
            self._batch()
            self._send(self._asks, [Command([b"CONFIG", b"SET", b"maxmemory", b"0"])])
        elif kind < 0.38 and self.primary.binary.satisfies("7.0"):
            # 6.2.5 keeps the end of an earlier, longer pause, though that was taken back.
            how = self.chance.choice([b"WRITE", b"ALL"])
            self._send(self._asks, [Command([b"CLIENT", b"PAUSE", b"30", how])])
        elif kind < 0.382:
            # The server forgets keys whose time is over then, and does not tell its replica.
            self._persist()
            self._send(self._asks, [Command([b"DEBUG", b"RELOAD"])])
        elif kind < 0.384:
            self._send(self._asks, [Command([b"BGREWRITEAOF"])])
        elif kind < 0.387:
            self._send(self._asks, [Command([b"FLUSHDB", *self.chance.choice([[], [b"ASYNC"]])])])
        elif kind < 0.388:
            self._flush_all()
        elif kind < 0.39:
            self._send(self._asks, [Command([b"CLIENT", b"KILL", b"TYPE", b"replica"])])

    def _persist(self) -> None:
        """No key expires."""
        for db in DBS:
            self._asks.ask(f"SELECT {db}")
            for key in self._asks.ask("KEYS *"):
                self._asks.ask([b"PERSIST", key])
            # What is over is gone for good when it is looked at.
            self._asks.ask([b"EXISTS", *KEYS])

    def _flush_all(self) -> None:
        self._send(self._asks, [Command([b"FLUSHALL", *self.chance.choice([[], [b"ASYNC"]])])])
        self._limited.set_up()

    def _wait(self) -> None:
        if len(self._waiters) >= WAITERS:
            return
        wire = Wire(self.primary.port, self.chance.choice([2, 3]))
        command = self.make.waiting()
        if self.chance.random() < 0.3:
            wire.ask(f"SELECT {Limited.DB}")
            command = self._limited.waiting()
        wire.id = wire.ask("CLIENT ID")
        self.last.append(f"{wire._socket.fileno()}: {command}")
        self.sent[command.words[0]] += 1
        wire.send(pack(command.words))
        self._waiters[wire] = command

    def _end_a_wait(self) -> None:
        if not self._waiters:
            return
        wire = self.chance.choice([*self._waiters])
        how = self.chance.choice([b"KILL ID", b"UNBLOCK TIMEOUT", b"UNBLOCK ERROR", b"close"])
        if how == b"close":
            self._waiters.pop(wire)
            wire.__exit__()
            return
        verb, rest = how.split()
        words = [b"CLIENT", verb, b"ID", b"%d" % wire.id]
        if verb == b"UNBLOCK":
            words = [b"CLIENT", verb, b"%d" % wire.id, rest]
        else:
            self._killed.add(wire)
        self._send(self._asks, [Command(words)])

    def _hear_waiters(self) -> None:
        while self._waiters:
            ready, _, _ = select.select([wire._socket for wire in self._waiters], [], [], 0)
            if not ready:
                return
            for wire in [wire for wire in self._waiters if wire._socket in ready]:
                command = self._waiters.pop(wire)
                try:
                    reply = wire.read()
                    self.judge(command, reply)
                except (AssertionError, OSError) as error:
                    # It was killed; but nobody else is.
                    if wire not in self._killed or isinstance(error, Finding):
                        raise
                finally:
                    self._killed.discard(wire)
                    wire.__exit__()

    # Looking

    def check(self) -> None:
        """What holds at any time, of the server as a whole."""
        for server, log in self._logs.items():
            news = log.read()
            if not server.alive() or CRASH in news or "panicked" in news:
                raise Finding(f"{server}:\n{server.log_tail()}")
        if "lb_poisoned_pools:0" not in self._asks.ask("INFO everything").decode():
            raise Finding("a pool is half-changed")
        self._check_speed()
        with self._standing_still():
            self._check_replica()
        if self.chance.random() < 0.1:
            self._check_memory()

    @contextlib.contextmanager
    def _standing_still(self) -> Iterator[None]:
        """No write, no tick."""
        self._asks.ask("CLIENT PAUSE 60000 WRITE")
        try:
            yield
        finally:
            self._asks.ask("CLIENT UNPAUSE")

    def _check_replica(self) -> None:
        digests = {}

        def is_equal() -> bool:
            for server, wire in (self.primary, self._asks), (self.replica, replica):
                digests[server] = wire.ask("DEBUG DIGEST")
            return len(set(digests.values())) == 1

        with Wire(self.replica.port) as replica:
            try:
                eventually(is_equal)
            except AssertionError:
                raise Finding(f"the replica differs: {self._differing(replica)}") from None

    def _differing(self, replica: Wire) -> list:
        found = []
        for db in DBS:
            for wire in self._asks, replica:
                wire.ask(f"SELECT {db}")
            sizes = [wire.ask("DBSIZE") for wire in (self._asks, replica)]
            found += [(db, sizes)] if len(set(sizes)) > 1 else []
            for key in {*KEYS, *self._asks.ask("KEYS *"), *replica.ask("KEYS *")}:
                told = [self._of(wire, key) for wire in (self._asks, replica)]
                found += [(db, key, told)] if told[0][0] != told[1][0] else []
        return found

    def _of(self, wire: Wire, key: bytes) -> tuple[list, list]:
        """What should be the same everywhere, also of a key whose time is over; and more."""
        there = isinstance(wire.ask([b"DEBUG", b"OBJECT", key]), Refused)
        same = [there, wire.ask([b"TYPE", key]), wire.ask([*DEBUG_DIGEST, key])]
        return same, [wire.ask([word, key]) for word in (b"PTTL", b"LB.INFO", b"LB.LEASES")]

    def _check_speed(self) -> None:
        """By how long it waited for a processor, something may have seemed longer."""
        delay = self._run_delay()
        excused, self._delay = (delay - self._delay) // 1000, delay
        for entry in self._asks.ask("SLOWLOG GET 128"):
            _, _, micros, words, *_ = entry
            if words[0].startswith((b"LB.", b"lb.")) and micros > SLOW_MICROS + excused:
                raise Finding(f"{words} took {micros} µs")
        self._asks.ask("SLOWLOG RESET")

    def _run_delay(self) -> int:
        """How long its main thread has waited for a processor, and the machine for its host: nanoseconds."""
        process = self.primary.client().info("server")["process_id"]
        stolen = int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) + int(1e9 * stolen)

    def _check_memory(self) -> None:
        """When all is gone, so is what it took."""
        for wire in self._waiters:
            wire.__exit__()
        self._waiters.clear()
        self._asks.ask("FLUSHALL")
        self._asks.ask("SCRIPT FLUSH")
        self.make.dumps.clear()

        def used() -> int:
            return self.primary.client().info("memory")["used_memory"]

        if self._memory is None:
            self._memory = used()
        try:
            eventually(lambda: used() < self._memory + LEAK_BYTES)
        except AssertionError:
            raise Finding(f"{used()} bytes are in use where all is gone; first {self._memory}") from None
        self._limited.set_up()

    def _check_aof(self) -> None:
        """What the AOF leads to is what there is."""
        for _ in range(20):
            self._batch()
        self._persist()
        self._asks.ask("CLIENT PAUSE 60000 WRITE")
        there = pools(self._asks)
        self.primary.kill()
        still = ["clock", "manual"]
        again = self._start(still, folder=self.primary.folder, appendonly="yes")
        with Wire(again.port) as wire:
            back = pools(wire)
        if back != there:
            differing = [(each, there.get(each), back.get(each)) for each in there | back]
            raise Finding(f"the AOF leads elsewhere: {[each for each in differing if each[1] != each[2]]}")

    def told(self) -> str:
        """What was done, in a line."""
        kinds = ", ".join(f"{kind.decode()} {number:,}" for kind, number in self.sent.most_common(12))
        return (
            f"seed {self.seed}: {self.sent.total():,} commands ({kinds}, …), "
            f"{self.refused.total():,} refused {dict(self.refused)}, {len(self._granted):,} leases"
        )


def pools(wire: Wire) -> dict[tuple[int, bytes], list]:
    """All that is there, by database and key."""
    found = {}
    for db in DBS:
        wire.ask(f"SELECT {db}")
        for key in wire.ask("KEYS *"):
            found[db, key] = wire.ask([*DEBUG_DIGEST, key])
    return found


def is_pool(dump: bytes) -> bool:
    """Whether it is of a pool, and not compressed."""
    return dump[:1] == b"\x07" and dump[11] >> 6 != 3


def attack(binary: Binary, module: Path, seconds: float, seed: object) -> None:
    """Attack a server of that kind, and print what was done."""
    with contextlib.ExitStack() as stack:

        def start(module_args: list[str] = (), **options: object) -> Server:
            return stack.enter_context(Server(binary, module, module_args, **options))

        run = Attack(start, seed)
        try:
            run.run(seconds)
        finally:
            print(f"{binary.name}, {run.told()}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=str(random.getrandbits(32)))
    options = parser.parse_args()
    for each in chosen():
        attack(each, Path(os.environ["REDIS_LB_MODULE"]).absolute(), options.seconds, options.seed)
