"""The module in plain Python, written from what is promised and not from how it is built.

`Model.run` takes a command as a client sends it, and answers in the terms of wire.py what a server does in
RESP2; of an error only the first word. Pools are walked from end to end by every command.
"""

import copy
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from typing import Any
from unittest.mock import ANY

from algorithms import ALGORITHMS, BY_CHANCE, BY_ITEM, packed
from redis_lb.affinity import fold, xxh3_64
from wire import Refused

CHANCE = set(packed(BY_CHANCE))
ITEM = set(packed(BY_ITEM))
# Health, COOL and `ewma` go by reports over time. Their plain form is tests/core/naive_health.rs, which
# random reports drive. A second one here would be its translation. Nothing types COOL or `ewma`.
NOT_MODELLED = {"LB.HEALTH"}
STATES = {b"up", b"drain", b"down"}
WORD = 2**64 - 1
SPAN = 2**40  # the longest
CLOCK = 2**47  # the latest
RATE = 2**40  # the most picks, and the largest amount of a cost
DEBT = 2**62  # the largest
COSTS = 4  # that can be limited in a pool
MAX = 2**31 - 1  # the most leases
LATENCY = 2**50
COUNT = 10_000

# A pool of one backend `a` with weight 5, as LB.LOAD takes it. The format is described in src/lb/codec.rs.
PAYLOAD = b"\x01" + bytes([1, 2, 0, 0, 0, 1]) + b"\x01a" + bytes([5, 0, 0, 0])
# The same at 100 ms, with MAX 9 for all, MAX 3 RATE 2 50 BURST 2 for `a`, and the lease 7-0 of `o` until 120.
LEASED = b"\x02" + PAYLOAD[1:] + bytes([100, 0, 9, 0, 1, 1, 1, 1]) + bytes([0, 3, 1, 2, 50, 2, 100, 100])
LEASED += bytes(6) + bytes([0, 7]) + b"\x01o" + bytes([0, 0, 1, 0, 100, 120])
# By version 2 of the rules, at 120 ms, MAX 3 for `a`: 7-0 is due, `o` has released 7-1, and 7-2 is open.
OVER = b"\x03\x02" + PAYLOAD[2:] + bytes([120, 0, 0, 0, 3, 1, 1, 3]) + bytes([0, 3, 0]) + bytes(6)
OVER += bytes([0, 7]) + b"\x01o" + bytes([0, 0, 1, 0, 100, 120]) + bytes([1, 0, 1, 0, 100, 126])
OVER += bytes([2, 0, 1, 0, 100, 127]) + bytes([128, 5, 0, 2]) + b"\x01o" + bytes([2])


class Refusal(Exception):
    """The command is refused, by an error with this first word."""


class Unseeded(Exception):
    """Chance is asked for, and nobody has seeded the pool: a server would, by a number of its own."""


class Unopened(Exception):
    """A lease is asked for, and a server would open an epoch first, of which only its answer tells."""


class Chance:
    """xoshiro256++ seeded by splitmix64, as Blackman and Vigna published them."""

    def __init__(self, seed: int) -> None:
        self._state = []
        for _ in range(4):
            seed = (seed + 0x9E3779B97F4A7C15) & WORD
            word = ((seed ^ seed >> 30) * 0xBF58476D1CE4E5B9) & WORD
            word = ((word ^ word >> 27) * 0x94D049BB133111EB) & WORD
            self._state.append(word ^ word >> 31)

    def _word(self) -> int:
        a, b, c, d = self._state
        word = (rotated((a + d) & WORD, 23) + a) & WORD
        c, d = c ^ a, d ^ b
        self._state = [a ^ d, b ^ c, c ^ (b << 17 & WORD), rotated(d, 45)]
        return word

    def below(self, n: int) -> int:
        """A number from 0 to n - 1 in Lemire's way: words that would make some likelier are passed over."""
        while True:
            product = self._word() * n
            if product & WORD >= 2**64 % n:
                return product >> 64


def rotated(word: int, bits: int) -> int:
    """The word, rotated to the left."""
    return (word << bits | word >> 64 - bits) & WORD


Rate = tuple[int, int, int]  # picks, milliseconds, burst


@dataclass(eq=False, slots=True)
class Bucket:
    """A bucket of a cost. Below zero it is in debt. Another bucket of the same cost is not the same."""

    rate: Rate
    is_own: bool
    level: int
    at: int

    def level_at(self, clock: int) -> int:
        """How full it is, in parts of a token."""
        picks, millis, burst = self.rate
        return min(self.level + (clock - self.at) * picks, burst * millis)

    def left(self, clock: int) -> int:
        """How many whole tokens are in it."""
        return self.level_at(clock) // self.rate[1]

    def holds(self, amount: int, clock: int) -> bool:
        """Whether it holds that, or is full."""
        return self.left(clock) >= min(amount, self.rate[2])

    def refill(self, amount: int) -> int:
        """When it holds that, or is full."""
        picks, millis, burst = self.rate
        return self.at + max(0, -((self.level - min(amount, burst) * millis) // picks))

    def change(self, tokens: int, clock: int) -> None:
        """Some come, or go."""
        _, millis, burst = self.rate
        level = self.level_at(clock) + tokens * millis
        self.level = max(-DEBT * millis, min(level, burst * millis))
        self.at = clock

    def run(self, rate: Rate, clock: int) -> None:
        """Tokens and debts stay, as far as they find room."""
        if rate != self.rate:
            level = self.level_at(clock) * rate[1] // self.rate[1]
            self.level = min(level, rate[1] * rate[2])
            self.at, self.rate = clock, rate

    def told(self) -> list[Any]:
        """As LB.LIMIT shows it."""
        picks, millis, burst = self.rate
        return [b"rate", picks, b"rate-ms", millis, b"burst", burst]


@dataclass(slots=True)
class Limit:
    """A limit of a backend or of a pool. A token has as many parts as the rate has milliseconds."""

    max: int = 0
    rate: Rate | None = None
    level: int = 0
    at: int = 0
    own: tuple[int, Rate | None] = (0, None)  # what was set for it alone
    costs: dict[bytes, Bucket] = field(default_factory=dict)

    def copy(self) -> "Limit":
        """The same, apart from it."""
        return replace(self, costs={name: replace(bucket) for name, bucket in self.costs.items()})

    def set(self, most: int | None, rate: Rate | None, each: "Limit", clock: int) -> None:
        """Sets what is given."""
        own_most, own_rate = self.own
        if rate is not None:
            own_rate = rate if rate[0] else None
        self.own = (own_most if most is None else most, own_rate)
        self.inherit(each, clock)

    def set_cost(self, name: bytes, rate: Rate, each: "Limit", clock: int) -> None:
        """Sets a rate of its own, or takes it away."""
        bucket = self.costs.get(name)
        if rate[0] and bucket:
            bucket.run(rate, clock)
            bucket.is_own = True
        elif rate[0]:
            self.costs[name] = Bucket(rate, True, rate[1] * rate[2], clock)
        elif bucket:
            bucket.is_own = False
        self.inherit(each, clock)

    def inherit(self, each: "Limit", clock: int) -> None:
        """What it has not of its own it has of each. What is left stays, as far as it finds room; what is new
        is full.
        """
        self.max = self.own[0] or each.own[0]
        rate = self.own[1] or each.own[1]
        if rate and rate != self.rate:
            _, millis, burst = rate
            self.level = self.level_at(clock) * millis // self.rate[1] if self.rate else burst * millis
            self.level = min(self.level, burst * millis)
            self.at = clock
        self.rate = rate
        for name in [*self.costs, *each.costs]:
            bucket, of_each = self.costs.get(name), each.costs.get(name)
            if bucket and not bucket.is_own and not of_each:
                del self.costs[name]
            elif bucket and not bucket.is_own:
                bucket.run(of_each.rate, clock)
            elif not bucket:
                self.costs[name] = Bucket(of_each.rate, False, of_each.rate[1] * of_each.rate[2], clock)

    def affords(self, costs: dict[bytes, int], clock: int) -> bool:
        """Whether it holds all that."""
        held = [(self.costs[name], amount) for name, amount in costs.items() if name in self.costs]
        return all(bucket.holds(amount, clock) for bucket, amount in held)

    def pay(self, costs: dict[bytes, int], clock: int) -> dict[Bucket, int]:
        """Takes all that; answers what was taken where."""
        held = {self.costs[name]: amount for name, amount in costs.items() if name in self.costs}
        for bucket, amount in held.items():
            bucket.change(-amount, clock)
        return held

    def level_at(self, clock: int) -> int:
        """How full the bucket is."""
        picks, millis, burst = self.rate
        return min(self.level + (clock - self.at) * picks, burst * millis)

    def allows(self, leases: int, clock: int) -> bool:
        """Whether it is not reached."""
        has_token = not self.rate or self.level_at(clock) >= self.rate[1]
        return has_token and (not self.max or leases < self.max)

    def take(self, clock: int) -> None:
        """A token goes."""
        if self.rate:
            self.level = self.level_at(clock) - self.rate[1]
            self.at = clock

    def refill(self) -> int:
        """When there is a token."""
        picks, millis, _ = self.rate
        return self.at + max(0, -((self.level - millis) // picks))

    def told(self, names: list[bytes | None], tier: int = 0, balance: int = 0) -> list[Any]:
        """As LB.LIMIT shows it: what is its own. Costs are in the order of their names in the pool."""
        most, rate = self.own
        told = [b"max", most] if most else []
        if rate:
            picks, millis, burst = rate
            told += [b"rate", picks, b"rate-ms", millis, b"burst", burst]
        told += [b"tier", tier] if tier else []
        told += [b"balance", balance] if balance else []
        own = [(name, self.costs[name]) for name in names if name in self.costs and self.costs[name].is_own]
        costs = [word for name, bucket in own for word in (name, bucket.told())]
        return told + ([b"costs", costs] if costs else [])

    def standing_costs(self, names: list[bytes | None], clock: int) -> list[Any]:
        """As LB.STATS and LB.INFO show them, if any is limited."""
        held = [(name, self.costs[name]) for name in names if name in self.costs]
        told = [(name, [*bucket.told(), b"left", bucket.left(clock)]) for name, bucket in held]
        return [b"costs", [word for pair in told for word in pair]] if told else []

    def standing(self, clock: int) -> list[Any]:
        """As LB.STATS and LB.INFO show it: with 0 where nothing is set, and with the tokens that are left."""
        picks, millis, burst = self.rate or (0, 0, 0)
        told = [b"max", self.max, b"rate", picks, b"rate-ms", millis, b"burst", burst]
        return [*told, b"tokens", self.level_at(clock) // millis if self.rate else 0]


@dataclass(eq=False, slots=True)
class Lease:
    """Something in flight, or over and not cleared yet."""

    number: int
    backend: "Backend"
    owner: bytes | None
    granted: int
    deadline: int
    took: dict[Bucket, int] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Session:
    """A session, and the backend that it sticks to."""

    backend: "Backend"
    deadline: int


@dataclass(eq=False, slots=True)
class Backend:
    """A member of a pool, the `number`-th that was ever added to it."""

    name: bytes
    number: int
    weight: int
    state: bytes = b"up"
    credit: int = 0
    picks: int = 0
    limit: Limit = field(default_factory=Limit)
    tier: int = 0
    turn: int = 0  # in which lc picked it last
    leases: int = 0
    done: int = 0
    failed: int = 0
    expired: int = 0
    latency: int = 0
    latencies: int = 0

    def reweight(self, weight: int) -> None:
        """The credit keeps its proportion to the weight, rounded toward zero."""
        if weight != self.weight:
            size = abs(self.credit) * weight // (self.weight or 1)
            self.credit = size if self.credit > 0 else -size
            self.weight = weight

    def load(self) -> float:
        """What lc and p2c go by. As floats such small fractions are equal where they are, and only there."""
        return (self.leases + 1) / self.weight

    def report(self, told: "Report") -> None:
        """Counts what is told of a request."""
        self.failed += told.failed
        self.latency += sum(told.latency)
        self.latencies += len(told.latency)

    def is_open(self, clock: int) -> bool:
        """Whether it can be picked, as far as the pool as a whole can be picked from."""
        is_in = bool(self.weight) and self.state == b"up"
        return is_in and self.limit.allows(self.leases, clock)

    def stats(self, names: list[bytes | None], clock: int, sessions: int) -> list[Any]:
        """As LB.STATS shows it. Its health is that of a pool without LB.HEALTH."""
        running = self.weight if self.is_open(clock) else 0
        stats = [b"weight", self.weight, b"running-weight", b"%d" % running, b"state", self.state]
        stats += [b"health", b"ok", b"back-in-ms", -1, b"picks", self.picks, b"leases", self.leases]
        stats += [b"done", self.done, b"failures", self.failed, b"failures-in-a-row", 0, b"ejections", 0]
        stats += [b"expired", self.expired]
        stats += [*self.limit.standing(clock), b"tier", self.tier]
        stats += [b"latency-us", self.latency // (self.latencies or 1), b"latency-sum-us", self.latency]
        stats += [b"latencies", self.latencies, b"sessions", sessions, b"load", b"0"]
        return stats + self.limit.standing_costs(names, clock)


@dataclass(slots=True)
class Report:
    """What LB.DONE and LB.REPORT tell, but for COOL."""

    failed: bool
    latency: list[int]
    costs: dict[bytes, int]
    left: list[tuple[bytes, int]]

    @staticmethod
    def of(words: Iterable[bytes], extra: bytes) -> "Report":
        """Reads it, with the option that only this command has."""
        taken = {b"OK": 0, b"FAIL": 0, b"LATENCY": 1, b"LOAD": 1, b"COSTS": COUNTED, b"LEFT": 2}
        taken = {
            option: many for option, many in taken.items() if many not in (COUNTED, 2) or option == extra
        }
        found = options(words, taken)
        if b"OK" in found and b"FAIL" in found:
            raise Refusal("ERR")
        if b"LOAD" in found and not re.fullmatch(rb"[0-9]{1,3}([.][0-9]+)?", *found[b"LOAD"]):
            raise Refusal("ERR")
        latency = [integer(*found[b"LATENCY"], 0, LATENCY)] if b"LATENCY" in found else []
        costs = amounts(found[b"COSTS"]) if b"COSTS" in found else {}
        left = [*amounts(found[b"LEFT"]).items()] if b"LEFT" in found else []
        return Report(b"FAIL" in found, latency, costs, left)


@dataclass(slots=True)
class Request:
    """What stands behind the key in LB.PICK and LB.PEEK, but for BLOCK."""

    algorithm: bytes | None
    item: bytes
    count: int | None
    distinct: bool
    exclude: list[bytes]
    lease: int | None
    owner: bytes | None
    session: tuple[bytes, int] | None
    is_strict: bool
    costs: dict[bytes, int]

    @staticmethod
    def of(words: Iterable[bytes], is_ahead: bool = False) -> "Request":
        """Reads it. A look ahead names a session without a time."""
        words = list(words)
        algorithm = words.pop(0).lower() if words and words[0].lower() in CHOOSE else None
        item = b""
        if algorithm in ITEM:
            (item,) = names([words.pop(0) if words else b""])
        options: dict[bytes, Any] = {}
        while words:
            option = words.pop(0).upper()
            if option in options:
                raise Refusal("ERR")
            if option == b"COUNT":
                options[option] = integer(words.pop(0) if words else b"", 1, COUNT)
            elif option == b"DISTINCT":
                options[option] = True
            elif option == b"EXCLUDE":
                number = integer(words.pop(0) if words else b"", 1, min(1000, len(words)))
                options[option] = names(words[:number])
                del words[:number]
            elif option == b"STICKY":
                (session,) = names([words.pop(0) if words else b""])
                span = 0 if is_ahead else integer(words.pop(0) if words else b"", 1, SPAN)
                options[option] = (session, span)
            elif option == b"STRICT":
                options[option] = True
            elif option == b"COSTS":
                number = integer(words.pop(0) if words else b"", 1, min(16, len(words) // 2))
                options[option] = amounts(words[: 2 * number])
                del words[: 2 * number]
            elif option == b"LEASE":
                options[option] = integer(words.pop(0) if words else b"", 1, SPAN)
            elif option == b"OWNER":
                (options[option],) = names([words.pop(0) if words else b""])
            else:
                raise Refusal("ERR")
        if b"DISTINCT" in options and b"COUNT" not in options:
            raise Refusal("ERR")
        if b"OWNER" in options and b"LEASE" not in options:
            raise Refusal("ERR")
        if b"STRICT" in options and (is_ahead or b"STICKY" not in options):
            raise Refusal("ERR")
        if b"STICKY" in options and options.get(b"COUNT", 1) > 1:
            raise Refusal("ERR")
        exclude = options.get(b"EXCLUDE", [])
        lease, owner = options.get(b"LEASE"), options.get(b"OWNER")
        session, is_strict = options.get(b"STICKY"), b"STRICT" in options
        count, is_distinct, costs = options.get(b"COUNT"), b"DISTINCT" in options, options.get(b"COSTS", {})
        return Request(algorithm, item, count, is_distinct, exclude, lease, owner, session, is_strict, costs)

    def answer(self, picked: list[Any]) -> Any:
        """An array, or without COUNT the one that there is."""
        if self.count is not None:
            return picked
        return picked[0] if picked else None


COUNTED = -1  # pairs, behind their number


def options(words: Iterable[bytes], taken: dict[bytes, int]) -> dict[bytes, list[bytes]]:
    """Keywords, each with as many values as it takes."""
    words = list(words)
    found = {}
    while words:
        keyword = words.pop(0).upper()
        if keyword in found or keyword not in taken:
            raise Refusal("ERR")
        many = taken[keyword]
        if many == COUNTED:
            many = 2 * integer(words.pop(0) if words else b"", 1, min(16, len(words) // 2))
        if len(words) < many:
            raise Refusal("ERR")
        found[keyword] = words[:many]
        del words[:many]
    return found


def amounts(words: list[bytes]) -> dict[bytes, int]:
    """Names of costs, each with an amount; of one that is named twice the last amount counts."""
    names(words[::2])
    return {name: integer(amount, 0, RATE) for name, amount in zip(words[::2], words[1::2], strict=True)}


def names(words: Iterable[bytes]) -> list[bytes]:
    """Names of backends, or of owners."""
    names = list(words)
    if not all(1 <= len(name) <= 512 for name in names):
        raise Refusal("ERR")
    return names


def integer(word: bytes, least: int, most: int) -> int:
    """A number of that range, as Redis writes it."""
    if not re.fullmatch(b"0|-?[1-9][0-9]*", word) or not least <= int(word) <= most:
        raise Refusal("ERR")
    return int(word)


def pairs(words: tuple[bytes, ...]) -> dict[bytes, int]:
    """Backends and their weights; of one that is named twice only the last mention is there."""
    if len(words) % 2:
        raise Refusal("ERR")
    pairs: dict[bytes, int] = {}
    for name, weight in zip(names(words[::2]), words[1::2], strict=True):
        pairs.pop(name, None)
        pairs[name] = integer(weight, 0, 65535)
    return pairs


@dataclass(eq=False, slots=True)
class Pool:
    """What is at a key. The dicts keep the order in which backends were added, and leases granted."""

    backends: dict[bytes, Backend] = field(default_factory=dict)
    policy: bytes = b"wrr"
    picks: int = 0
    added: int = 0  # how many ever were
    last: int = 0  # the number of the one that rr picked last
    turns: int = 0  # how many picks lc has made
    chance: Chance | None = None
    clock: int = 0
    limit: Limit = field(default_factory=Limit)
    each: Limit = field(default_factory=Limit)  # only what was set, and full buckets
    costs: list[bytes | None] = field(default_factory=lambda: [None] * COSTS)  # those that are limited
    leases: dict[bytes, Lease] = field(default_factory=dict)
    marks: "dict[Backend | bytes, int]" = field(
        default_factory=dict
    )  # leases of it with lower numbers are over
    rules: int = 1
    granted: int = 0  # how many ever were
    epoch: int = 0
    sessions: dict[bytes, Session] = field(default_factory=dict)
    queue: tuple[int, bytes] = (0, b"fifo")
    balance: int = 0  # in percent
    item: bytes = b""  # that the present pick asks for
    is_open: bool = False  # whether the server has opened an epoch since this value came to be

    def copy(self) -> "Pool":
        """The same, apart from it."""
        there = [*self.backends.values(), *(lease.backend for lease in self.leases.values())]
        there += [session.backend for session in self.sessions.values()]
        twins = {backend: replace(backend) for backend in there}
        for twin in twins.values():
            twin.limit = twin.limit.copy()
        limit = self.limit.copy()
        buckets = {
            bucket: twin.limit.costs[name]
            for backend, twin in twins.items()
            for name, bucket in backend.limit.costs.items()
        }
        buckets |= {bucket: limit.costs[name] for name, bucket in self.limit.costs.items()}
        leases = {id: replace(lease, backend=twins[lease.backend]) for id, lease in self.leases.items()}
        for lease in leases.values():
            lease.took = {buckets.get(bucket, bucket): amount for bucket, amount in lease.took.items()}
        apart = {
            "backends": {name: twins[backend] for name, backend in self.backends.items()},
            "leases": leases,
            "sessions": {
                name: replace(session, backend=twins[session.backend])
                for name, session in self.sessions.items()
            },
            "marks": {twins.get(of, of): below for of, below in self.marks.items()},
            "chance": copy.copy(self.chance),
            "limit": limit,
            "each": self.each.copy(),
            "costs": [*self.costs],
        }
        return replace(self, **apart, is_open=False)

    def is_void(self) -> bool:
        """Whether nothing would be lost with it."""
        limits = [self.limit, self.each]
        is_free = not any(limit.told([*limit.costs]) for limit in limits)
        is_set = self.policy != b"wrr" or not is_free or self.queue != (0, b"fifo")
        is_set = is_set or self.balance > 0
        return not self.backends and not is_set

    def find_costs(self) -> None:
        """A cost that nothing limits any more has no place; a new one has the first that is free."""
        limits = [self.each, self.limit, *(b.limit for b in self.backends.values())]
        limited = dict.fromkeys(name for limit in limits for name in limit.costs)
        self.costs = [name if name in limited else None for name in self.costs]

    # Membership

    def add(self, name: bytes, weight: int | None) -> int:
        """How many are new: 1 or 0."""
        there = self.backends.get(name)
        if there is None:
            self.added += 1
            self.backends[name] = backend = Backend(name, self.added, 1 if weight is None else weight)
            backend.limit.inherit(self.each, self.clock)
        elif weight is not None:
            there.reweight(weight)
        return int(there is None)

    def remove(self, name: bytes) -> int:
        """How many are gone: 1 or 0."""
        gone = self.backends.pop(name, None)
        if gone:
            self.mark(gone)
            self.find_costs()
        return int(gone is not None)

    # Leases and time

    def grant(
        self, backend: Backend, span: int, owner: bytes | None, took: dict[Bucket, int] | None = None
    ) -> bytes:
        """A lease by its id."""
        id = b"%d-%d" % (self.epoch, self.granted)
        self.leases[id] = Lease(self.granted, backend, owner, self.clock, self.deadline(span), took or {})
        self.granted += 1
        backend.leases += 1
        return id

    def deadline(self, span: int) -> int:
        """When a span ends that starts now."""
        return -(-(self.clock + span + 10) // 10) * 10

    def mark(self, of: "Backend | bytes") -> int:
        """From now on the leases of a backend or an owner are over; answers how many that changes."""
        before = self.marks.get(of, 0)
        marked = [lease for lease in self.leases.values() if of in (lease.backend, lease.owner)]
        marked = [lease for lease in marked if lease.number >= before]
        if marked:
            self.marks[of] = self.granted
        if self.rules == 1:
            self.clear()
        return len(marked)

    def is_marked(self, lease: Lease) -> bool:
        """Whether it is over, whatever its deadline."""
        return any(lease.number < self.marks.get(of, 0) for of in (lease.backend, lease.owner))

    def is_over(self, lease: Lease) -> bool:
        """Whether nothing can be done with it any more. It may still be counted."""
        return lease.deadline <= self.clock or self.is_marked(lease)

    def clear(self) -> None:
        """What is over counts no longer. (A tick clears the first 1,000. Here there are never so many.)"""
        for id, lease in [(id, lease) for id, lease in self.leases.items() if self.is_over(lease)]:
            del self.leases[id]
            lease.backend.leases -= 1
            lease.backend.expired += not self.is_marked(lease)
        self.marks.clear()
        for name in [name for name, session in self.sessions.items() if session.deadline <= self.clock]:
            del self.sessions[name]

    def tick(self, clock: int) -> None:
        """It is later now, or as late as it was."""
        if clock >= self.clock:
            self.clock = clock
            self.clear()

    def when(self, costs: dict[bytes, int]) -> list[Any]:
        """As LB.WHEN answers: looks at each time at which anything could change.

        A clock moves in steps of 10 ms, so it may show that time with the next step only.
        """
        is_affordable = self.limit.affords(costs, self.clock)
        if is_affordable and any(b.limit.affords(costs, self.clock) for b in self.available()):
            return [b"available", 0]
        up = [b for b in self.backends.values() if b.weight and b.state == b"up"]
        if up and any(map(self.is_over, self.leases.values())):
            return [b"limited", 10 - self.clock % 10]
        times = {lease.deadline for lease in self.leases.values()}
        limits = [self.limit, *(b.limit for b in up)]
        times |= {limit.refill() for limit in limits if limit.rate}
        times |= {
            limit.costs[name].refill(amount)
            for limit in limits
            for name, amount in costs.items()
            if name in limit.costs
        }
        for time in sorted(time for time in times if up and time > self.clock):
            left = Counter(lease.backend for lease in self.leases.values() if lease.deadline > time)
            if self.limit.allows(left.total(), time) and self.limit.affords(costs, time):
                if any(b.limit.allows(left[b], time) and b.limit.affords(costs, time) for b in up):
                    return [b"limited", -(-time // 10) * 10 - self.clock]
        states = {b.state for b in self.backends.values()}
        for state, reason in [(b"drain", b"drained"), (b"down", b"down")]:
            if state in states:
                return [reason, -1]
        return [b"quiesced" if states else b"empty", -1]

    # Picking

    def available(self) -> list[Backend]:
        """Those that can be picked."""
        if not self.limit.allows(len(self.leases), self.clock):
            return []
        return [b for b in self.backends.values() if b.is_open(self.clock)]

    def pinned(self, name: bytes) -> Backend | None:
        """What a session sticks to."""
        session = self.sessions.get(name)
        there = session and self.backends.get(session.backend.name)
        return there if there and there is session.backend else None

    def sessions_on(self, backend: Backend) -> int:
        """How many sessions stick to it."""
        return sum(session.backend is backend for session in self.sessions.values())

    def pick(self, request: Request) -> list[Any]:
        """The names of those that are picked, with their leases if there are to be any."""
        if request.session is None:
            return self.picked(request)
        name, span = request.session
        pinned = self.pinned(name)
        if not pinned or not pinned.weight or pinned.state == b"down":
            picked = self.picked(request)
            if picked:
                first = picked[0][0] if request.lease else picked[0]
                self.sessions[name] = Session(self.backends[first], self.deadline(span))
            return picked
        limits = [(self.limit, len(self.leases)), (pinned.limit, pinned.leases)]
        allowed = all(of.allows(n, self.clock) and of.affords(request.costs, self.clock) for of, n in limits)
        if pinned.name in request.exclude or not allowed:
            picked = [] if request.is_strict else self.picked(request)
        else:
            if request.lease and not self.is_open:
                raise Unopened
            picked = [self.take(pinned, request)]
        if picked:
            self.sessions[name].deadline = self.deadline(span)
        return picked

    def take(self, backend: Backend, request: Request) -> Any:
        """It is picked."""
        backend.picks += 1
        self.picks += 1
        self.limit.take(self.clock)
        backend.limit.take(self.clock)
        took = backend.limit.pay(request.costs, self.clock) | self.limit.pay(request.costs, self.clock)
        if not request.lease:
            return backend.name
        return [backend.name, self.grant(backend, request.lease, request.owner, took)]

    def picked(self, request: Request) -> list[Any]:
        """The same by the algorithm alone."""
        choose = CHOOSE[request.algorithm or self.policy]
        self.item = request.item
        eligible = [b for b in self.available() if b.name not in request.exclude]
        is_tiered = any(b.tier for b in eligible)
        chance = copy.copy(self.chance)
        picked = []
        while eligible and len(picked) < (request.count or 1):
            if not self.limit.allows(len(self.leases), self.clock):
                break
            if not self.limit.affords(request.costs, self.clock):
                break
            serving = eligible
            if is_tiered:
                lowest = min(b.tier for b in eligible)
                serving = [b for b in eligible if b.tier == lowest]
            if self.chance is None and (request.algorithm or self.policy) in CHANCE:
                raise Unseeded
            backend, undo = self.tried(choose, serving)
            if not backend.limit.affords(request.costs, self.clock):
                undo()
                eligible.remove(backend)
                continue
            if request.lease and not self.is_open:
                undo()
                self.chance = chance
                raise Unopened
            picked.append(self.take(backend, request))
            limit = backend.limit
            if request.distinct or not limit.allows(backend.leases, self.clock):
                eligible.remove(backend)
        if not picked:
            self.chance = chance
        return picked

    def tried(
        self, choose: Callable[["Pool", list[Backend]], Backend], eligible: list[Backend]
    ) -> tuple[Backend, Callable[[], None]]:
        """A choice, and what takes it back. What was drawn by chance stays drawn."""
        before = (self.last, self.turns, [(b, b.credit, b.turn) for b in eligible])

        def undo() -> None:
            self.last, self.turns, all_of_them = before
            for backend, credit, turn in all_of_them:
                backend.credit, backend.turn = credit, turn

        return choose(self, eligible), undo

    def rr(self, eligible: list[Backend]) -> Backend:
        """The next one after the last."""
        backend = next((b for b in eligible if b.number > self.last), eligible[0])
        self.last = backend.number
        return backend

    def wrr(self, eligible: list[Backend]) -> Backend:
        """As nginx: each gains its weight, the highest is taken and pays the sum."""
        for backend in eligible:
            backend.credit += backend.weight
        backend = max(eligible, key=lambda b: b.credit)
        backend.credit -= sum(b.weight for b in eligible)
        return backend

    def hash(self, eligible: list[Backend]) -> Backend:
        """The smallest exponential time for the weight. The client's own map is held against this one."""
        able = [b for b in eligible if not self.balance or b.leases < self.bound(b, eligible)]
        return min(able, key=lambda b: (Fraction(drawn(self.item, b.name), b.weight), b.name))

    def bound(self, backend: Backend, eligible: list[Backend]) -> int:
        """How many leases BALANCE lets it have."""
        share = Fraction(backend.weight, sum(b.weight for b in eligible))
        return math.ceil((len(self.leases) + 1) * Fraction(self.balance, 100) * share)

    def random(self, eligible: list[Backend]) -> Backend:
        """Each alike."""
        return eligible[self.chance.below(len(eligible))]

    def wrandom(self, eligible: list[Backend]) -> Backend:
        """Each by its weight."""
        drawn = self.chance.below(sum(b.weight for b in eligible))
        for backend in eligible:
            drawn -= backend.weight
            if drawn < 0:
                return backend
        raise AssertionError("the sum was wrong")

    def lc(self, eligible: list[Backend]) -> Backend:
        """The least loaded one, of several that which it picked longest ago."""
        backend = min(eligible, key=lambda b: (b.load(), b.turn))
        self.turns += 1
        backend.turn = self.turns
        return backend

    def p2c(self, eligible: list[Backend]) -> Backend:
        """The less loaded of two, in doubt the first."""
        first = self.chance.below(len(eligible))
        if len(eligible) == 1:
            return eligible[0]
        other = self.chance.below(len(eligible) - 1)
        other += other >= first
        return min(eligible[first], eligible[other], key=Backend.load)


@cache
def drawn(item: bytes, name: bytes) -> int:
    """The exponential time that a backend draws for an item."""
    return exponential(fold(xxh3_64(item), xxh3_64(name)))


def exponential(first: int) -> int:
    """The exponential time whose first number this is: von Neumann's, with each run written down."""
    numbers = splitmix64(first)
    for whole in itertools.count():
        run = [first] if whole == 0 else [next(numbers)]
        while (number := next(numbers)) < run[-1]:
            run.append(number)
        if len(run) % 2:
            return whole * 2**64 + run[0]
    raise AssertionError("each trial may be the last")


def splitmix64(state: int) -> Iterator[int]:
    """Its numbers."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & WORD
        z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & WORD
        yield z ^ z >> 31


CHOOSE = {name.encode(): getattr(Pool, name) for name in [*ALGORITHMS, *BY_ITEM]}


def limits(
    words: tuple[bytes, ...],
) -> tuple[Any, int | None, Rate | None, int | None, dict[bytes, Rate], int | None]:
    """What stands behind the key in LB.LIMIT: whom it limits, and MAX, RATE, TIER, COST and BALANCE."""
    words = list(words)
    found: dict[bytes, Any] = {}
    rates: dict[bytes | None, list[int | None]] = {}  # that of picks is without a name
    last: bytes | None = None

    def value() -> bytes:
        return words.pop(0) if words else b""

    while words:
        option = words.pop(0).upper()
        if option in (b"RATE", b"COST"):
            last = None if option == b"RATE" else names([value()])[0]
            is_repeated = last in rates and rates[last][0] is not None
            picks = integer(value(), 0, RATE)
            rates.setdefault(last, [None, None, None])[:2] = picks, integer(value(), 1 if picks else 0, SPAN)
        elif option == b"BURST":
            rate = rates.setdefault(last, [None, None, None])
            is_repeated = rate[2] is not None
            rate[2] = integer(value(), 1, RATE)
        else:
            kind = b"BACKEND" if option == b"EACH" else option
            is_repeated = kind in found
            match option:
                case b"BACKEND":
                    found[kind] = names([value()])
                case b"EACH":
                    found[kind] = b"EACH"
                case b"MAX":
                    found[kind] = integer(value(), 0, MAX)
                case b"TIER":
                    found[kind] = integer(value(), 0, 255)
                case b"BALANCE":
                    found[kind] = integer(value(), 0, 10_000)
                    if 0 < found[kind] < 101:
                        raise Refusal("ERR")
                case _:
                    raise Refusal("ERR")
        if is_repeated:
            raise Refusal("ERR")
    if any(burst is not None and not picks for picks, _, burst in rates.values()):
        raise Refusal("ERR")
    whose, tier = found.get(b"BACKEND"), found.get(b"TIER")
    if tier is not None and not isinstance(whose, list):
        raise Refusal("ERR")
    if b"BALANCE" in found and whose:
        raise Refusal("ERR")
    usual = {name: 1 if name is None else -(-rate[0] // 20) for name, rate in rates.items()}
    whole = {name: (rate[0], rate[1], rate[2] or usual[name]) for name, rate in rates.items()}
    return whose, found.get(b"MAX"), whole.pop(None, None), tier, whole, found.get(b"BALANCE")


class Model:
    """A server with the module: what is at its keys, a pool or a string."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Pool | bytes] = {}

    def run(self, command: list[bytes]) -> Any:
        """Does it and answers."""
        name, *arguments = command
        least, most, run = COMMANDS[name.upper()]
        if not least <= len(arguments) <= most:
            return Refused("ERR")
        try:
            return run(self, *arguments)
        except Refusal as refusal:
            return Refused(refusal)

    def there(self, key: bytes) -> Pool | None:
        """The pool at that key."""
        value = self.keys.get(key)
        if isinstance(value, bytes):
            raise Refusal("WRONGTYPE")
        return value

    def made(self, key: bytes) -> Pool:
        """The pool at that key, a new one if need be."""
        pool = self.there(key)
        if pool is None:
            pool = self.keys[key] = Pool()
        return pool

    def looked(self, key: bytes) -> Pool:
        """The pool at that key, an empty one if there is none."""
        return self.there(key) or Pool()

    def delete_if_void(self, key: bytes) -> None:
        """A pool without backends and settings is no more."""
        pool = self.there(key)
        if pool and pool.is_void():
            del self.keys[key]

    def named(self, key: bytes, backend: bytes) -> Backend:
        """A backend that must be there."""
        found = self.looked(key).backends.get(backend)
        if found is None:
            raise Refusal("NOBACKEND")
        return found

    # The commands of the module

    def lb_add(self, key: bytes, *words: bytes) -> int:
        members = pairs(words) if len(words) > 1 else dict.fromkeys(names(words))
        pool = self.made(key)
        return sum(pool.add(name, weight) for name, weight in members.items())

    def lb_set(self, key: bytes, *words: bytes) -> int:
        members = pairs(words)
        pool = self.made(key)
        gone = [name for name in pool.backends if name not in members]
        return sum(map(pool.remove, gone)) + sum(pool.add(name, weight) for name, weight in members.items())

    def lb_rem(self, key: bytes, *words: bytes) -> int:
        gone = names(words)
        pool = self.looked(key)
        removed = sum(map(pool.remove, gone))
        self.delete_if_void(key)
        return removed

    def lb_weight(self, key: bytes, *words: bytes) -> Any:
        if len(words) == 1:
            (name,) = names(words)
            backend = self.looked(key).backends.get(name)
            return backend and backend.weight
        weights = pairs(words)
        self.there(key)
        for backend, weight in [(self.named(key, name), weight) for name, weight in weights.items()]:
            backend.reweight(weight)
        return "OK"

    def lb_state(self, key: bytes, name: bytes, state: bytes | None = None) -> Any:
        names([name])
        if state is None:
            backend = self.looked(key).backends.get(name)
            return backend and backend.state.decode()
        if state.lower() not in STATES:
            raise Refusal("ERR")
        backend = self.named(key, name)
        backend.state = state.lower()
        if backend.state == b"down":
            self.looked(key).mark(backend)
        return "OK"

    def lb_policy(self, key: bytes, policy: bytes | None = None) -> Any:
        if policy is None:
            pool = self.there(key)
            return pool and pool.policy.decode()
        if policy.lower() not in CHOOSE.keys() - ITEM:
            raise Refusal("ERR")
        self.made(key).policy = policy.lower()
        self.delete_if_void(key)
        return "OK"

    def lb_list(self, key: bytes) -> list[bytes]:
        return [*self.looked(key).backends]

    def lb_card(self, key: bytes) -> int:
        return len(self.looked(key).backends)

    def lb_pick(self, key: bytes, *words: bytes) -> Any:
        request = Request.of(words)
        return request.answer(self.looked(key).pick(request))

    def lb_peek(self, key: bytes, *words: bytes) -> Any:
        request = Request.of(words, is_ahead=True)
        if request.algorithm in CHANCE or request.lease or request.costs:
            raise Refusal("ERR")
        pool = self.looked(key)
        if not request.algorithm and pool.policy in CHANCE:
            raise Refusal("ERR")
        return request.answer(pool.copy().pick(request))

    def lb_info(self, key: bytes) -> Any:
        pool = self.there(key)
        if pool is None:
            return None
        available = pool.available()
        numbers = [(b"backends", len(pool.backends)), (b"available", len(available))]
        numbers += [(b"total-weight", sum(b.weight for b in available)), (b"picks", pool.picks)]
        numbers += [(b"leases", len(pool.leases))]
        told = [b"policy", pool.policy, *[word for pair in numbers for word in pair]]
        told += pool.limit.standing(pool.clock)
        told += [b"waiting", 0, b"oldest-wait-ms", 0, b"refused", ANY]
        told += [b"ejected", 0, b"cooling", 0, b"held", 0, b"balance", pool.balance]
        told += [b"sessions", sum(map(pool.sessions_on, pool.backends.values()))]
        told += [b"clock", pool.clock, b"rules-version", pool.rules, b"bytes", ANY]
        return told + pool.limit.standing_costs(pool.costs, pool.clock)

    def lb_stats(self, key: bytes, *words: bytes) -> Any:
        asked = names(words)
        pool = self.looked(key)
        told = {
            name: backend.stats(pool.costs, pool.clock, pool.sessions_on(backend))
            for name, backend in pool.backends.items()
        }
        if asked:
            return told.get(asked[0])
        return [word for pair in told.items() for word in pair]

    def lb_forget(self, key: bytes, name: bytes) -> int:
        names([name])
        pool = self.looked(key)
        is_pinned = pool.pinned(name) is not None
        if is_pinned:
            del pool.sessions[name]
        return int(is_pinned)

    def lb_seed(self, key: bytes, seed: bytes) -> str:
        number = integer(seed, 0, WORD)
        self.looked(key).chance = Chance(number)
        return "OK"

    def lb_done(self, key: bytes, id: bytes, *words: bytes) -> int:
        told = Report.of(words, b"COSTS")
        pool = self.looked(key)
        lease = pool.leases.get(id)
        if not lease or pool.is_over(lease):
            return 0
        del pool.leases[id]
        backend = lease.backend
        for name, real in told.costs.items():
            for limit in (backend.limit, pool.limit):
                if name in limit.costs:
                    bucket = limit.costs[name]
                    bucket.change(lease.took.get(bucket, 0) - real, pool.clock)
        backend.leases -= 1
        backend.done += 1
        backend.report(told)
        return 1

    def lb_report(self, key: bytes, name: bytes, *words: bytes) -> int:
        names([name])
        told = Report.of(words, b"LEFT")
        pool = self.looked(key)
        backend = pool.backends.get(name)
        if backend:
            backend.report(told)
            for cost, left in told.left:
                bucket = backend.limit.costs.get(cost)
                if bucket and bucket.level_at(pool.clock) > left * bucket.rate[1]:
                    bucket.level, bucket.at = left * bucket.rate[1], pool.clock
        return int(backend is not None)

    def lb_renew(self, key: bytes, id: bytes, span: bytes) -> int:
        millis = integer(span, 1, SPAN)
        pool = self.looked(key)
        lease = pool.leases.get(id)
        if not lease or pool.is_over(lease):
            return 0
        lease.deadline = pool.deadline(millis)
        return 1

    def lb_release(self, key: bytes, keyword: bytes, name: bytes) -> int:
        (owner,) = options([keyword, name], {b"OWNER": 1})[b"OWNER"]
        names([owner])
        return self.looked(key).mark(owner)

    def lb_leases(self, key: bytes, *words: bytes) -> list[Any]:
        found = options(words, {b"BACKEND": 1, b"OWNER": 1, b"COUNT": 1})
        names([name for option in (b"BACKEND", b"OWNER") for name in found.get(option, [])])
        count = integer(*found[b"COUNT"], 1, COUNT) if b"COUNT" in found else None
        pool = self.looked(key)
        listed = [
            [b"lease", id, b"backend", lease.backend.name, b"owner", lease.owner]
            + [b"age", pool.clock - lease.granted]
            + [b"remaining", 0 if pool.is_over(lease) else lease.deadline - pool.clock]
            for id, lease in pool.leases.items()
            if pool.backends.get(lease.backend.name) is lease.backend
            and found.get(b"BACKEND", [lease.backend.name]) == [lease.backend.name]
            and found.get(b"OWNER", [lease.owner]) == [lease.owner]
        ]
        return listed[:count]

    def lb_limit(self, key: bytes, *words: bytes) -> Any:
        whose, most, rate, tier, costs, balance = limits(words)
        if most is None and rate is None and tier is None and balance is None and not costs:
            pool = self.looked(key)
            if not whose:
                return pool.limit.told(pool.costs, balance=pool.balance)
            if not isinstance(whose, list):
                return (pool.each if whose == b"EACH" else pool.limit).told(pool.costs)
            there = pool.backends.get(*whose)
            return there and there.limit.told(pool.costs, there.tier)
        there = self.named(key, *whose) if isinstance(whose, list) else None
        known = [name for name in self.looked(key).costs if name]
        if len({*known, *(name for name, rate in costs.items() if rate[0])}) > max(COSTS, len(known)):
            raise Refusal("ERR")
        pool = self.made(key)
        if balance is not None:
            pool.balance = balance
        if tier is not None and tier != there.tier:
            there.tier = tier
            there.credit = 0
        limit = there.limit if there else pool.each if whose == b"EACH" else pool.limit
        each = pool.each if there else Limit()
        limit.set(most, rate, each, pool.clock)
        for name, rate in costs.items():
            if rate[0] and name not in pool.costs:
                pool.costs[pool.costs.index(None)] = name
            limit.set_cost(name, rate, each, pool.clock)
            if whose == b"EACH":
                self._inherit(pool)
            pool.find_costs()
        self._inherit(pool)
        self.delete_if_void(key)
        return "OK"

    def _inherit(self, pool: Pool) -> None:
        for backend in pool.backends.values():
            backend.limit.inherit(pool.each, pool.clock)

    def lb_when(self, key: bytes, *words: bytes) -> list[Any]:
        found = options(words, {b"COSTS": COUNTED})
        costs = amounts(found[b"COSTS"]) if found else {}
        return self.looked(key).when(costs)

    def lb_queue(self, key: bytes, *words: bytes) -> Any:
        found = options(words, {b"MAX": 1, b"ORDER": 1})
        given = [integer(word, 0, MAX) for word in found.get(b"MAX", [])]
        named = [word.lower() for word in found.get(b"ORDER", [])]
        if not {*named} <= {b"fifo", b"fair"}:
            raise Refusal("ERR")
        most, order = self.looked(key).queue
        if not found:
            return [b"max", most, b"order", order, b"waiting", 0, b"oldest-wait-ms", 0]
        self.made(key).queue = ([most, *given][-1], [order, *named][-1])
        self.delete_if_void(key)
        return "OK"

    def lb_tick(self, key: bytes, clock: bytes) -> str:
        number = integer(clock, 0, CLOCK)
        self.looked(key).tick(number)
        return "OK"

    def lb_epoch(self, key: bytes, epoch: bytes) -> str:
        number = integer(epoch, 0, WORD)
        self.looked(key).epoch = number
        return "OK"

    def lb_rules(self, key: bytes, version: bytes) -> str:
        number = integer(version, 1, 2)
        pool = self.looked(key)
        pool.rules = max(pool.rules, number)
        return "OK"

    def lb_load(self, key: bytes, payload: bytes, *words: bytes) -> str:
        if payload not in LOADED or any(word.upper() != b"REPLACE" for word in words):
            raise Refusal("ERR")
        if key in self.keys and not words:
            raise Refusal("BUSYKEY")
        self.keys[key] = LOADED[payload].copy()
        return "OK"

    # Those of the server that the test mixes in

    def set_string(self, key: bytes, value: bytes) -> str:
        self.keys[key] = value
        return "OK"

    def delete(self, key: bytes) -> int:
        return int(self.keys.pop(key, None) is not None)

    def copy(self, key: bytes, to: bytes, *_replace: bytes) -> Any:
        value = self.keys.get(key)
        if key == to:
            raise Refusal("ERR")
        if value is not None:
            self.keys[to] = value.copy() if isinstance(value, Pool) else value
        return int(value is not None)

    def rename(self, key: bytes, to: bytes) -> str:
        if key not in self.keys:
            raise Refusal("ERR")
        self.keys[to] = self.keys.pop(key)
        return "OK"

    def debug(self, _reload: bytes) -> str:
        for value in self.keys.values():
            if isinstance(value, Pool):
                value.is_open = False
        return "OK"


def loaded(payload: bytes) -> Pool:
    """What one of the payloads above holds."""
    pool = Pool()
    pool.add(b"a", 5)
    backend = pool.backends[b"a"]
    if payload == LEASED:
        pool.clock, pool.epoch, pool.limit = 100, 7, Limit(9, own=(9, None))
        backend.limit = Limit(3, (2, 50, 2), 100, 100, (3, (2, 50, 2)))
        pool.grant(backend, 10, b"o")
    if payload == OVER:
        pool.rules, pool.clock, pool.epoch = 2, 120, 7
        backend.limit, backend.leases, pool.granted = Limit(3, own=(3, None)), 3, 3
        for number, deadline in enumerate([120, 126, 127]):
            pool.leases[b"7-%d" % number] = Lease(number, backend, b"o", 100, deadline)
        pool.marks[b"o"] = 2
    return pool


LOADED = {payload: loaded(payload) for payload in (PAYLOAD, LEASED, OVER)}

ANY_NUMBER = 2**31

# What runs a command, with the least and the most arguments that it takes.
COMMANDS = {
    b"LB.ADD": (2, ANY_NUMBER, Model.lb_add),
    b"LB.SET": (3, ANY_NUMBER, Model.lb_set),
    b"LB.REM": (2, ANY_NUMBER, Model.lb_rem),
    b"LB.WEIGHT": (2, ANY_NUMBER, Model.lb_weight),
    b"LB.STATE": (2, 3, Model.lb_state),
    b"LB.POLICY": (1, 2, Model.lb_policy),
    b"LB.LIST": (1, 1, Model.lb_list),
    b"LB.CARD": (1, 1, Model.lb_card),
    b"LB.PICK": (1, ANY_NUMBER, Model.lb_pick),
    b"LB.PEEK": (1, ANY_NUMBER, Model.lb_peek),
    b"LB.INFO": (1, 1, Model.lb_info),
    b"LB.STATS": (1, 2, Model.lb_stats),
    b"LB.FORGET": (2, 2, Model.lb_forget),
    b"LB.DONE": (2, ANY_NUMBER, Model.lb_done),
    b"LB.REPORT": (2, ANY_NUMBER, Model.lb_report),
    b"LB.RENEW": (3, 3, Model.lb_renew),
    b"LB.RELEASE": (3, 3, Model.lb_release),
    b"LB.LEASES": (1, ANY_NUMBER, Model.lb_leases),
    b"LB.LIMIT": (1, ANY_NUMBER, Model.lb_limit),
    b"LB.WHEN": (1, ANY_NUMBER, Model.lb_when),
    b"LB.QUEUE": (1, ANY_NUMBER, Model.lb_queue),
    b"LB.TICK": (2, 2, Model.lb_tick),
    b"LB.EPOCH": (2, 2, Model.lb_epoch),
    b"LB.RULES": (2, 2, Model.lb_rules),
    b"LB.SEED": (2, 2, Model.lb_seed),
    b"LB.LOAD": (2, 3, Model.lb_load),
    b"SET": (2, 2, Model.set_string),
    b"DEL": (1, 1, Model.delete),
    b"COPY": (3, 3, Model.copy),
    b"RENAME": (2, 2, Model.rename),
    b"DEBUG": (1, 1, Model.debug),
}
