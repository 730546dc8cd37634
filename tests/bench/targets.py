"""What the module is to cost at most, or to give at least, beside what was measured."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

Figures = dict[str, Any]
PLAIN, AOF = "no persistence", "AOF"
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


def value(title: str) -> Callable[[Figures], float]:
    """A figure of a pool, as a multiple of that of a sorted set with the same members."""
    return lambda of: of["values"]["pool"][title] / of["values"]["sorted set"][title]


def lost(keys: str) -> Callable[[Figures], float]:
    """What LB.PICK loses where it is spread over all keys, as a multiple of what GET loses."""

    def ratio(of: Figures) -> float:
        (figures,) = (scale["pool, spread"] for title, scale in of["scale"].items() if title.endswith(keys))
        return figures["LB.PICK, cold / hot"] / figures["GET, cold / hot"]

    return ratio


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
    different = cost("LB.PICK key, 1,000 different weights", ONE)
    yield Target("instructions: `LB.PICK key`, 1,000 different weights / 3", 2, different)
    yield Target(
        "instructions: `LB.PICK key COUNT 100`, each pick / INCR", 0.09, cost("LB.PICK key COUNT 100, 3")
    )
    weight = cost("LB.WEIGHT, 100,000", "LB.WEIGHT, 3")
    yield Target("instructions: `LB.WEIGHT key backend w`, 100,000 backends / 3", 2, weight)
    yield Target("instructions: `LB.PICK key` / INCR, both with AOF", of(1.15, 1.05), cost(ONE, suite=AOF))

    pick = "throughput, {} backends: `LB.PICK key` / {}"
    fixed = r"(EVALSHA|FCALL) rotate\w*, 3"
    yield Target(pick.format(3, "a fixed rotation in Lua"), 3, speed(ONE, fixed), True)
    yield Target(pick.format(3, "LMOVE"), 1.25, speed(ONE, "LMOVE"), True)
    lua, function = "EVALSHA (short|classes|edf)", "FCALL (short|classes|edf|cached)"
    for n, bound, rival, pattern in [
        ("3", 8, "the best Lua script whose weights can change", lua),
        ("3", 8, "the best Function whose weights can change", function),
        ("1,000", 100, "the best Lua script whose weights can change", lua),
        ("1,000", 100, "the best Function whose weights can change", function),
        ("1,000", 100, "the best Lua script in nginx's order", "EVALSHA (short|classes)"),
        ("1,000", 100, "a Lua script that looks at every backend", "EVALSHA short"),
    ]:
        yield Target(pick.format(n, rival), bound, speed(f"LB.PICK key, {n}", f"{pattern}, {n}"), True)

    for n in "1,000", "100,000":
        bytes = value(f"{n} members, MEMORY USAGE a member")
        yield Target(f"bytes a backend, {n} backends / sorted set", 1, bytes)
    for way in "RDB save", "RDB load", "DUMP", "RESTORE":
        yield Target(f"time: {way}, 100,000 backends / sorted set", 1, value(f"{way}, ms"))
    small = "3 members, MEMORY USAGE"
    yield Target("bytes: a pool of 3", 600, lambda of: of["values"]["pool"][small])
    for keys in "keys of 3", "keys of 1,000":
        title = f"speed kept where picks are spread over all {keys} backends / that of GET"
        yield Target(title, 1, lost(keys), True)


def reached(server: str, figures: Figures) -> dict[str, Figures]:
    """What was measured of them on that server."""
    all = {target.title: target.of(figures) for target in targets(server.startswith("redis-8"))}
    return {title: of for title, of in all.items() if of}
