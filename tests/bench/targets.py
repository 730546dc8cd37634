"""What the module is to cost at most, or to give at least, beside what was measured."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from .slowest import unbounded

Figures = dict[str, Any]
PLAIN, AOF = "no persistence", "AOF"
MILLION = "1,000,000 keys of 3"
REQUEST_FLOOR = "a module's two writes that do nothing"
ONE, THREE, LARGE = "LB.PICK key, 3", "LB.PICK key wrr, 3", "LB.PICK key wrr, 100,000"


@dataclass(frozen=True)
class Target:
    """A figure of one server and its bound."""

    title: str
    bound: float
    figure: Callable[[Figures], float]
    is_least: bool = False

    def of(self, figures: Figures) -> Figures | None:
        """What became of it; nothing where it was not measured."""
        try:
            reached = self.figure(figures)
        except (KeyError, ValueError):
            return None
        is_reached = reached >= self.bound if self.is_least else reached <= self.bound
        return {
            "target": f"{'≥' if self.is_least else '≤'} {self.bound:g}",
            "is": reached,
            "reached": is_reached,
        }


def cost(title: str, beside: str = "INCR", suite: str = PLAIN) -> Callable[[Figures], float]:
    """Instructions, as a multiple of those of another case."""
    return lambda of: of["suites"][suite][title]["instructions"] / of["suites"][suite][beside]["instructions"]


def speed(title: str, beside: str) -> Callable[[Figures], float]:
    """Picks a second, as a multiple of the best of the cases whose titles match, round by round."""

    def ratio(of: Figures) -> float:
        cases = of["suites"][PLAIN]
        mine = cases[title]["rounds"]
        rivals = [
            case["rounds"] for name, case in cases.items() if re.fullmatch(beside, name) if "rounds" in case
        ]
        return min(median(a / b for a, b in zip(mine, theirs, strict=True)) for theirs in rivals)

    return ratio


def larger(of: Figures) -> float:
    """The instructions that a pick takes more in a large pool."""
    large, small = (of["suites"][PLAIN][title]["instructions"] for title in ("LB.PICK key, 100,000", ONE))
    return large - small


def request(title: str) -> Callable[[Figures], float]:
    """Instructions of a request, as a multiple of those of two commands that do nothing."""

    def ratio(of: Figures) -> float:
        cases = of["requests"]["cases"]
        return cases[f"LB.PICK + LB.DONE, {title}"]["instructions"] / cases[REQUEST_FLOOR]["instructions"]

    return ratio


def value(title: str) -> Callable[[Figures], float]:
    """A figure of a pool, as a multiple of that of a sorted set with the same members."""
    return lambda of: of["values"]["pool"][title] / of["values"]["sorted set"][title]


def lost(of: Figures, keys: str, way: str = "LB.PICK") -> float:
    """The nanoseconds that a command loses to cache misses where it is spread over all keys."""
    return of["scale"][keys]["pool, spread"][f"{way}, ns lost to cache misses"]


def missed(of: Figures) -> float:
    """The same of a pick, as a multiple of what a write loses that only reads a byte of the value."""
    return lost(of, MILLION) / lost(of, MILLION, "FLOOR.TOUCH")


def loading(of: Figures) -> float:
    """The time that pools take to load, as a multiple of that of sorted sets."""
    kinds = of["scale"][MILLION]
    return kinds["pool"]["RDB load, s"] / kinds["zset"]["RDB load, s"]


def slowest(of: Figures) -> float:
    """The slowest command that must not be slow."""
    return unbounded(of["slowest"])


def targets(is_redis_8: bool) -> Iterator[Target]:
    """All of them; of the instructions, those of Redis 7 or of Redis 8."""

    def of(redis_7: float, redis_8: float) -> float:
        return redis_8 if is_redis_8 else redis_7

    rr = "LB.PICK key (policy rr), 3"
    yield Target("instructions: `LB.PICK key`, 3 backends, wrr as policy / INCR", of(1.25, 1.05), cost(ONE))
    yield Target("instructions: `LB.PICK key`, 3 backends, rr as policy / INCR", of(1.25, 1.05), cost(rr))
    yield Target("instructions: `LB.PICK key wrr`, 3 backends / INCR", of(1.40, 1.17), cost(THREE))
    yield Target(
        "instructions: `LB.PICK key wrr`, 100,000 backends, weights 1 to 100 / 3", 1.5, cost(LARGE, THREE)
    )
    yield Target("instructions: `LB.PICK key`, 100,000 backends less 3", 1000, larger)
    different = cost("LB.PICK key, 1,000 different weights", ONE)
    yield Target("instructions: `LB.PICK key`, 1,000 different weights / 3", 2, different)
    hundred = cost("LB.PICK key COUNT 100, 3", "FLOOR.HUNDRED key COUNT 100, 3")
    yield Target("instructions: `LB.PICK key COUNT 100` / a module's answer of 100 names", 1.3, hundred)
    for title, bound in ("wrr, 3", 1.20), ("lc, 3", 1.25), ("lc, 100", 1.40), ("lc, 100,000", 1.70):
        about = f"instructions: a pick with LEASE and LB.DONE, {title} / two writes that do nothing"
        yield Target(about, bound, request(title))
    weight = cost("LB.WEIGHT, 100,000", "LB.WEIGHT, 3")
    yield Target("instructions: `LB.WEIGHT key backend w`, 100,000 backends / 3", 2, weight)
    yield Target("instructions: `LB.PICK key` / INCR, both with AOF", of(1.15, 1.05), cost(ONE, suite=AOF))

    pick = "throughput, {} backends: `LB.PICK key` / {}"
    fixed = r"(EVALSHA|FCALL) rotate\w*, 3"
    yield Target(pick.format(3, "a fixed rotation in Lua"), 3, speed(ONE, fixed), True)
    yield Target(pick.format(3, "LMOVE"), 1.25, speed(ONE, "LMOVE"), True)
    every = speed("LB.PICK key, 1,000", "EVALSHA short, 1,000")
    yield Target(pick.format("1,000", "a Lua script that looks at every backend"), 100, every, True)

    for n in "1,000", "100,000":
        bytes = value(f"{n} members, MEMORY USAGE a member")
        yield Target(f"bytes a backend, {n} backends / sorted set", 1, bytes)
    for way in "RDB save", "RDB load", "DUMP", "RESTORE":
        yield Target(f"time: {way}, 100,000 backends / sorted set", 1, value(f"{way}, ms"))
    small = "3 members, heap of a key"
    yield Target("bytes: a pool of 3 with its key", 320, lambda of: of["values"]["pool"][small])
    yield Target("MB: a million pools of 3", 330, lambda of: of["scale"][MILLION]["pool"]["memory, MB"])
    yield Target("time: RDB load, a million pools of 3 / sorted sets", 1.6, loading)
    cold = "ns lost to cache misses, a million pools of 3 / a write that reads a byte of them"
    yield Target(cold, 1.25, missed)
    yield Target("ms: the slowest single command, if neither large itself nor a first use", 5, slowest)


def reached(server: str, figures: Figures) -> dict[str, Figures]:
    """What was measured of them on that server."""
    all = {target.title: target.of(figures) for target in targets(server.startswith("redis-8"))}
    return {title: of for title, of in all.items() if of}
