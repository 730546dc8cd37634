"""A fleet that is told once, beside gateways that learn alone: failures, and backends of unlike speed.

    scripts/bench health [--quick]

Every way to balance gets the same trace of requests: when each comes and to which gateway, how much work it
is, and whether it would fail on a backend that fails now and then. The module is the real one, on a server
whose clock the trace makes: LB.PICK … LEASE and LB.DONE … OK or FAIL with LATENCY. The others are simulated
by their own published rules (balancers.py). Backends are simulated: each has some slots and a queue, first
come, first served.

A full run writes tests/data/health.json and health.svg, which come out alike on every machine, and prints the
tables of README.md beside this file. A quick one computes the short traces, and prints what it has found.
"""

import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from server import Server
from servers import installed
from wire import Refused, Wire, pack, words

from .balancers import SECOND, Envoy, Finagle, Fleet, Nginx, Prequal, PrequalSync
from .hot import written
from .page import framed, marks, put, say
from .report import table

DATA = Path(__file__).parents[1] / "data"
MILLI = 1000
BACKENDS = 10
FLEETS = [1, 20, 100]
SHORT_FLEET = 20
BROKEN = 3  # The backend that fails.
FAULT = 2 * SECOND  # It begins then.
FAILS_AFTER = 20 * MILLI
TURN = 5 * SECOND
HEALTH = "FAILS 5 FAILRATE 40 EJECT 30000"
SPAN = 600_000  # milliseconds of a lease: longer than any request
STEP = 10  # milliseconds; the steps of a busy pool's clock
WARM = 10  # The first one of so many requests are not counted for latencies.
Rows = list[dict[str, Any]]
Trace = list[tuple[int, float, int, float]]
Outcome = tuple[bool, int] | None


# Scenarios


def alike(backend: int, now: int) -> int:
    """All are of full speed."""
    return 1


def half_slow(backend: int, now: int) -> int:
    """Every other one needs three times as long."""
    return 3 if backend % 2 else 1


def slow_in_turn(backend: int, now: int) -> int:
    """One of them needs five times as long, for five seconds; then the next one."""
    return 5 if now // TURN % BACKENDS == backend else 1


def works(backend: int, now: int, coin: float) -> Outcome:
    """No request fails."""
    return None


def dead(backend: int, now: int, coin: float) -> Outcome:
    """All requests to one of them fail, after as long as one takes on the average."""
    return (False, FAILS_AFTER) if backend == BROKEN and now >= FAULT else None


def black_hole(backend: int, now: int, coin: float) -> Outcome:
    """All requests to one of them fail within a millisecond."""
    return (False, MILLI) if backend == BROKEN and now >= FAULT else None


def half_failing(backend: int, now: int, coin: float) -> Outcome:
    """Every other request to one of them fails, after it was worked on."""
    return (False, 0) if backend == BROKEN and now >= FAULT and coin < 0.5 else None


@dataclass(frozen=True)
class Scenario:
    """Backends of that many slots, requests of that mean work in microseconds, and the load."""

    title: str
    slots: int
    work: int
    load: float
    seconds: float
    slow: Callable[[int, int], int] = alike
    fails: Callable[[int, int, float], Outcome] = works

    @property
    def capacity(self) -> float:
        """Requests that all backends can serve in a second."""
        speeds = [1 / self.slow(backend, 0) for backend in range(BACKENDS)]
        return self.slots * SECOND / self.work * sum(speeds)

    @property
    def is_about_failures(self) -> bool:
        """Whether requests fail."""
        return self.fails is not works


# Where one fails, 400 requests a second. A black hole draws a crowd where the others are busy.
SCENARIOS = [
    Scenario("dead", 4, 20 * MILLI, 0.2, 62, fails=dead),
    Scenario("failing half", 4, 20 * MILLI, 0.2, 62, fails=half_failing),
    Scenario("black hole", 1, 20 * MILLI, 0.8, 62, fails=black_hole),
    Scenario("half 3 times slower", 1, 10 * MILLI, 0.8, 150, half_slow),
    Scenario("equal", 1, 10 * MILLI, 0.8, 100),
    Scenario("one 5 times slower in turn", 1, 10 * MILLI, 0.8, 100, slow_in_turn),
    Scenario("64 slots, half 3 times slower", 64, 200 * MILLI, 0.8, 60, half_slow),
    Scenario("64 slots, equal", 64, 200 * MILLI, 0.8, 40),
]
SHORT_REQUESTS = 2000
BY_TITLE = {scenario.title: scenario for scenario in SCENARIOS}


def short(scenario: Scenario) -> Scenario:
    """The same, for about two thousand requests, and a while longer where one fails."""
    seconds = SHORT_REQUESTS / (scenario.load * scenario.capacity)
    return replace(scenario, seconds=seconds + FAULT / SECOND * scenario.is_about_failures)


def trace(scenario: Scenario, seed: int = 1) -> Trace:
    """When each request comes, to which of all gateways, what work it is, and its coin.

    They come by chance (Poisson). The work is lognormal with sigma 1: one in a hundred is six times the mean.
    """
    chance = random.Random(seed)
    gap = SECOND / (scenario.load * scenario.capacity)
    now, requests = 0.0, []
    while (now := now + chance.expovariate(1 / gap)) < scenario.seconds * SECOND:
        work = max(1, round(scenario.work * chance.lognormvariate(-0.5, 1)))
        requests.append((round(now), chance.random(), work, chance.random()))
    return requests


# Backends


def one_queue(scenario: Scenario, requests: Trace) -> list[int]:
    """How long each takes where all wait in one queue, and the fastest free backend serves."""
    free = [scenario.slots] * BACKENDS
    waiting: deque[tuple[int, int]] = deque()
    running: list[tuple[int, int]] = []
    took: list[int] = []

    def serve(now: int) -> None:
        while waiting and any(free):
            backend = min((i for i in range(BACKENDS) if free[i]), key=lambda i: scenario.slow(i, now))
            came, work = waiting.popleft()
            free[backend] -= 1
            ends = now + work * scenario.slow(backend, now)
            took.append(ends - came)
            heapq.heappush(running, (ends, backend))

    def until(now: float) -> None:
        while running and running[0][0] <= now:
            ends, backend = heapq.heappop(running)
            free[backend] += 1
            serve(ends)

    for now, _, work, _ in requests:
        until(now)
        waiting.append((now, work))
        serve(now)
    until(float("inf"))
    return took


def simulate(scenario: Scenario, requests: Trace, fleet: Fleet, gateways: int) -> dict[str, Any]:
    """What becomes of the requests of that many gateways."""
    slots = [[0] * scenario.slots for _ in range(BACKENDS)]
    running: list[tuple[int, int, int, int, object, bool, int]] = []
    took, failed, broken = [], 0, 0
    for number, (now, which, work, coin) in enumerate(requests):
        while running and running[0][0] <= now:
            ends, _, gateway, backend, ticket, is_ok, micros = heapq.heappop(running)
            fleet.done(ends, gateway, backend, ticket, is_ok, micros)
        gateway = int(which * gateways)
        backend, ticket = fleet.pick(now, gateway)
        outcome = scenario.fails(backend, now, coin)
        broken += backend == BROKEN and now >= FAULT
        if outcome and outcome[1]:
            micros = outcome[1]
        else:
            free = slots[backend]
            begins = max(now, free[0])
            micros = begins + work * scenario.slow(backend, begins) - now
            heapq.heapreplace(free, now + micros)
        if outcome:
            failed += 1
        elif number >= len(requests) // WARM:
            took.append(micros)
        entry = (now + micros, number, gateway, backend, ticket, outcome is None, micros)
        heapq.heappush(running, entry)
    return {"failed": failed, "to the broken one": broken, **percentiles(took)}


def percentiles(took: list[int]) -> dict[str, float]:
    """In milliseconds."""
    return {"p50": median(took) / MILLI, "p99": quantiles(took, n=100, method="inclusive")[98] / MILLI}


# The module


class Module:
    """Gateways that share a pool on a server with the module. A ticket is a lease."""

    def __init__(self, wire: Wire, algorithm: str, settings: str) -> None:
        self._wire = wire
        self._algorithm = algorithm
        self._clock = 0
        self._told: list[bytes] = []
        names = " ".join(f"{backend} 1" for backend in range(BACKENDS))
        self._ask("FLUSHALL")
        self._ask(f"LB.ADD pool {names}")
        self._ask("LB.SEED pool 1")
        if settings:
            self._ask(f"LB.HEALTH pool {settings}")

    def _ask(self, command: str) -> None:
        answer = self._wire.ask(command)
        if isinstance(answer, Refused):
            raise RuntimeError(f"{command}: {answer}")

    def pick(self, now: int, gateway: int) -> tuple[int, object]:
        """In one pipeline: the time, what has ended since, and the pick."""
        millis = STEP + now // MILLI
        if millis - self._clock >= STEP:
            self._clock = millis
            self._told.append(pack(words(f"LB.TICK pool {millis}")))
        self._told.append(pack(words(f"LB.PICK pool {self._algorithm} LEASE {SPAN} OWNER g{gateway}")))
        self._wire.send(b"".join(self._told))
        *told, picked = [self._wire.read() for _ in self._told]
        if any(answer not in (1, "OK") for answer in told) or not isinstance(picked, list):
            raise RuntimeError(f"not as asked: {told}, {picked}")
        self._told.clear()
        return int(picked[0]), picked[1]

    def done(self, now: int, gateway: int, backend: int, ticket: Any, is_ok: bool, micros: int) -> None:
        """It is told with the next pick."""
        word = b"OK" if is_ok else b"FAIL"
        self._told.append(pack([b"LB.DONE", b"pool", ticket, word, b"LATENCY", b"%d" % micros]))


# All ways

OURS = ["lc", "p2c", "ewma"]
OTHERS: dict[str, Callable[[Scenario, int], Fleet]] = {
    "nginx": lambda _, gateways: Nginx(gateways, BACKENDS),
    "Envoy": lambda _, gateways: Envoy(gateways, BACKENDS),
    "finagle": lambda _, gateways: Finagle(gateways, BACKENDS),
    "Prequal": lambda scenario, gateways: Prequal(gateways, BACKENDS, answering(scenario)),
    "Prequal, sync": lambda scenario, gateways: PrequalSync(gateways, BACKENDS, answering(scenario)),
}
PREQUAL = ["Prequal", "Prequal, sync"]
ONE_QUEUE = "one queue"


def answering(scenario: Scenario) -> Callable[[int, int], bool]:
    """Which backends answer probes: all but a dead one."""
    return lambda backend, now: scenario.fails is not dead or dead(backend, now, 0) is None


def ours(scenario: Scenario) -> Iterator[tuple[str, str, str]]:
    """The ways of the module: a title, the algorithm, the settings of LB.HEALTH."""
    for algorithm in OURS:
        if scenario.is_about_failures:
            yield f"redis-lb {algorithm}, LB.HEALTH", algorithm, HEALTH
        if not scenario.is_about_failures or scenario.fails is black_hole:
            yield f"redis-lb {algorithm}", algorithm, ""


def theirs(scenario: Scenario) -> Iterator[str]:
    """The others, as far as their rules say anything of it: Prequal's paper names no rule for failures."""
    for title in OTHERS:
        if title not in PREQUAL or scenario.fails in (works, dead):
            yield title


def of_module(wire: Wire, scenario: Scenario, requests: Trace, fleets: list[int]) -> Rows:
    """What becomes of them with the module."""
    found = []
    for title, algorithm, settings in ours(scenario):
        for gateways in fleets:
            fleet = Module(wire, algorithm, settings)
            found.append(
                row(scenario, title, gateways, requests, simulate(scenario, requests, fleet, gateways))
            )
    return found


def of_others(scenario: Scenario, requests: Trace, fleets: list[int]) -> Rows:
    """What becomes of them with the others, and with one queue."""
    found = []
    for title in theirs(scenario):
        for gateways in fleets:
            fleet = OTHERS[title](scenario, gateways)
            found.append(
                row(scenario, title, gateways, requests, simulate(scenario, requests, fleet, gateways))
            )
    if not scenario.is_about_failures:
        took = one_queue(scenario, requests)[len(requests) // WARM :]
        found.append(row(scenario, ONE_QUEUE, 1, requests, {"failed": 0, **percentiles(took)}))
    return found


def row(
    scenario: Scenario, way: str, gateways: int, requests: Trace, found: dict[str, Any]
) -> dict[str, Any]:
    """A line of the figures."""
    about = {"scenario": scenario.title, "way": way, "gateways": gateways, "requests": len(requests)}
    return {name: round(of, 3) if isinstance(of, float) else of for name, of in (about | found).items()}


def figures(wire: Wire, scenarios: list[Scenario], fleets: list[int], seed: int = 1) -> Rows:
    """Those of all ways."""
    found = []
    for scenario in scenarios:
        say(f"{scenario.title}, {scenario.seconds:.0f} s")
        requests = trace(scenario, seed)
        found += of_module(wire, scenario, requests, fleets)
        found += of_others(scenario, requests, fleets)
    return found


# What is shown


class Figures:
    """What was found, by scenario and way."""

    def __init__(self, rows: Rows) -> None:
        self._rows = {(row["scenario"], row["way"], row["gateways"]): row for row in rows}

    def each(self, scenario: str, way: str, what: str) -> list[float]:
        """By the number of gateways."""
        rows = (self._rows.get((scenario, way, gateways)) for gateways in FLEETS)
        return [row[what] for row in rows if row]

    def of(self, scenario: str, way: str, what: str, gateways: int = 1) -> float:
        """One of them."""
        return self._rows[scenario, way, gateways][what]

    def ways(self, scenarios: list[str]) -> list[str]:
        """Those of any of these scenarios."""
        return [*dict.fromkeys(way for scenario, way, _ in self._rows if scenario in scenarios)]

    def cell(self, scenario: str, way: str, what: str) -> str:
        """The figures of 1, 20 and 100 gateways; once, if they are the same."""
        found = [f"{figure:,.0f}" for figure in self.each(scenario, way, what)]
        return " / ".join(found if len({*found}) > 1 else found[:1])

    def table(self, head: str, scenarios: list[str], whats: list[str]) -> str:
        """A line for each way."""
        columns = [(scenario, what) for scenario in scenarios for what in whats]
        titles = [f"{scenario}, {what}" if len(whats) > 1 else scenario for scenario, what in columns]
        rows = [
            [way, *(self.cell(scenario, way, what) for scenario, what in columns)]
            for way in self.ways(scenarios)
        ]
        return table([head, *titles], rows)


FAILING = [scenario.title for scenario in SCENARIOS if scenario.is_about_failures]
NARROW = [scenario.title for scenario in SCENARIOS if not scenario.is_about_failures and scenario.slots == 1]
WIDE = [scenario.title for scenario in SCENARIOS if scenario.slots == 64]
EWMA = "redis-lb ewma"
# p99 of ewma, beside that of another way with one gateway, which then knows of all requests: at most so many
# times.
TARGETS = [
    ("half 3 times slower", "redis-lb lc", 0.85),
    ("half 3 times slower", "finagle", 0.55),
    ("half 3 times slower", ONE_QUEUE, 1.5),
    ("equal", "redis-lb lc", 1.1),
    ("one 5 times slower in turn", "redis-lb lc", 0.97),
]
MOST_TO_BLACK_HOLE = 0.001


def ratios(found: Figures) -> list[tuple[str, float, float]]:
    """Each target: of what, the bound, the figure."""
    rows = []
    for scenario, other, bound in TARGETS:
        ratio = found.of(scenario, EWMA, "p99") / found.of(scenario, other, "p99")
        rows.append((f"p99, {scenario}: ewma / {other}", bound, ratio))
    hole = found.of("black hole", EWMA, "to the broken one") / found.of("black hole", EWMA, "requests")
    return [*rows, ("share of the requests, black hole: ewma without LB.HEALTH", MOST_TO_BLACK_HOLE, hole)]


def tables(rows: Rows) -> list[str]:
    """All of them, in Markdown."""
    found = Figures(rows)
    targets = [
        [title, f"≤ {bound:g}", f"{figure:.4f} {'✓' if figure <= bound else '✗'}"]
        for title, bound, figure in ratios(found)
    ]
    return [
        found.table("failed requests", FAILING, ["failed"]),
        found.table("ms, 1 slot", NARROW, ["p50", "p99"]),
        found.table("ms, 64 slots", WIDE, ["p50", "p99"]),
        table(["", "target", "is"], targets),
    ]


WIDTH, LABELS, BAR, THIN = 760, 210, 440, 9
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .note { font-size: 12px; fill: #59636e }
  .small { font-size: 10px } .head { font-weight: 600 } .page { fill: #ffffff; stroke: #d1d9e0 }
  .ours { fill: #1a7f64 } .other { fill: #9aa4af } .cut { stroke: #ffffff; stroke-width: 3 }
"""
OPACITY = {1: 0.45, 20: 0.7, 100: 1}
PANELS = [
    ("failed", "dead", 1000, "One of ten backends dies: requests that fail within a minute, of 24,600"),
    (
        "p99",
        "half 3 times slower",
        1000,
        "Half of the backends are three times slower: the 99th percentile in ms",
    ),
]


def picture(rows: Rows) -> str:
    """Failed requests and p99, a bar for each number of gateways. Its page is white also on dark pages."""
    found = Figures(rows)
    lines, said, y = [], [], 10
    for what, scenario, longest, heading in PANELS:
        y += 24
        lines.append(f'<text class="head" x="20" y="{y}">{heading}</text>')
        y += 14
        for way in found.ways([scenario]):
            figures = found.each(scenario, way, what)
            kind = "ours" if way.startswith("redis-lb") else "other"
            middle = y + THIN * len(figures) / 2 + 4
            lines.append(f'<text x="{LABELS}" y="{middle:.1f}" text-anchor="end">{escape(way)}</text>')
            for gateways, figure in zip(FLEETS, figures, strict=False):
                width = max(1, BAR * min(figure, longest) / longest)
                left = LABELS + 10
                lines.append(
                    f'<rect class="{kind}" opacity="{OPACITY[gateways]}" x="{left}" y="{y}" '
                    f'width="{width:.1f}" height="{THIN - 1}"/>'
                )
                if figure > longest:
                    lines.append(
                        f'<path class="cut" d="M {left + width - 24:.1f} {y + THIN} l 6 -{THIN + 1}"/>'
                    )
                lines.append(
                    f'<text class="small" x="{left + width + 6:.1f}" y="{y + THIN - 1}">{figure:,.0f}</text>'
                )
                y += THIN
            y += 6
            said.append(f"{way} {found.cell(scenario, way, what)}")
        said[-1] += "."
        y += 8
    note = "Each group: 1, 20 and 100 gateways that share the same requests. Repeat it: scripts/bench health"
    return framed("; ".join(said), STYLE, lines, WIDTH, y, note)


# The program

MARKS = marks("scripts/bench health")


def shown(rows: Rows) -> str:
    """What README.md shows between the marks."""
    return "".join(f"\n{part}\n" for part in tables(rows)) + "\n"


def main(library: Path, is_quick: bool) -> None:
    """Computes, and writes what it has found."""
    with Server(installed(), library, ["clock", "manual"]) as server, Wire(server.port) as wire:
        data = {"short": figures(wire, [*map(short, SCENARIOS)], [SHORT_FLEET])}
        if is_quick:
            print(json.dumps(data["short"], indent=1))
            return
        data["whole"] = figures(wire, SCENARIOS, FLEETS)
    (DATA / "health.json").write_text(written(data))
    (DATA / "health.svg").write_text(picture(data["whole"]))
    put(MARKS, shown(data["whole"]))
    print(shown(data["whole"]))
