"""The budgets of a provider's keys, and tenants of unlike appetite: one pool beside counters in windows.

    scripts/bench budgets [--quick]

Twenty keys of a provider (provider.py in tests/server) have limits each: requests a minute, tokens a minute,
and requests at once. Three tenants want more than that: one sends small requests, one larger ones, both by
chance; the third floods: it has 600 requests waiting or running at any time. How long an answer becomes
nobody knows before its end (lognormal, cut).

Every way to share the keys gets the same requests. The module is the real one, on a server whose clock the
simulation makes: requests wait in the server (BLOCK, FOR), are picked with COSTS, and report what they used.
The others are simulated by their published rules (limiters.py); whom they refuse comes again.

A full run writes tests/data/budgets.json and budgets.svg, which come out alike on every machine, and prints
the tables of README.md beside this file. A quick one computes short traces, and prints what it has found.
"""

import heapq
import json
import random
import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from statistics import quantiles
from typing import Any, Protocol

from provider import MINUTE, Limits, Producing, Provider, Refusal, Reserving
from server import Server
from servers import installed
from wire import Refused, Wire, dict_of, pack, words

from . import limiters
from .hot import written
from .limiters import Later, Limiter, Request
from .page import THIN, bars, framed, marks, put, say
from .report import table

DATA = Path(__file__).parents[1] / "data"
LIMITS = Limits(requests=400, tokens=100_000, at_once=40)
GATEWAYS = 3
FIRST_TOKEN, EACH_TOKEN = 500, 20  # milliseconds
TOLD = 1_000  # A stream tells what it has produced so often.
JITTER = 500  # Clients that come again come so much later, at most.
STEP = 10  # milliseconds; the steps of a busy pool's clock
TIMER = 100  # milliseconds; so often the server itself lets the time go on for those that wait
SPAN = 600_000  # milliseconds of a lease: longer than any request
Rows = list[dict[str, Any]]


# What is asked for


@dataclass(frozen=True)
class Tenant:
    """Requests of a lognormal number of tokens with these means, cut; the answer is told by its cut.

    It sends by chance, and then wants that share of all tokens; or it has so many requests open.
    """

    name: str
    prompt: tuple[int, int]
    answer: tuple[int, int]
    share: float = 0
    open: int = 0

    def tokens(self, chance: random.Random, about: tuple[int, int]) -> int:
        """Of a prompt or an answer."""
        mean, most = about
        return min(most, max(1, round(mean * chance.lognormvariate(-0.5, 1))))

    def job(self, chance: random.Random, estimated: Callable[[int, int, int], int]) -> "Job":
        """A request of it."""
        prompt, answer = self.tokens(chance, self.prompt), self.tokens(chance, self.answer)
        return Job(self.name, prompt, answer, estimated(prompt, answer, self.answer[1]))


@dataclass(eq=False)
class Job:
    """A request; its answer has so many tokens, and it may use as many as the estimate says."""

    tenant: str
    prompt: int
    answer: int
    estimate: int
    gateway: int = 0
    came: int = 0

    @property
    def used(self) -> int:
        """All its tokens."""
        return self.prompt + self.answer

    @property
    def seen(self) -> Request:
        """What a gateway knows of it."""
        return Request(self.gateway, self.prompt, self.estimate)


TENANTS = [
    Tenant("chat", (250, 500), (150, 500), share=0.15),
    Tenant("agents", (600, 1200), (250, 800), share=0.3),
    Tenant("batch", (400, 1000), (300, 1000), open=600),
]
LARGEST = 2_000
BURST = 3 * LARGEST // 2


def bounded(prompt: int, answer: int, most: int) -> int:
    """An estimate that no answer exceeds."""
    return prompt + most


def halved(prompt: int, answer: int, most: int) -> int:
    """Half of what it will be."""
    return (prompt + answer) // 2


@dataclass(frozen=True)
class Scenario:
    """A provider, the estimates of what requests will use, and for how many keys and minutes."""

    title: str
    provider: Callable[[Limits], Provider]
    estimated: Callable[[int, int, int], int]
    keys: int = 20
    minutes: float = 10


SCENARIOS = [
    Scenario("estimates are bounds", Reserving, bounded),
    Scenario("estimates are half of it", Reserving, halved),
    Scenario("counted when produced", Producing, bounded),
]


def short(scenario: Scenario) -> Scenario:
    """The same with fewer keys, for little more than a minute."""
    return replace(scenario, keys=3, minutes=1.5)


def trace(scenario: Scenario, seed: int = 1) -> tuple[list[Job], dict[str, list[Job]]]:
    """The requests that come by chance (Poisson), and for each tenant that floods those that it will send."""
    chance = random.Random(seed)
    budget = LIMITS.tokens * scenario.keys / MINUTE
    come, follow = [], {}
    for tenant in TENANTS:
        jobs = [tenant.job(chance, scenario.estimated) for _ in range(4_000)]
        if tenant.open:
            most = int(budget * MINUTE * scenario.minutes * 2 / sum(tenant.prompt[:1] + tenant.answer[:1]))
            follow[tenant.name] = [tenant.job(chance, scenario.estimated) for _ in range(most)]
            continue
        gap = sum(job.used for job in jobs) / len(jobs) / (tenant.share * budget)
        now = 0.0
        while (now := now + chance.expovariate(1 / gap)) < scenario.minutes * MINUTE:
            job = tenant.job(chance, scenario.estimated)
            job.came = round(now)
            come.append(job)
    for job in [*come, *(job for jobs in follow.values() for job in jobs)]:
        job.gateway = chance.randrange(GATEWAYS)
    return sorted(come, key=lambda job: job.came), follow


# What shares the keys


@dataclass(frozen=True)
class Granted:
    """A request may be sent with that key. The ticket is what the fleet wants to be told at its end."""

    key: str
    ticket: Any


Answer = tuple[Job, Granted | int]  # An integer: it is refused, and comes again after so many milliseconds.


class Fleet(Protocol):
    """Gateways that share the keys."""

    def ask(self, now: int, job: Job) -> None:
        """A request comes."""

    def answers(self, now: int) -> list[Answer]:
        """What became of requests that came or waited."""

    def has_waiting(self) -> bool:
        """Whether requests wait for the time to go on."""

    def done(self, now: int, job: Job, granted: Granted) -> None:
        """It has ended."""

    def refused(self, now: int, job: Job, granted: Granted, refusal: Refusal) -> int:
        """The provider has refused it. In so many milliseconds it is asked for again."""


class Counters:
    """Gateways that refuse what they have no key for."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._answers: list[Answer] = []
        self._chance = random.Random(1)

    def ask(self, now: int, job: Job) -> None:
        """It is answered at once."""
        match self._limiter.pick(now, job.seen):
            case Later(millis):
                self._answers.append((job, self._later(millis)))
            case key:
                self._answers.append((job, Granted(str(key), key)))

    def answers(self, now: int) -> list[Answer]:
        """All that came."""
        answers, self._answers = self._answers, []
        return answers

    def has_waiting(self) -> bool:
        """Nobody waits here."""
        return False

    def done(self, now: int, job: Job, granted: Granted) -> None:
        """It is counted."""
        self._limiter.done(now, granted.ticket, job.seen, job.used)

    def refused(self, now: int, job: Job, granted: Granted, refusal: Refusal) -> int:
        """LiteLLM's router tries another key. With the others the client is told Retry-After."""
        self._limiter.refused(now, granted.ticket, job.seen, refusal)
        if isinstance(self._limiter, limiters.LiteLLM):
            return 0
        return self._later(1000 * refusal.retry_after)

    def _later(self, millis: int) -> int:
        return millis + self._chance.randrange(JITTER)


def budget(limit: int, burst: int) -> int:
    """What a bucket may get in a minute, so that no minute has more than the limit: a full bucket may be used
    at once, and what was picked a step ago may come to the provider now.
    """
    return (limit - burst) * MINUTE // (MINUTE + STEP)


class Pool:
    """Gateways that share a pool on a server with the module. A ticket is a lease.

    Each request that waits has a connection of its own. The server is asked how many wait; all others have
    been answered.
    """

    def __init__(self, port: int, keys: int, order: str, burst: int = BURST) -> None:
        self._port = port
        self._open = ExitStack()
        self._control = self._wire()
        self._clock = 0
        self._idle: list[Wire] = []
        self._waiting: dict[int, tuple[Wire, Job]] = {}
        self._poll = self._open.enter_context(select.epoll())
        self._ask("FLUSHALL")
        self._ask("LB.ADD pool " + " ".join(f"{key} 1" for key in range(keys)))
        requests = LIMITS.requests // 20
        self._ask(
            f"LB.LIMIT pool EACH MAX {LIMITS.at_once} "
            f"RATE {budget(LIMITS.requests, requests)} {MINUTE} BURST {requests} "
            f"COST tokens {budget(LIMITS.tokens, burst)} {MINUTE} BURST {burst}"
        )
        self._ask(f"LB.QUEUE pool ORDER {order}")

    def close(self) -> None:
        """Ends all connections."""
        self._open.close()

    def _wire(self) -> Wire:
        return self._open.enter_context(Wire(self._port))

    def _ask(self, command: str) -> Any:
        answer = self._control.ask(command)
        if isinstance(answer, Refused):
            raise RuntimeError(f"{command}: {answer}")
        return answer

    def _tick(self, now: int) -> None:
        if STEP + now - self._clock >= STEP:
            self._clock = STEP + now // STEP * STEP
            self._ask(f"LB.TICK pool {self._clock}")

    def ask(self, now: int, job: Job) -> None:
        """It waits, until answers() finds that it has been answered."""
        self._tick(now)
        wire = self._idle.pop() if self._idle else self._wire()
        costs = f"COSTS 1 tokens {job.estimate}"
        pick = f"LB.PICK pool lc LEASE {SPAN} OWNER g{job.gateway} {costs} BLOCK 0 FOR {job.tenant}"
        wire.send(pack(words(pick)))
        self._waiting[wire.fileno()] = wire, job
        self._poll.register(wire.fileno(), select.EPOLLIN)

    def answers(self, now: int) -> list[Answer]:
        """All that do not wait any more, in the order in which they were granted."""
        self._tick(now)
        granted = []
        while self._waiting and dict_of(self._ask("LB.INFO pool"))[b"waiting"] != len(self._waiting):
            for handle, _ in self._poll.poll(0):
                wire, job = self._waiting.pop(handle)
                self._poll.unregister(handle)
                key, lease = wire.read()
                self._idle.append(wire)
                granted.append((int(lease.rpartition(b"-")[2]), job, Granted(key.decode(), lease)))
        return [(job, answer) for _, job, answer in sorted(granted, key=lambda entry: entry[0])]

    def has_waiting(self) -> bool:
        """Whether any wait in the server."""
        return bool(self._waiting)

    def _end(self, now: int, granted: Granted, told: str) -> None:
        self._tick(now)
        if self._ask(f"LB.DONE pool {granted.ticket.decode()} {told}") != 1:
            raise RuntimeError(f"{granted} was not open")

    def done(self, now: int, job: Job, granted: Granted) -> None:
        """It says what it has used."""
        self._end(now, granted, f"OK COSTS 1 tokens {job.used}")

    def refused(self, now: int, job: Job, granted: Granted, refusal: Refusal) -> int:
        """It has used nothing; the key cools, and another one is asked for at once."""
        self._end(now, granted, f"COOL {1000 * refusal.retry_after} COSTS 1 tokens 0")
        return 0


# The simulation


class Run:
    """A provider, a fleet and its tenants, until the time is over."""

    def __init__(self, scenario: Scenario, fleet: Fleet, seed: int) -> None:
        self._scenario = scenario
        self._fleet = fleet
        self._provider = scenario.provider(LIMITS)
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._open: dict[Job, None] = {}
        self._waits: dict[str, list[int]] = {tenant.name: [] for tenant in TENANTS}
        self._looks_at = -1
        self.end = int(scenario.minutes * MINUTE)
        come, follow = trace(scenario, seed)
        for job in come:
            self._at(job.came, self._come, job)
        self._follow = {name: deque(jobs) for name, jobs in follow.items()}
        for tenant in TENANTS:
            for _ in range(tenant.open * scenario.keys // SCENARIOS[0].keys):
                self._at(0, self._next_of, tenant.name)

    def _at(self, now: int, what: Callable[..., None], *about: Any) -> None:
        heapq.heappush(self._events, (now, self._number, what, about))
        self._number += 1

    def _next_of(self, now: int, name: str) -> None:
        job = self._follow[name].popleft()
        job.came = now
        self._come(now, job)

    def _come(self, now: int, job: Job) -> None:
        self._open[job] = None
        self._fleet.ask(now, job)
        self._hear(now)

    def _ask(self, now: int, job: Job) -> None:
        self._fleet.ask(now, job)
        self._hear(now)

    def _hear(self, now: int) -> None:
        """What the fleet answers; while somebody waits, the time goes on."""
        for job, answer in self._fleet.answers(now):
            if isinstance(answer, Granted):
                self._send(now, job, answer)
            else:
                self._at(now + answer, self._ask, job)
        if self._fleet.has_waiting() and self._looks_at <= now:
            self._looks_at = now + TIMER
            self._at(self._looks_at, self._hear)

    def _send(self, now: int, job: Job, granted: Granted) -> None:
        refusal = self._provider.begin(now, granted.key, job.prompt, job.estimate)
        if refusal:
            self._at(now + self._fleet.refused(now, job, granted, refusal), self._ask, job)
            return
        del self._open[job]
        self._waits[job.tenant].append(now - job.came)
        begins, ends = now + FIRST_TOKEN, now + FIRST_TOKEN + job.answer * EACH_TOKEN
        for at in range(begins + TOLD, ends, TOLD):
            self._at(at, self._produce, granted.key, TOLD // EACH_TOKEN)
        last = (job.answer - 1) % (TOLD // EACH_TOKEN) + 1
        self._at(ends, self._end, job, granted, last)

    def _produce(self, now: int, key: str, tokens: int) -> None:
        self._provider.produce(now, key, tokens)

    def _end(self, now: int, job: Job, granted: Granted, last: int) -> None:
        self._provider.produce(now, granted.key, last)
        self._provider.end(now, granted.key, job.estimate, job.used)
        self._fleet.done(now, job, granted)
        if job.tenant in self._follow:
            self._at(now, self._next_of, job.tenant)
        self._hear(now)

    def found(self) -> dict[str, Any]:
        """What became of it all."""
        while self._events and self._events[0][0] < self.end:
            now, _, what, about = heapq.heappop(self._events)
            what(now, *about)
        for job in self._open:
            self._waits[job.tenant].append(self.end - job.came)
        most = LIMITS.tokens * self._scenario.minutes
        used = [self._provider.used(str(key)) / most for key in range(self._scenario.keys)]
        found = {
            "used": 100 * sum(used) / len(used),
            "used of a key": 100 * min(used),
            "sent": self._provider.came,
            **{f"429, {limit}": count for limit, count in self._provider.refused.items()},
        }
        for name, waits in self._waits.items():
            hundredths = quantiles(waits, n=100, method="inclusive")
            found |= {f"{name} p50": hundredths[49] / 1000, f"{name} p99": hundredths[98] / 1000}
        return found


# All ways

OURS = {"redis-lb, fair": "fair", "redis-lb, fifo": "fifo"}
BURSTS = [LARGEST * percent // 100 for percent in (100, 110, 125, 150, 200, 300)]
OTHERS: dict[str, type[Limiter]] = {
    "counters by hand": limiters.Reserved,
    "LiteLLM": limiters.LiteLLM,
    "Kong, fixed windows": limiters.KongFixed,
    "Kong, sliding windows": limiters.KongSliding,
    "Higress": limiters.Higress,
    "Envoy AI Gateway": limiters.EnvoyAIGateway,
}


def of_module(port: int, scenario: Scenario, seed: int = 1) -> Rows:
    """What becomes of the requests with the module."""
    found = []
    for way, order in OURS.items():
        with closing(Pool(port, scenario.keys, order)) as fleet:
            found.append(row(scenario, way, Run(scenario, fleet, seed).found()))
    return found


def of_others(scenario: Scenario, seed: int = 1) -> Rows:
    """What becomes of them with the others."""
    found = []
    for way, limiter in OTHERS.items():
        fleet = Counters(limiter(scenario.keys, LIMITS, GATEWAYS))
        found.append(row(scenario, way, Run(scenario, fleet, seed).found()))
    return found


def of_bursts(port: int, scenario: Scenario, seed: int = 1) -> Rows:
    """What becomes of them with buckets of other sizes."""
    found = []
    for burst in BURSTS:
        with closing(Pool(port, scenario.keys, "fair", burst)) as fleet:
            found.append(row(scenario, f"{burst / LARGEST:g} ×", Run(scenario, fleet, seed).found()))
    return found


def row(scenario: Scenario, way: str, found: dict[str, Any]) -> dict[str, Any]:
    """A line of the figures."""
    rounded = {name: round(of, 3) if isinstance(of, float) else of for name, of in found.items()}
    return {"scenario": scenario.title, "way": way, **rounded}


def figures(port: int, scenarios: list[Scenario]) -> Rows:
    """Those of all ways."""
    found = []
    for scenario in scenarios:
        say(f"{scenario.title}, {scenario.keys} keys, {scenario.minutes:g} minutes")
        found += of_module(port, scenario) + of_others(scenario)
    return found


# What is shown


def refused(row: dict[str, Any]) -> int:
    """The answers 429 of the provider."""
    return sum(count for name, count in row.items() if name.startswith("429"))


def share_refused(row: dict[str, Any]) -> float:
    """In percent of what was sent to it."""
    return 100 * refused(row) / row["sent"]


def tables(rows: Rows) -> list[str]:
    """One for each scenario, in Markdown, and one of the targets."""
    found = []
    for scenario in SCENARIOS:
        head = [f"{scenario.title}; s", "used", "of a key ≥", "refused", "of all", *WAITS]
        lines = [
            [
                row["way"],
                f"{row['used']:.1f} %",
                f"{row['used of a key']:.1f} %",
                f"{refused(row):,}",
                f"{share_refused(row):.2f} %",
                *(f"{row[f'{tenant.name} p50']:.1f} / {row[f'{tenant.name} p99']:.1f}" for tenant in TENANTS),
            ]
            for row in rows
            if row["scenario"] == scenario.title
        ]
        found.append(table(head, lines))
    targets = [
        [title, bound, f"{figure:,.2f} {'✓' if is_reached else '✗'}"]
        for title, bound, figure, is_reached in reached(rows)
    ]
    return [*found, table(["", "target", "is"], targets)]


def bursts(rows: Rows) -> str:
    """What the size of a bucket changes, in Markdown."""
    head = ["BURST, the largest estimate = 1", "used", "of a key ≥", "refused"]
    lines = [
        [row["way"], f"{row['used']:.1f} %", f"{row['used of a key']:.1f} %", str(refused(row))]
        for row in rows
    ]
    return table(head, lines)


WAITS = [f"{tenant.name}, p50 / p99" for tenant in TENANTS]


def reached(rows: Rows) -> Iterator[tuple[str, str, float, bool]]:
    """Each target: of what, the bound, the figure, and whether it is reached."""
    for row in rows:
        if row["way"] not in OURS:
            continue
        about = f"{row['way']}, {row['scenario']}"
        if row["scenario"] == SCENARIOS[0].title:
            yield f"refused: {about}", "0", refused(row), refused(row) == 0
        else:
            yield f"refused: {about}", "≤ 1 %", share_refused(row), share_refused(row) <= 1
        if row["scenario"] != SCENARIOS[2].title:
            used = row["used of a key"]
            yield f"used of each key: {about}", "≥ 95 %", used, used >= 95


WIDTH, LABELS, BAR = 760, 180, 430
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .note { font-size: 12px; fill: #59636e }
  .small { font-size: 10px } .head { font-weight: 600 } .page { fill: #ffffff; stroke: #d1d9e0 }
  .ours { fill: #1a7f64 } .other { fill: #9aa4af }
"""
OPACITY = [1, 0.7, 0.45]
Panel = tuple[str, float, Callable[[dict[str, Any]], list[float]], str]
PANELS: list[Panel] = [
    (
        "Requests that the provider refuses with 429, in percent of those that are sent to it",
        100,
        lambda row: [share_refused(row)],
        "{:.1f} %",
    ),
    (
        "The 99th percentile of the waits of "
        + ", ".join(tenant.name for tenant in TENANTS)
        + ", in seconds",
        100,
        lambda row: [row[f"{tenant.name} p99"] for tenant in TENANTS],
        "{:.1f}",
    ),
]


def picture(rows: Rows) -> str:
    """Refusals and waits where estimates are bounds. Its page is white also on dark pages."""
    lines, said, y = [], [], 10
    for heading, longest, figures_of, form in PANELS:
        y += 24
        lines.append(f'<text class="head" x="20" y="{y}">{escape(heading)}</text>')
        y += 14
        told = []
        for row in rows:
            if row["scenario"] != SCENARIOS[0].title:
                continue
            way, found = row["way"], figures_of(row)
            kind = "ours" if way in OURS else "other"
            drawn = [*zip(found, OPACITY, map(form.format, found), strict=False)]
            lines += bars(way, kind, drawn, longest, (LABELS, BAR), y)
            y += THIN * len(drawn)
            y += 6
            told.append(f"{way} {' / '.join(map(form.format, found))}")
        said.append(f"{heading}: {'; '.join(told)}.")
        y += 8
    note = "20 keys, 10 minutes, estimates that no answer exceeds. Repeat it: scripts/bench budgets"
    return framed(" ".join(said), STYLE, lines, WIDTH, y, note)


# The program

MARKS = marks("scripts/bench budgets")


def shown(data: dict[str, Rows]) -> str:
    """What README.md shows between the marks."""
    return "".join(f"\n{part}\n" for part in [*tables(data["whole"]), bursts(data["bursts"])]) + "\n"


def main(library: Path, is_quick: bool) -> None:
    """Computes, and writes what it has found."""
    with Server(installed(), library, ["clock", "manual"]) as server:
        data = {"short": figures(server.port, [*map(short, SCENARIOS)])}
        if is_quick:
            print(json.dumps(data["short"], indent=1))
            return
        data["whole"] = figures(server.port, SCENARIOS)
        say("buckets of other sizes")
        data["bursts"] = of_bursts(server.port, replace(SCENARIOS[0], keys=5))
    (DATA / "budgets.json").write_text(written(data))
    (DATA / "budgets.svg").write_text(picture(data["whole"]))
    put(MARKS, shown(data))
    print(shown(data))
