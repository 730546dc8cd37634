"""The module in plain Python, written from what is promised and not from how it is built.

`Model.run` takes a command as a client sends it, and answers in the terms of wire.py what a server does in
RESP2; of an error only the first word. Pools are walked from end to end by every command.
"""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import ANY

from wire import Refused

CHANCE = {b"random", b"wrandom"}
ALGORITHMS = {b"rr", b"wrr"} | CHANCE
STATES = {b"up", b"drain", b"down"}
WORD = 2**64 - 1

# A pool of one backend `a` with weight 5, as LB.LOAD takes it. The format is described in src/lb/codec.rs.
PAYLOAD = b"\x01" + bytes([1, 2, 0, 0, 0, 1]) + b"\x01a" + bytes([5, 0, 0, 0])


class Refusal(Exception):
    """The command is refused, by an error with this first word."""


class Unseeded(Exception):
    """Chance is asked for, and nobody has seeded the pool: a server would, by a number of its own."""


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


@dataclass(eq=False, slots=True)
class Backend:
    """A member of a pool, the `number`-th that was ever added to it."""

    name: bytes
    number: int
    weight: int
    state: bytes = b"up"
    credit: int = 0
    picks: int = 0

    def reweight(self, weight: int) -> None:
        """The credit keeps its proportion to the weight, rounded toward zero."""
        if weight != self.weight:
            size = abs(self.credit) * weight // (self.weight or 1)
            self.credit = size if self.credit > 0 else -size
            self.weight = weight

    def stats(self) -> list[Any]:
        """As LB.STATS shows it."""
        return [b"weight", self.weight, b"state", self.state, b"picks", self.picks]


@dataclass(slots=True)
class Request:
    """What stands behind the key in LB.PICK and LB.PEEK."""

    algorithm: bytes | None
    count: int | None
    distinct: bool
    exclude: list[bytes]

    @staticmethod
    def of(words: Iterable[bytes]) -> "Request":
        """Reads it."""
        words = list(words)
        algorithm = words.pop(0).lower() if words and words[0].lower() in ALGORITHMS else None
        options: dict[bytes, Any] = {}
        while words:
            option = words.pop(0).upper()
            if option in options:
                raise Refusal("ERR")
            if option == b"COUNT":
                options[option] = integer(words.pop(0) if words else b"", 1, 10_000)
            elif option == b"DISTINCT":
                options[option] = True
            elif option == b"EXCLUDE":
                number = integer(words.pop(0) if words else b"", 1, min(1000, len(words)))
                options[option] = names(words[:number])
                del words[:number]
            else:
                raise Refusal("ERR")
        if b"DISTINCT" in options and b"COUNT" not in options:
            raise Refusal("ERR")
        return Request(algorithm, options.get(b"COUNT"), b"DISTINCT" in options, options.get(b"EXCLUDE", []))

    def answer(self, picked: list[bytes]) -> Any:
        """An array, or without COUNT the one that there is."""
        if self.count is not None:
            return picked
        return picked[0] if picked else None


def names(words: Iterable[bytes]) -> list[bytes]:
    """Names of backends."""
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
    """What is at a key. The dict keeps the order in which backends were added."""

    backends: dict[bytes, Backend] = field(default_factory=dict)
    policy: bytes = b"wrr"
    picks: int = 0
    added: int = 0  # how many ever were
    last: int = 0  # the number of the one that rr picked last
    chance: Chance | None = None

    def copy(self) -> "Pool":
        """The same, apart from it."""
        twins = {name: replace(backend) for name, backend in self.backends.items()}
        return replace(self, backends=twins, chance=copy.copy(self.chance))

    def add(self, name: bytes, weight: int | None) -> int:
        """How many are new: 1 or 0."""
        there = self.backends.get(name)
        if there is None:
            self.added += 1
            self.backends[name] = Backend(name, self.added, 1 if weight is None else weight)
        elif weight is not None:
            there.reweight(weight)
        return int(there is None)

    def available(self) -> list[Backend]:
        """Those that can be picked."""
        return [b for b in self.backends.values() if b.weight and b.state == b"up"]

    def pick(self, request: Request) -> list[bytes]:
        """The names of those that are picked."""
        choose = CHOOSE[request.algorithm or self.policy]
        eligible = [b for b in self.available() if b.name not in request.exclude]
        picked = []
        while eligible and len(picked) < (request.count or 1):
            backend = choose(self, eligible)
            backend.picks += 1
            self.picks += 1
            picked.append(backend.name)
            if request.distinct:
                eligible.remove(backend)
        return picked

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

    def random(self, eligible: list[Backend]) -> Backend:
        """Each alike."""
        return eligible[self.draw(len(eligible))]

    def wrandom(self, eligible: list[Backend]) -> Backend:
        """Each by its weight."""
        drawn = self.draw(sum(b.weight for b in eligible))
        for backend in eligible:
            drawn -= backend.weight
            if drawn < 0:
                return backend
        raise AssertionError("the sum was wrong")

    def draw(self, n: int) -> int:
        """A number from 0 to n - 1."""
        if self.chance is None:
            raise Unseeded
        return self.chance.below(n)


CHOOSE = {b"rr": Pool.rr, b"wrr": Pool.wrr, b"random": Pool.random, b"wrandom": Pool.wrandom}


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
        if pool and not pool.backends and pool.policy == b"wrr":
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
        for name in gone:
            del pool.backends[name]
        return len(gone) + sum(pool.add(name, weight) for name, weight in members.items())

    def lb_rem(self, key: bytes, *words: bytes) -> int:
        gone = names(words)
        pool = self.looked(key)
        removed = sum(pool.backends.pop(name, None) is not None for name in gone)
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
        self.named(key, name).state = state.lower()
        return "OK"

    def lb_policy(self, key: bytes, policy: bytes | None = None) -> Any:
        if policy is None:
            pool = self.there(key)
            return pool and pool.policy.decode()
        if policy.lower() not in ALGORITHMS:
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
        request = Request.of(words)
        if request.algorithm in CHANCE:
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
        numbers += [(b"rules-version", 1), (b"bytes", ANY)]
        return [b"policy", pool.policy, *[word for pair in numbers for word in pair]]

    def lb_stats(self, key: bytes, *words: bytes) -> Any:
        asked = names(words)
        backends = self.looked(key).backends
        if asked:
            return backends[asked[0]].stats() if asked[0] in backends else None
        return [word for name, backend in backends.items() for word in (name, backend.stats())]

    def lb_seed(self, key: bytes, seed: bytes) -> str:
        number = integer(seed, 0, WORD)
        self.looked(key).chance = Chance(number)
        return "OK"

    def lb_load(self, key: bytes, payload: bytes, *words: bytes) -> str:
        if payload != PAYLOAD or any(word.upper() != b"REPLACE" for word in words):
            raise Refusal("ERR")
        if key in self.keys and not words:
            raise Refusal("BUSYKEY")
        self.keys[key] = Pool()
        self.keys[key].add(b"a", 5)
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
        return "OK"


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
    b"LB.SEED": (2, 2, Model.lb_seed),
    b"LB.LOAD": (2, 3, Model.lb_load),
    b"SET": (2, 2, Model.set_string),
    b"DEL": (1, 1, Model.delete),
    b"COPY": (3, 3, Model.copy),
    b"RENAME": (2, 2, Model.rename),
    b"DEBUG": (1, 1, Model.debug),
}
