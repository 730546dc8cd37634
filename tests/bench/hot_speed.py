"""How many requests a second one core of a server balances, and two with shards.

    scripts/bench hot-speed [--quick]

A request is `LB.PICK key lc LEASE ms` and `LB.DONE key id` of that lease, sent by gateways.c. The pool has
1,000 backends, and 50,000 other leases are open, as in a large fleet. The measure is the processor time of
the server's main thread (/proc, schedstat) for a request: the clock would measure the clients, too, which
share the processors with it. A second divided by that time is what one core can balance. To connect is not
counted.

Where there are two servers, each has a core of its own, a shard of the pool and half of the connections, and
the clients share both cores. A full run takes about two minutes. It writes tests/data/hot_speed.json and the
tables of README.md beside this file.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from server import Server
from servers import Binary
from wire import Wire

from .cases import Case
from .compiled import compiled
from .load import Rate, apart, busy, throughput
from .members import ask, mixed, pool
from .page import marks, put, say
from .report import table
from .requests import Terms, Way, counter, made, module_way, send, words
from .values import number

DATA = Path(__file__).parents[1] / "data"
MARKS = marks("scripts/bench hot-speed")
# Rounds, and the seconds of each measurement in one.
FULL = {"rounds": 5, "seconds": 1.0}
QUICK = {"rounds": 1, "seconds": 0.1}
TERMS = Terms("hot", (1,) * 1000, ms=600_000)
IN_FLIGHT = 50_000
PREFETCH = 8
Figures = dict[str, Any]


def least_connections(count: int = 1) -> Way:
    """Leases by lc, so many with each pick."""
    lc = module_way("LB.PICK + LB.DONE", "lc", set())

    def make(wire: Wire, terms: Terms) -> None:
        lc.make(wire, terms)
        for _ in range(IN_FLIGHT // 10_000):
            ask(wire, "LB.PICK", terms.key, "lc", "COUNT", 10_000, "LEASE", 3_600_000)

    if count == 1:
        return replace(lc, make=make, begin=words("LB.PICK {key} lc LEASE {ms}"))
    ends = " , ".join(f"LB.DONE {{key}} %{2 * (i + 1)}" for i in range(count))
    begin = words(f"LB.PICK {{key}} lc COUNT {count} LEASE {{ms}}")
    return replace(lc, make=make, begin=begin, end=words(ends))


@dataclass(frozen=True)
class Load:
    """Requests of so many connections. `open`: how many each has open, as gateways.c counts them."""

    title: str
    way: Way
    connections: int
    open: int = 0
    requests: int = 1  # That one pick begins.
    servers: int = 1


LC, INCR = least_connections(), counter()
ALONE = "1,000 connections, a command at a time"
TOGETHER = "1,000 connections, the end with the next pick"
PIPELINED = "4 connections, 32 requests at once"
TWO = "2 shards on 2 servers"
LOADS = [
    Load(ALONE, LC, 1000),
    Load("64 connections, a command at a time", LC, 64),
    Load(TOGETHER, LC, 1000, open=1),
    Load(f"1,000 connections, prefetch {PREFETCH}", least_connections(PREFETCH), 1000, requests=PREFETCH),
    Load("8 connections, 8 requests at once", LC, 8, open=8),
    Load(PIPELINED, LC, 4, open=32),
    Load(f"{TWO}, {ALONE}", LC, 1000, servers=2),
    Load(f"{TWO}, {PIPELINED}", LC, 4, open=32, servers=2),
    Load(f"{INCR.title}, {ALONE}", INCR, 1000),
    Load(f"{INCR.title}, {PIPELINED}", INCR, 4, open=32),
]


def asked(command: str, picks: int, pipeline: int) -> Case:
    """Picks without leases."""
    how = f"{pipeline} commands at once" if pipeline > 1 else "a command at a time"
    keys = {TERMS.key: lambda wire: pool(wire, TERMS.key, 100, mixed)}
    return Case(f"{command}, {how}", [[command]], keys, picks=picks, pipeline=pipeline)


PICKS = [
    asked("LB.PICK hot" + (f" COUNT {n}" if n > 1 else ""), n, pipeline)
    for pipeline in (1, 64)
    for n in (1, 10, 100)
]


# What is measured


class Servers:
    """Servers of which each has a core of its own, as far as there are cores."""

    def __init__(self, servers: list[Server], wires: list[Wire]) -> None:
        compiled("gateways.c")  # It is built here, and not by two threads at once.
        self._servers = servers
        self._wires = wires
        self._processes = [number(wire, "server", "process_id") for wire in wires]

    def make(self, way: Way) -> None:
        """Makes what it needs, in each server."""
        for wire in self._wires:
            made(wire, [("", way, TERMS)])

    def picks(self, case: Case, seconds: float) -> Rate:
        """A case of picks without leases, on the first server."""
        ask(self._wires[0], "FLUSHALL", "SYNC")
        case.keys[TERMS.key](self._wires[0])
        with apart(self._processes[0]):
            return throughput(self._servers[0].port, self._processes[0], case, seconds)

    def requests(self, load: Load, seconds: float) -> list[Rate]:
        """What each of the servers has done, side by side."""
        if load.servers == 1:
            with apart(self._processes[0]):
                return [self._of(0, load, seconds)]
        cores = sorted(os.sched_getaffinity(0))
        for process, core in zip(self._processes, cores, strict=False):
            os.sched_setaffinity(process, {core})
        with ThreadPoolExecutor(load.servers) as threads:
            return [*threads.map(lambda i: self._of(i, load, seconds), range(load.servers))]

    def _of(self, i: int, load: Load, seconds: float) -> Rate:
        connecting = self._sent(i, load, requests=0)
        rate = self._sent(i, load, seconds=seconds)
        return Rate(rate.turns - connecting.turns, rate.wall, rate.cpu - connecting.cpu)

    def _sent(self, i: int, load: Load, **until: float) -> Rate:
        """One run of gateways.c, which first makes its connections."""
        connections, case = load.connections // load.servers, (load.title, load.way, TERMS)
        cpu = busy(self._processes[i])
        done, wall, *_ = send(self._servers[i].port, connections, load.open, case, **until)
        ask(self._wires[i], "PING")  # The kernel brings its figure up to date when a thread sleeps.
        return Rate(int(done) * load.requests, wall, busy(self._processes[i]) - cpu)

    def check(self, way: Way) -> None:
        """Makes sure that every request has ended, and nothing else."""
        for wire in self._wires:
            if (left := way.in_flight(wire, TERMS)) != (0 if way is INCR else IN_FLIGHT):
                raise RuntimeError(f"{way.title}: {left:,} are in flight after all have ended")


def row(title: str, rounds: list[list[Rate]]) -> Figures:
    """The medians of the rounds. What the cores of several servers balance is added up."""

    def of(figure: Callable[[list[Rate]], float]) -> float:
        return median(map(figure, rounds))

    return {
        "load": title,
        "µs": round(of(lambda rates: 1e6 * sum(r.cpu for r in rates) / sum(r.turns for r in rates)), 3),
        "balanced": round(of(lambda rates: sum(r.turns / r.cpu for r in rates))),
        "by the clock": round(of(lambda rates: sum(r.turns / r.wall for r in rates))),
        "busy": round(of(lambda rates: sum(r.cpu / r.wall for r in rates) / len(rates)), 3),
    }


def measured(
    servers: Servers, loads: list[Load], cases: list[Case], rounds: int, seconds: float
) -> dict[str, list[Figures]]:
    """Each load and each case in each round."""
    requests: dict[str, list[list[Rate]]] = {load.title: [] for load in loads}
    picks: dict[str, list[list[Rate]]] = {case.title: [] for case in cases}
    for i in range(rounds):
        say(f"measuring, round {i + 1} of {rounds}")
        for load in loads:
            servers.make(load.way)
            requests[load.title].append(servers.requests(load, seconds))
            servers.check(load.way)
        for case in cases:
            rate = servers.picks(case, seconds / 2)
            picks[case.title].append([replace(rate, turns=rate.turns * case.picks)])
    return {
        "requests": [row(title, rates) for title, rates in requests.items()],
        "picks": [row(title, rates) for title, rates in picks.items()],
    }


# What is shown


def tables(data: Figures) -> list[str]:
    """In Markdown."""
    return [
        table(
            [what, "µs of the server", "a second, by that", "by the clock", "server busy"],
            [
                [
                    of["load"],
                    f"{of['µs']:.2f}",
                    f"{of['balanced']:,}",
                    f"{of['by the clock']:,}",
                    f"{of['busy']:.0%}",
                ]
                for of in data[rows]
            ],
        )
        for what, rows in (("requests: LB.PICK … lc LEASE and LB.DONE", "requests"), ("picks alone", "picks"))
    ]


def said(rows: list[Figures]) -> str:
    """What they mean."""
    balanced = {of["load"]: of["balanced"] for of in rows}
    alone, together, pipelined = (
        f"{float(f'{balanced[load]:.2g}'):,.0f}" for load in (ALONE, TOGETHER, PIPELINED)
    )
    more = {
        (what, load): f"{balanced[f'{what}, {load}'] / balanced[load]:.1f}"
        for what in (INCR.title, TWO)
        for load in (ALONE, PIPELINED)
    }
    return f"""\
One core balances about {alone} requests a second where each of 1,000 gateways sends a command at a time,
{together} where each sends the end of a request with its next pick, and {pipelined} in pipelines.
`INCR` and `DECR` make {more[INCR.title, ALONE]} times as many as the first, and
{more[INCR.title, PIPELINED]} times as many as the last. Two shards on two servers balance
{more[TWO, ALONE]} and {more[TWO, PIPELINED]} times as many as one."""


def shown(data: Figures) -> str:
    """What README.md shows between the marks."""
    note = (
        f"{data['server']}, {data['machine']}; medians of {data['rounds']} rounds. "
        f"Meanwhile the load of the machine was {data['load']:.0f}; the bench alone makes about 2."
    )
    return "".join(f"\n{part}\n" for part in [*tables(data), note, said(data["requests"])]) + "\n"


def run(binary: Binary, module: Path, machine: str, is_quick: bool) -> None:
    """Measures, and writes what it has found; a quick run only prints it."""
    effort = QUICK if is_quick else FULL
    with ExitStack() as stack:
        started = []
        for _ in range(2):
            started.append(Server(binary, module, maxclients=2000))
            stack.callback(started[-1].close)
            started[-1].start()
        servers = Servers(started, [stack.enter_context(Wire(server.port)) for server in started])
        found = measured(servers, LOADS, PICKS, effort["rounds"], effort["seconds"])
    _, load, _ = os.getloadavg()
    data = {"server": binary.name, "machine": machine, "load": load, "rounds": effort["rounds"], **found}
    if not is_quick:
        (DATA / "hot_speed.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        put(MARKS, shown(data))
    print(shown(data))
