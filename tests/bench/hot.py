"""One hot pool past one core: what prefetching and sharding do to the shares.

    scripts/bench hot [--quick]

It simulates fleets. The sequences are those of the module, drawn from a server; only the order in
which gateways ask is made up, always the same. A gateway is an iterator of backends (indices of the weights),
so a fleet is a list of iterators, and what it picks is one `next` for each arrival. A full run writes
tests/data/hot.json and hot.svg, which come out alike on every machine; a quick one writes to target/bench.
hot_speed.py measures how fast one pool is, hot_waits.py simulates what prefetching costs in time.

A deviation is counted in picks: how many a backend has had, less its share of all that were made until then.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from html import escape
from itertools import accumulate, cycle, islice
from math import gcd, log
from pathlib import Path
from statistics import mean
from typing import Any

from model import Pool, Request
from server import Server
from servers import Binary
from wire import Wire

from .members import ask
from .page import say
from .report import table

DATA = Path(__file__).parents[1] / "data"
TARGET = Path(__file__).parents[2] / "target" / "bench"
KEY = "hot"
GATEWAYS = 1000
RATE = 1000  # picks a second of each gateway
BACKENDS = 100
EQUAL, MIXED = "equal weights", "weights 1 to 10"
WEIGHTS = {EQUAL: [1] * BACKENDS, MIXED: [1 + i % 10 for i in range(BACKENDS)]}
MULTIPLES = (
    "weights 4, some 1"  # With four shards, i/4 of a period is whole laps of every backend of weight 4.
)
WINDOWS = {"10 ms": 0.01, "100 ms": 0.1}
POISSON, REGULAR = "Poisson", "regular"
EACH = 30_000  # Picks between two points of a curve.
BATCHES = [1, 2, 5, 10, 50, 100]
FLEETS = [1, 10, 100, 1000]
# Picks of the fleets and of the other simulations.
FULL = {"fleet": 3_000_000, "picks": 1_000_000}
QUICK = {"fleet": 90_000, "picks": 30_000}
Weights = list[int]
Fleet = list[Iterator[int]]
Rows = list[dict[str, Any]]


# Sequences of the module


def period(weights: Weights) -> int:
    """After so many picks the sequence begins anew."""
    return sum(weights) // gcd(*weights)


def order(wire: Wire, weights: Weights, ahead: int = 0, first: int = 0) -> list[int]:
    """A period of a new pool: backends added from the `first` on, and `ahead` picks made before."""
    make(wire, weights, ahead, first)
    drawn = picked(wire, period(weights))
    if list(map(int, ask(wire, "LB.PEEK", KEY, "COUNT", len(drawn)))) != drawn:
        raise RuntimeError("the sequence is not periodic")
    return drawn


def make(wire: Wire, weights: Weights, ahead: int = 0, first: int = 0) -> None:
    """Makes that pool."""
    ask(wire, "DEL", KEY)
    ask(wire, "LB.ADD", KEY, *(word for pair in rotated([*enumerate(weights)], first) for word in pair))
    picked(wire, ahead)


def picked(wire: Wire, count: int) -> list[int]:
    """The next ones of the pool."""
    sizes = [min(10_000, count - start) for start in range(0, count, 10_000)]
    return [int(backend) for size in sizes for backend in ask(wire, "LB.PICK", KEY, "COUNT", size)]


def nginx(weights: Weights) -> list[int]:
    """A period by the naive form."""
    naive = Pool()
    for i, weight in enumerate(weights):
        naive.add(b"%d" % i, weight)
    return list(map(int, naive.pick(Request.of([b"wrr", b"COUNT", b"%d" % period(weights)]))))


def rotated(things: list, by: int) -> list:
    """The same, from another one on."""
    by %= len(things)
    return things[by:] + things[:by]


# Fleets


def shared(gateways: int, source: list[int]) -> Fleet:
    """All pick from one pool."""
    return [cycle(source)] * gateways


def prefetching(gateways: int, source: list[int], n: int, chance: random.Random | None) -> Fleet:
    """All take from one pool n/2 to n at a time, by chance, as Prefetch in README.md; or always n."""
    pool = cycle(source)
    sizes = iter(partial(chance.randint, (n + 1) // 2, n), 0) if chance else cycle([n])
    return [batches(pool, sizes) for _ in range(gateways)]


def batches(pool: Iterator[int], sizes: Iterator[int]) -> Iterator[int]:
    """What a gateway hands out."""
    while True:
        yield from [*islice(pool, next(sizes))]


def sharded(gateways: int, sources: list[list[int]], chance: random.Random) -> Fleet:
    """Each goes round the shards, from one by chance."""
    shards = [cycle(source) for source in sources]
    return [map(next, cycle(rotated(shards, chance.randrange(len(shards))))) for _ in range(gateways)]


def independent(gateways: int, source: list[int], chance: random.Random | None) -> Fleet:
    """Each has a balancer of its own; all begin alike, or each somewhere by chance."""
    starts = [chance.randrange(len(source)) if chance else 0 for _ in range(gateways)]
    return [cycle(rotated(source, start)) for start in starts]


def drawing(gateways: int, weights: Weights, chance: random.Random) -> Fleet:
    """Each draws a backend by weight."""
    bounds = [*accumulate(weights)]
    draws = iter(partial(chance.choices, range(len(weights)), cum_weights=bounds, k=1000), None)
    return [(backend for some in draws for backend in some)] * gateways


def phased(wire: Wire, weights: Weights, k: int) -> list[list[int]]:
    """Shard i begins i/k of a period farther on, as ShardedPool in README.md does it."""
    return [order(wire, weights, period(weights) * i // k) for i in range(k)]


def ways(wire: Wire, weights: Weights, gateways: int = GATEWAYS) -> dict[str, Fleet]:
    """The fleets that are compared."""
    one = order(wire, weights)

    def chance() -> random.Random:
        return random.Random("starts")

    found = {"one shared pool": shared(gateways, one)}
    for k in 4, 16:
        found[f"{k} shards, i/{k} of a period apart"] = sharded(gateways, phased(wire, weights, k), chance())
        found[f"{k} shards in phase"] = sharded(gateways, [one] * k, chance())
    for n in 10, 100:
        found[f"prefetch {n}"] = prefetching(gateways, one, n, chance())
    found["prefetch 100, each batch in full"] = prefetching(gateways, one, 100, None)
    alone = nginx(weights)
    found[f"{gateways:,} balancers of their own, started at random"] = independent(gateways, alone, chance())
    found[f"{gateways:,} balancers of their own, after a reload"] = independent(gateways, alone, None)
    found["random choice by weight"] = drawing(gateways, weights, chance())
    return found


def arrivals(kind: str, gateways: int, count: int) -> list[int]:
    """Who picks next, so many times."""
    if kind == REGULAR:
        return [i % gateways for i in range(count)]
    chance = random.Random(f"arrivals of {gateways}").random
    return [int(chance() * gateways) for _ in range(count)]


def moments(kind: str, rate: int, count: int) -> list[float]:
    """When, in seconds."""
    if kind == REGULAR:
        return [i / rate for i in range(count)]
    chance = random.Random("moments").random
    return [*accumulate(-log(1 - chance()) / rate for _ in range(count))]


def simulated(fleet: Fleet, who: list[int]) -> bytes:
    """The backends that are picked, one a byte."""
    return bytes(map(next, map(fleet.__getitem__, who)))


# Measures


def deviations(picks: Iterable[int], weights: Weights, each: int) -> list[float]:
    """The largest deviation of any backend at any moment, up or down, within every `each` picks."""
    total = sum(weights)
    had = [0] * len(weights)  # Everything is `total` times as large, hence an integer.
    picks, made, found = iter(picks), 0, []
    worst = 0
    while some := [*islice(picks, each)]:
        # A backend is farthest behind just before a pick of it, and farthest ahead just after.
        for t, backend in enumerate(some, made):
            over = had[backend] - weights[backend] * t
            had[backend] += total
            if -over > worst:
                worst = -over
            over += total - weights[backend]
            if over > worst:
                worst = over
        made += len(some)
        at_the_end = max(abs(had[i] - weight * made) for i, weight in enumerate(weights))
        found.append(max(worst, at_the_end) / total)
        worst = at_the_end
    return found


def deviation(picks: Iterable[int], weights: Weights) -> float:
    """The largest of all."""
    return max(deviations(picks, weights, EACH))


def busiest(picks: bytes, times: list[float], weights: Weights, rate: int, window: float) -> float:
    """The most picks of any backend in any window of that length, as a multiple of its share of the rate."""
    most = [0] * len(weights)
    history: list[list[float]] = [[] for _ in weights]
    for backend, now in zip(picks, times, strict=True):
        past = history[backend]
        past.append(now)
        if now - past[-1 - most[backend]] < window:
            most[backend] += 1
    fair = window * rate / sum(weights)
    return max(n / (fair * weight) for n, weight in zip(most, weights, strict=True))


# What is simulated


def compared(wire: Wire, count: int) -> Rows:
    """The ways beside each other."""
    rows = []
    for kind in POISSON, REGULAR:
        who, when = arrivals(kind, GATEWAYS, count), moments(kind, GATEWAYS * RATE, count)
        for title, weights in WEIGHTS.items():
            for way, fleet in ways(wire, weights).items():
                say(f"{kind} arrivals, {title}: {way}")
                picks = simulated(fleet, who)
                curve = deviations(picks, weights, EACH)
                row = {"way": way, "arrivals": kind, "weights": title, "deviation": max(curve)}
                for window, seconds in WINDOWS.items():
                    row[window] = busiest(picks, when, weights, GATEWAYS * RATE, seconds)
                if title == EQUAL and kind == POISSON:
                    row["curve"] = curve
                rows.append(row)
    return rows


def prefetched(wire: Wire, count: int, fleets: Iterable[int] = FLEETS) -> Rows:
    """What prefetching costs, by the size of the batches and of the fleet."""
    rows = []
    for gateways in fleets:
        who = arrivals(POISSON, gateways, count)
        for title, weights in WEIGHTS.items():
            say(f"prefetching, {gateways} gateways, {title}")
            one = order(wire, weights)
            for n in BATCHES:
                fleet = prefetching(gateways, one, n, random.Random("starts"))
                found = deviation(simulated(fleet, who), weights)
                rows.append({"n": n, "gateways": gateways, "weights": title, "deviation": found})
    return rows


# How far shard i of k is ahead of the first, as a part of a period; and which backend it was given first, as
# a part of their number.
GOLDEN = (5**0.5 - 1) / 2
SHIFTS: dict[str, tuple[Callable[[int, int], float], Callable[[int, int], float]]] = {
    "in phase": (lambda i, k: 0, lambda i, k: 0),
    "i/k of a period": (lambda i, k: i / k, lambda i, k: 0),
    "i/(k+1) of a period": (lambda i, k: i / (k + 1), lambda i, k: 0),
    "golden ratio": (lambda i, k: i * GOLDEN % 1, lambda i, k: 0),
    "by chance": (lambda i, k: random.Random(f"shard {i}").random(), lambda i, k: 0),
    "added in rotated order": (lambda i, k: 0, lambda i, k: i / k),
    "rotated, and i/k of a period": (lambda i, k: i / k, lambda i, k: i / k),
}


# How many backends of which weight.
POOLS = [
    [(100, 1)],
    [(10, 1)],
    [(1, 5), (2, 1)],
    [(10, weight) for weight in range(1, 11)],
    [(1, weight) for weight in range(1, 101)],
    [(1, 50), (50, 1)],
    # Multiples of the number of shards: i/k of a period is whole laps of such a backend.
    *([(50, weight), (5, 1)] for weight in (2, 3, 4, 5, 8, 10)),
    [(20, 8), (20, 4), (20, 2), (20, 1)],
    [(10, 100), (10, 50), (10, 20), (10, 10)],
    [(10, 3), (10, 2), (10, 1)],
]
SHARDS = [2, 4, 8, 16]


def shifted(wire: Wire, count: int, pools: list[list[tuple[int, int]]] = POOLS) -> Rows:
    """Which shift of the shards keeps their union smooth."""
    rows = []
    who = arrivals(POISSON, GATEWAYS, count)
    for of in pools:
        weights = [weight for number, weight in of for _ in range(number)]
        whole = period(weights)
        for k in SHARDS:
            say(f"shifts of {k} shards, pool {POOLS.index(of) + 1}")
            for shift, (ahead, first) in SHIFTS.items():
                sources = [
                    order(wire, weights, int(ahead(i, k) * whole + 1e-6), int(first(i, k) * len(weights)))
                    for i in range(k)
                ]
                fleet = sharded(GATEWAYS, sources, random.Random("starts"))
                found = deviation(simulated(fleet, who), weights)
                rows.append({"shift": shift, "k": k, "pool": POOLS.index(of), "deviation": found})
    return rows


BEFORE = [10] * BACKENDS
CHANGES: dict[str, tuple[Weights, Weights]] = {
    "one of 100 equal weights is halved": (BEFORE, [5, *BEFORE[1:]]),
    "every other one of 100 equal weights is halved": (BEFORE, [5, 10] * (BACKENDS // 2)),
    "weights 1 to 10 become 10 to 1": (WEIGHTS[MIXED], [11 - weight for weight in WEIGHTS[MIXED]]),
    "a backend joins 100 equal ones": (BEFORE, [*BEFORE, 10]),
}


def lived(
    wire: Wire, before: Weights, after: Weights, count: int, ahead: int, early: int, late: int
) -> list[int]:
    """What a pool gives after a change, `early` picks later than the first shard changed, `late` ago."""
    make(wire, before, ahead)
    picked(wire, 7777 + early)
    ask(wire, "LB.ADD", KEY, *(word for pair in enumerate(after) for word in pair))
    picked(wire, late)
    return picked(wire, count)


def changed(wire: Wire, count: int, changes: Iterable[str] = CHANGES) -> Rows:
    """Whether shards stay shifted when a change reaches one after another, a millisecond apart."""
    rows = []
    who = arrivals(POISSON, GATEWAYS, count)
    for k in 4, 16:
        apart = RATE * GATEWAYS // 1000 // k  # Picks that a shard gives in a millisecond.
        for change in changes:
            say(f"{change}, {k} shards")
            before, after = CHANGES[change]
            through = partial(lived, wire, before, after, count // k + 10 * len(after))
            shifts = {
                "in phase": [through(0, i * apart, (k - i) * apart) for i in range(k)],
                "shifted": [through(period(before) * i // k, i * apart, (k - i) * apart) for i in range(k)],
                "shifted anew": phased(wire, after, k),
            }
            for shift, sources in shifts.items():
                fleet = sharded(GATEWAYS, sources, random.Random("starts"))
                found = deviation(simulated(fleet, who), after)
                rows.append({"change": change, "k": k, "shift": shift, "deviation": found})
    return rows


def simulate(wire: Wire, fleet: int, picks: int) -> dict[str, Rows]:
    """All of it."""
    return {
        "fleets": compared(wire, fleet),
        "prefetch": prefetched(wire, picks),
        "shifts": shifted(wire, picks // 10),
        "changes": changed(wire, picks),
    }


def written(data: dict[str, Rows]) -> str:
    """As JSON, a row a line, three decimals."""
    short = json.loads(json.dumps(data), parse_float=lambda text: round(float(text), 3))
    parts = [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in short.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


# What is shown of the simulation


def cell(rows: Rows, value: str = "deviation", **where: Any) -> str:
    """A figure out of the row for which that holds."""
    figure = next(row[value] for row in rows if where.items() <= row.items())
    if value in WINDOWS:
        return f"{figure:.2f}"
    return f"{figure:.1f}" if figure < 10 else f"{figure:,.0f}"


def overall(rows: Rows, **where: Any) -> str:
    """The mean and the largest of the rows for which that holds."""
    found = [row["deviation"] for row in rows if where.items() <= row.items()]
    return f"{mean(found):.1f} / {max(found):.1f}"


def different(rows: Rows, field: str) -> list[Any]:
    """What that field is in the rows."""
    return [*dict.fromkeys(row[field] for row in rows)]


def tables(data: dict[str, Rows]) -> dict[str, str]:
    """What was simulated, in Markdown, by what it is about."""
    fleets, prefetch, shifts, changes = (data[name] for name in ("fleets", "prefetch", "shifts", "changes"))

    def both(rows: Rows, value: str = "deviation", **where: Any) -> str:
        return " / ".join(cell(rows, value, weights=title, **where) for title in WEIGHTS)

    found = {
        f"fleets, {kind} arrivals": table(
            ["", "deviation", *(f"busiest {window}" for window in WINDOWS)],
            [
                [way, *(both(fleets, value, arrivals=kind, way=way) for value in ("deviation", *WINDOWS))]
                for way in different(fleets, "way")
            ],
        )
        for kind in (POISSON, REGULAR)
    }
    found["prefetch"] = table(
        ["n", *(f"{gateways:,} gateway{'s' * (gateways > 1)}" for gateways in FLEETS)],
        [[str(n), *(both(prefetch, n=n, gateways=gateways) for gateways in FLEETS)] for n in BATCHES],
    )
    found["shifts"] = table(
        ["shift of shard i", *(f"k = {k}" for k in SHARDS)],
        [[shift, *(overall(shifts, shift=shift, k=k) for k in SHARDS)] for shift in SHIFTS],
    )
    columns = [(k, shift) for k in different(changes, "k") for shift in different(changes, "shift")]
    found["changes"] = table(
        ["change", *(f"k = {k}, {shift}" for k, shift in columns)],
        [
            [change, *(cell(changes, change=change, k=k, shift=shift) for k, shift in columns)]
            for change in CHANGES
        ],
    )
    return found


# The lines of the picture, from below: a way, what the picture calls it, its colour.
CURVES = [
    ("one shared pool", "one shared pool", "#116149"),
    ("4 shards, i/4 of a period apart", "4 shards", "#1a7f64"),
    ("16 shards, i/16 of a period apart", "16 shards", "#2a9a72"),
    ("prefetch 10", "prefetch 10", "#2f6fb5"),
    ("prefetch 100", "prefetch 100", "#4a86c5"),
    ("1,000 balancers of their own, started at random", "own balancers, begun at random", "#8a6d3b"),
    ("random choice by weight", "random choice", "#c26a1b"),
    ("1,000 balancers of their own, after a reload", "own balancers, after a reload", "#b3261e"),
]
WIDTH, HEIGHT = 780, 430
LEFT, RIGHT, TOP, BOTTOM = 62, 500, 66, 370
LOWEST, HIGHEST = 0.7, 1400  # Picks; the scale is logarithmic.
APART = 17  # Between labels.
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .note { font-size: 12px; fill: #59636e }
  .page { fill: #ffffff; stroke: #d1d9e0 } line { stroke: #e4e8ec } polyline { fill: none; stroke-width: 2 }
"""


def height(figure: float) -> float:
    """Where a number of picks lies."""
    return BOTTOM - (BOTTOM - TOP) * log(figure / LOWEST) / log(HIGHEST / LOWEST)


def spread(places: list[float]) -> list[float]:
    """Places of labels, from the lowest on the page up, so that none covers another."""
    found: list[float] = []
    for place in places:
        found.append(min([place, *(other - APART for other in found[-1:])]))
    return found


def picture(data: dict[str, Rows]) -> str:
    """The SVG. Its page is white, so it looks the same in light and dark surroundings."""
    curves = {row["way"]: row["curve"] for row in data["fleets"] if "curve" in row}
    points = len(curves[CURVES[0][0]])
    seconds = points * EACH / (GATEWAYS * RATE)
    step = (RIGHT - LEFT) / points
    worst = "; ".join(f"{label}: {max(curves[way]):,.0f}" for way, label, _ in CURVES)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>Largest deviation of any backend from its share, in picks: {escape(worst)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        '<text x="20" y="28" font-weight="600">How far any backend is from its share, in picks</text>',
        f'<text class="note" x="20" y="47">{GATEWAYS:,} gateways × {RATE:,} picks a second, '
        f"{BACKENDS} backends of equal weight; logarithmic, lower is better</text>",
    ]
    lines.append(f'<text class="note" x="{RIGHT + 18}" y="{TOP + 4}">the largest of all</text>')
    for figure in 1, 10, 100, 1000:
        y = height(figure)
        lines += [
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}"/>',
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{figure:,}</text>',
        ]
    for second in range(int(seconds) + 1):
        x = LEFT + (RIGHT - LEFT) * second / seconds
        lines.append(f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{second} s</text>')
    ends = sorted(CURVES, key=lambda curve: curves[curve[0]][-1])
    places = spread([height(curves[way][-1]) for way, _, _ in ends])
    for (way, label, colour), place in zip(ends, places, strict=True):
        curve = curves[way]
        path = [(LEFT + step * (i + 1), height(figure)) for i, figure in enumerate(curve)]
        path += [(RIGHT + 12, place)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
        lines += [
            f'<polyline points="{drawn}" stroke="{colour}"/>',
            f'<text x="{RIGHT + 18}" y="{place + 4:.1f}" style="fill:{colour}">'
            f"{escape(label)}: {max(curve):,.0f}</text>",
        ]
    note = "Sequences of the module and of nginx's algorithm, Poisson arrivals. Repeat it: scripts/bench hot"
    lines += [f'<text class="note" x="20" y="{HEIGHT - 18}">{escape(note)}</text>', "</svg>"]
    return "\n".join(lines) + "\n"


# The program


def run(binary: Binary, module: Path, is_quick: bool) -> None:
    """Simulates, and writes what it has found."""
    effort = QUICK if is_quick else FULL
    folder = TARGET if is_quick else DATA
    TARGET.mkdir(parents=True, exist_ok=True)
    with Server(binary, module) as server, Wire(server.port) as wire:
        text = written(simulate(wire, effort["fleet"], effort["picks"]))
    (folder / "hot.json").write_text(text)
    data = json.loads(text)
    (folder / "hot.svg").write_text(picture(data))
    for title, shown in tables(data).items():
        print(f"{title}\n\n{shown}\n")
    say(f"written to {folder}")
