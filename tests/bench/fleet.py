"""Real fleets: ten nginx that share a pool, beside ten nginx, HAProxy and Envoy that balance each for itself.

    scripts/bench fleet [--quick]

Ten backends of 2 to 4 slots serve requests of lognormal length, 60 ms in the mean; others wait in the queue
of their backend. The clients of ten proxies are an open loop: requests come by chance (Poisson), however
slow answers are, and each goes to one of the proxies by chance. The service time of each request stands in
the trace and travels with the request, so every fleet gets the same work at the same moments. Only one fleet
runs at a time. fleet.c has the clients and the backends, fleet_proxies.py has the proxies and their
settings.

*Time over service* is the latency less the service time of the trace: waiting, the proxy, and what a backend
is slower than the trace says. Quantiles are of all seeds together. Latencies count from the moment at which
a request had to come; those of the first second do not count, nor those before the change of a backend.

Each run's figures stay in target/bench/fleet, and are taken from there as long as the library, the proxies,
their settings and the trace are the same. A full run writes tests/data/fleet.json and fleet.svg, the tables
of README.md beside this file, and those of the top README.md. A quick one prints a short table.
"""

import hashlib
import json
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

from nginx import FILES
from server import BOUND

from . import fleet_proxies
from .compiled import compiled
from .fleet_proxies import FLEETS, OURS, Backend, Fleet, ports, running, versions
from .hot import written
from .page import framed, marks, put, say
from .report import table

DATA = Path(__file__).parents[1] / "data"
TARGET = Path(__file__).parents[2] / "target" / "bench"
KEPT = TARGET / "fleet"
SOURCE = Path(__file__).with_name("fleet.c")
SECOND, MILLI = 1_000_000, 1000  # microseconds
PROXIES = 10
SLOTS = [2, 3, 4, 2, 3, 4, 2, 3, 4, 3]
SERVICE = 60 * MILLI
WARM = 1 * SECOND
BROKEN = 4  # The backend that changes: 3 of 30 slots.
FAULT = int(2.5 * SECOND)
SEEDS = [1, 2, 3]
DIRECT = "no proxy"
Rows = list[dict[str, Any]]


# Traces


@dataclass(frozen=True)
class Request:
    """When it comes, to which proxy, and how long its service takes in a backend of full speed."""

    at: int
    proxy: int
    method: str
    service: int


@dataclass(frozen=True)
class Case:
    """What happens. A load of 1 is all slots, always busy."""

    title: str
    load: float
    sigma: float
    seconds: float = 7.0
    proxies: int = PROXIES
    # From fleet.c: the moment, and what the broken backend then does.
    changes: tuple[tuple[int, str], ...] = ()

    @property
    def counts_from(self) -> int:
        """Latencies of earlier requests do not count."""
        return self.changes[0][0] if self.changes else WARM


STEADY = [
    Case(f"{load:.0%}, σ {sigma}".replace("%", " %"), load, sigma)
    for load in (0.5, 0.8, 0.95)
    for sigma in (0.5, 1.0)
]
# 90 % of the slots remain, which a load of 60 % keeps busy by two thirds. Half of the requests must not be
# repeated.
FAILURES = [
    Case("one turns slow by 5", 0.6, 1.0, 8.0, changes=((FAULT, "slow 5"),)),
    Case("one fails fast", 0.6, 1.0, 8.0, changes=((FAULT, "fail"),)),
    Case("one dies", 0.6, 1.0, 8.0, changes=((FAULT, "die"),)),
    Case(
        "one restarts",
        0.6,
        1.0,
        seconds=9.0,
        changes=(
            (FAULT, "die"),
            (FAULT + 2 * SECOND, "live"),
            (FAULT + 2 * SECOND, "slow 3"),
            (FAULT + 4 * SECOND, "live"),
        ),
    ),
]
ONE_PROXY = Case("one proxy, 80 %, σ 1.0", 0.8, 1.0, proxies=1)
# One request at a time, without service, by one proxy.
NO_LOAD = Case("no load", 0.0, 0.0, seconds=3.0, proxies=1)
NO_LOAD_GAP = 5 * MILLI


@cache
def trace(case: Case, seed: int) -> list[Request]:
    """The requests of a case, with just the load that it names."""
    chance = random.Random(f"{case.title} {seed}")
    end = round(case.seconds * SECOND)
    if case is NO_LOAD:
        return [Request(at, 0, "GET", 0) for at in range(NO_LOAD_GAP, end, NO_LOAD_GAP)]
    methods = ["GET", "POST"] if case.changes else ["GET"]
    gap = SERVICE / (case.load * sum(SLOTS))
    at, found = 0.0, []
    while (at := at + chance.expovariate(1 / gap)) < end:
        service = chance.lognormvariate(0, case.sigma)
        found.append(Request(round(at), chance.randrange(case.proxies), chance.choice(methods), service))
    unit = case.load * sum(SLOTS) * end / sum(request.service for request in found)
    return [replace(request, service=max(1, round(request.service * unit))) for request in found]


def lines(case: Case, requests: list[Request]) -> str:
    """As fleet.c reads them."""
    told = [f"change {at} {BROKEN} {what}" for at, what in case.changes]
    told += [f"request {of.at} {of.proxy} {of.method} {of.service}" for of in requests]
    return "".join(f"{line}\n" for line in told)


# Runs


@dataclass(frozen=True)
class Answer:
    """What became of a request, in microseconds. A status of 0 is no answer."""

    status: int
    latency: int
    delay: int
    late: int


class Clients:
    """The process with the backends and the clients."""

    def __init__(self, backends: list[Backend]) -> None:
        self._process = subprocess.Popen(
            [*BOUND, compiled("fleet.c")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tell("".join(f"backend {backend.port} {backend.slots}\n" for backend in backends))

    def _tell(self, told: str) -> None:
        self._process.stdin.write(told)
        self._process.stdin.flush()

    def meet(self, proxies: list[int]) -> None:
        """The ports of the proxies."""
        self._tell("".join(f"proxy {port}\n" for port in proxies))

    def ask(self, case: Case, requests: list[Request]) -> tuple[list[Answer], int]:
        """All answers, and how many times backends said 503."""
        self._tell(lines(case, requests) + "go\n")
        answers = [Answer(*map(int, self._process.stdout.readline().split())) for _ in requests]
        return answers, int(self._process.stdout.readline().removeprefix("refused "))

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def stage(title: str, library: Path) -> Iterator[tuple[Clients, Fleet]]:
    """Backends, and that fleet before them. Without a proxy clients ask one backend that is never full."""
    slots = [1000] if title == DIRECT else SLOTS
    backends = [Backend(port, many) for port, many in zip(ports(len(slots)), slots, strict=True)]
    clients = Clients(backends)
    try:
        if title == DIRECT:
            fleet = Fleet([backends[0].port] * PROXIES, [])
            clients.meet(fleet.ports)
            yield clients, fleet
        else:
            with running(title, library, backends, PROXIES) as fleet:
                clients.meet(fleet.ports)
                yield clients, fleet
    finally:
        clients.close()


def measured(clients: Clients, fleet: Fleet, case: Case, requests: list[Request]) -> dict[str, Any]:
    """A run."""
    before = fleet.seconds()
    counted = fleet.pool.ended() if fleet.pool else {}
    answers, refused = clients.ask(case, requests)
    seconds = {name: after - before[name] for name, after in fleet.seconds().items()}
    found = {
        "answers": [[it.status, it.latency, it.delay, it.late] for it in answers],
        "refused": refused,
        "seconds": seconds,
    }
    if fleet.pool:
        ended = fleet.pool.ended()
        found["pool"] = {name: ended[name] - counted[name] for name in ended}
    return found


def place(title: str, library: Path, case: Case, seed: int) -> Path:
    """Where the figures of a run are kept: elsewhere with another library, other settings, another trace."""
    parts = [SOURCE.read_text(), Path(fleet_proxies.__file__).read_text(), str(versions())]
    parts.append(lines(case, trace(case, seed)))
    if title in OURS:
        parts += [hashlib.sha256(library.read_bytes()).hexdigest()]
        parts += [(FILES / name).read_text() for name in ("lb.lua", "nginx.conf")]
    of = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    name = re.sub(r"\W+", "-", f"{title} {case.title} {seed}")
    return KEPT / f"{name}-{of}.json"


def run(title: str, library: Path, cases: list[Case], seed: int) -> None:
    """One fleet at these cases, one after another. What is kept is not run again."""
    missing = [case for case in cases if not place(title, library, case, seed).exists()]
    if not missing:
        return
    with stage(title, library) as (clients, fleet):
        for case in missing:
            say(f"seed {seed}: {title}: {case.title}")
            found = measured(clients, fleet, case, trace(case, seed))
            file = place(title, library, case, seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".part").write_text(json.dumps(found))
            file.with_suffix(".part").rename(file)


def runs(quick: bool) -> Iterator[tuple[str, list[Case], int]]:
    """The fleets in turn, for each trace or few of them: the fleet, its cases, the seed."""
    if quick:
        for title in FLEETS:
            yield title, [short(STEADY[3])], 1
            yield title, [short(FAILURES[1])], 1
        return
    for seed in SEEDS:
        yield DIRECT, [STEADY[3], NO_LOAD], seed
        for title in FLEETS:
            yield title, [*STEADY, ONE_PROXY, NO_LOAD], seed
        # A fleet that starts knows of no failures.
        for case in FAILURES:
            for title in FLEETS:
                yield title, [case], seed


def short(case: Case) -> Case:
    """For a quick run."""
    return replace(case, seconds=4.5)


# Figures


def quantile(all: list[float], thousandth: int) -> float:
    """Of at least two."""
    return quantiles(all, n=1000, method="inclusive")[thousandth - 1]


def summed(title: str, case: Case, seeds: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The line of the figures for a fleet and a case, of the runs by seed. Times are in milliseconds."""
    over: dict[int, list[float]] = {seed: [] for seed in seeds}
    latencies, errors, delays, lates = [], {"GET": 0, "POST": 0}, [], []
    for seed, found in seeds.items():
        for request, answer in zip(trace(case, seed), map(of_answer, found["answers"]), strict=True):
            delays.append(answer.delay / MILLI)
            if answer.status != 200:
                errors[request.method] += 1
                continue
            lates.append(answer.late / MILLI)
            if request.at >= case.counts_from:
                over[seed].append((answer.latency - request.service) / MILLI)
                latencies.append(answer.latency / MILLI)
    times = {"over": [each for seed in seeds for each in over[seed]], "latency": latencies}
    row: dict[str, Any] = {"case": case.title, "fleet": title, "requests": len(delays), **errors}
    for name, all in times.items():
        row[f"{name} mean"] = mean(all)
        row |= {f"{name} p{at / 10:g}": quantile(all, at) for at in (500, 990, 999)}
    row["over p99 of seeds"] = [quantile(over[seed], 990) for seed in seeds]
    for name in "proxies", "redis":
        used = sum(found["seconds"][name] for found in seeds.values())
        row[f"{name} us"] = used * SECOND / len(delays)
    row["refused"] = sum(found["refused"] for found in seeds.values())
    if title in OURS:
        row |= {name: sum(found["pool"][name] for found in seeds.values()) for name in ("picks", "expired")}
    row |= {"delay p99": quantile(delays, 990), "late p99": quantile(lates, 990)}
    return row


def of_answer(numbers: list[int]) -> Answer:
    """As a run keeps it."""
    return Answer(*numbers)


def figures(library: Path, quick: bool) -> Rows:
    """Those of all runs that are kept."""
    found: dict[tuple[str, Case], dict[int, dict[str, Any]]] = {}
    for title, cases, seed in runs(quick):
        for case in cases:
            kept = json.loads(place(title, library, case, seed).read_text())
            found.setdefault((title, case), {})[seed] = kept
    return [summed(title, case, seeds) for (title, case), seeds in found.items()]


# What is shown


class Figures:
    """What was found, by case and fleet."""

    def __init__(self, rows: Rows) -> None:
        self._rows = {(row["case"], row["fleet"]): row for row in rows}

    def of(self, case: Case, fleet: str, what: str) -> Any:
        """One of them."""
        return self._rows[case.title, fleet][what]

    def errors(self, case: Case, fleet: str) -> int:
        """Of all methods."""
        return self.of(case, fleet, "GET") + self.of(case, fleet, "POST")

    def most(self, what: str) -> float:
        """The largest of all."""
        return max(row[what] for row in self._rows.values())

    def some(self, case: Case, fleet: str, kind: str) -> str:
        """Mean, p50, p99 and p99.9."""
        return " / ".join(
            short_of(self.of(case, fleet, f"{kind} {what}")) for what in ("mean", "p50", "p99", "p99.9")
        )


def short_of(figure: float) -> str:
    """Two digits, or all before the point."""
    return f"{figure:,.0f}" if abs(figure) >= 10 or isinstance(figure, int) else f"{figure:.1f}"


EIGHTY = STEADY[2:4]
FAILS, DIES = FAILURES[1], FAILURES[2]
LC, NGINX = FLEETS[0], FLEETS[2]
OTHERS = [title for title in FLEETS if title not in OURS]


def targets(found: Figures) -> list[list[str]]:
    """What was wanted beside the best of the others, and what is."""
    rows = []
    for case in EIGHTY:
        for what, bound in (("p99", 0.4), ("mean", 0.3)):
            best = min(found.of(case, other, f"over {what}") for other in OTHERS)
            rows.append(
                (
                    f"{what} of time over service, {case.title}",
                    bound,
                    found.of(case, LC, f"over {what}"),
                    best,
                )
            )
    for case, bound in ((FAILS, 0.1), (DIES, 0.2)):
        best = min(found.errors(case, other) for other in OTHERS)
        rows.append((f"errors, {case.title}", bound, found.errors(case, LC), best))
    return [
        [title, f"≤ {bound:g}", f"{short_of(own)} / {short_of(best)}", "✓" if own <= bound * best else "✗"]
        for title, bound, own, best in rows
    ]


def tables(data: dict[str, Rows]) -> Iterator[str]:
    """All of them, in Markdown, and what else the figures say."""
    found = Figures(data["rows"])

    def by_fleet(head: str, columns: dict[str, Any]) -> str:
        return table(
            [head, *columns], [[title, *(cell(title) for cell in columns.values())] for title in FLEETS]
        )

    def steady(head: str, kind: str) -> str:
        columns = {case.title: lambda of, case=case: found.some(case, of, kind) for case in STEADY}
        return by_fleet(f"{head}, ms: mean / p50 / p99 / p99.9", columns)

    yield steady("time over service", "over")
    yield steady("latency", "latency")
    yield by_fleet(
        "p99 of time over service, ms, of each seed",
        {
            case.title: lambda of, case=case: " / ".join(
                map(short_of, found.of(case, of, "over p99 of seeds"))
            )
            for case in STEADY
        },
    )
    yield by_fleet(
        f"errors, of {found.of(FAILS, LC, 'requests'):,} requests: GET / POST",
        {
            case.title: lambda of, case=case: f"{found.of(case, of, 'GET')} / {found.of(case, of, 'POST')}"
            for case in FAILURES
        },
    )
    yield by_fleet(
        "time over service from then on, ms: mean / p50 / p99 / p99.9",
        {case.title: lambda of, case=case: found.some(case, of, "over") for case in FAILURES},
    )
    yield by_fleet(
        "",
        {
            "proxies, µs of processor a request": lambda of: short_of(found.of(EIGHTY[1], of, "proxies us")),
            "Redis, µs": lambda of: short_of(found.of(EIGHTY[1], of, "redis us")) if of in OURS else "",
            "no load: latency, ms, p50 / p99": lambda of: (
                f"{found.of(NO_LOAD, of, 'latency p50'):.2f} / {found.of(NO_LOAD, of, 'latency p99'):.2f}"
            ),
            "one proxy, 80 %, σ 1.0: time over service": lambda of: found.some(ONE_PROXY, of, "over"),
        },
    )
    yield table(["lc beside the best of the others", "target", "is", ""], targets(found))
    own = [found.of(EIGHTY[1], DIRECT, f"over {what}") for what in ("p50", "p99")]
    yield (
        f"Without a proxy, the clients and a backend that is never full add {own[0]:.2f} ms at p50 and "
        f"{own[1]:.2f} ms at p99.\nIn the worst row the 99th percentile of the time by which requests were "
        f"sent late is {found.most('delay p99'):.2f} ms,\nand that of the time by which services ended late "
        f"is {found.most('late p99'):.2f} ms."
    )
    yield "Measured with " + ", ".join(f"{name} {of}" for name, of in data["versions"][0].items()) + "."


def summary(rows: Rows) -> str:
    """The table of the top README.md."""
    found = Figures(rows)
    head = [
        "ten proxies, 80 % load",
        "time over service, ms: mean",
        "p99",
        "errors, one fails fast",
        "one dies",
    ]
    case = EIGHTY[1]
    return table(
        head,
        [
            [
                title,
                short_of(found.of(case, title, "over mean")),
                short_of(found.of(case, title, "over p99")),
                str(found.errors(FAILS, title)),
                str(found.errors(DIES, title)),
            ]
            for title in FLEETS
        ],
    )


def limits(rows: Rows) -> str:
    """The lines of the top README.md that say where a balancer of the proxy's own is better."""
    found = Figures(rows)
    one = {title: found.of(ONE_PROXY, title, "over p99") for title in FLEETS}
    idle = {title: found.of(NO_LOAD, title, "latency p50") for title in (LC, NGINX)}
    costs = {title: found.of(EIGHTY[1], title, "proxies us") for title in (LC, NGINX)}
    redis = found.of(EIGHTY[1], LC, "redis us")
    return (
        "- There is only one gateway: its own balancer knows as much. With one nginx the p99 of time over "
        f"service is {short_of(one[LC])} ms by a pool, and {short_of(one[NGINX])} ms by `least_conn`.\n"
        "- There is no load, or no time for a round trip: a request without service takes "
        f"{idle[LC]:.2f} ms at p50 with a pool, and {idle[NGINX]:.2f} ms without. An nginx then uses\n"
        f"  {costs[LC]:.0f} µs of processor time for a request instead of {costs[NGINX]:.0f}, and Redis "
        f"{redis:.0f}.\n"
    )


WIDTH, LABELS, BAR, LINE = 760, 170, 480, 13
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .note { font-size: 12px; fill: #59636e }
  .small { font-size: 11px } .head { font-weight: 600 } .page { fill: #ffffff; stroke: #d1d9e0 }
  .ours { fill: #1a7f64 } .other { fill: #9aa4af }
"""
OPACITY = [0.45, 0.7, 1]


def picture(rows: Rows) -> str:
    """Time over service by load, and errors. Its page is white also on dark pages."""
    found = Figures(rows)
    panels = [
        (
            "p99 of time over service in ms, at 50, 80 and 95 % load, σ 1.0",
            {title: [found.of(case, title, "over p99") for case in STEADY[1::2]] for title in FLEETS},
        ),
        (
            f"Errors of {found.of(FAILS, LC, 'requests'):,} requests, 60 % load: one fails fast; one dies",
            {title: [found.errors(case, title) for case in (FAILS, DIES)] for title in FLEETS},
        ),
    ]
    drawn, said, y = [], [], 10
    for heading, fleets in panels:
        longest = max(figure for all in fleets.values() for figure in all) or 1
        y += 24
        drawn.append(f'<text class="head" x="20" y="{y}">{escape(heading)}</text>')
        y += 14
        for title, all in fleets.items():
            kind = "ours" if title in OURS else "other"
            middle = y + LINE * len(all) / 2 + 4
            drawn.append(f'<text x="{LABELS}" y="{middle:.1f}" text-anchor="end">{escape(title)}</text>')
            for figure, opacity in zip(all, OPACITY[-len(all) :], strict=True):
                width = max(1, BAR * figure / longest)
                drawn += [
                    f'<rect class="{kind}" opacity="{opacity}" x="{LABELS + 10}" y="{y}" width="{width:.1f}" '
                    f'height="{LINE - 1}"/>',
                    f'<text class="small" x="{LABELS + 16 + width:.1f}" y="{y + LINE - 3}">'
                    f"{short_of(figure)}</text>",
                ]
                y += LINE
            y += 7
        shown_all = "; ".join(f"{title} {', '.join(map(short_of, all))}" for title, all in fleets.items())
        said.append(f"{heading}: {shown_all}")
        y += 6
    note = "Ten real proxies of each kind, the same work for each fleet. Repeat it: scripts/bench fleet"
    return framed(". ".join(said), STYLE, drawn, WIDTH, y, note)


# The program

NAME = "scripts/bench fleet"
MARKS = marks(NAME)
LIMITS = marks(f"{NAME}, the limits")
TOP = Path(__file__).parents[2] / "README.md"


def quick_table(rows: Rows) -> str:
    """A line for each run."""
    whats = ["over mean", "over p99", "GET", "POST", "proxies us", "redis us", "delay p99", "late p99"]
    return table(
        ["", *whats],
        [[f"{row['case']}: {row['fleet']}", *(short_of(row[what]) for what in whats)] for row in rows],
    )


def main(library: Path, is_quick: bool) -> None:
    """Runs what is missing, and writes what it has found."""
    for title, cases, seed in runs(is_quick):
        run(title, library, cases, seed)
    rows = figures(library, is_quick)
    if is_quick:
        print(quick_table(rows))
        return
    (DATA / "fleet.json").write_text(written({"versions": [versions()], "rows": rows}))
    print(show())


def show() -> str:
    """Draws and writes what tests/data/fleet.json says; the tables."""
    data = json.loads((DATA / "fleet.json").read_text())
    (DATA / "fleet.svg").write_text(picture(data["rows"]))
    shown = "".join(f"\n{part}\n" for part in tables(data)) + "\n"
    put(MARKS, shown)
    put(MARKS, f"{summary(data['rows'])}\n", TOP)
    put(LIMITS, limits(data["rows"]), TOP)
    return shown
