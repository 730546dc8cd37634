"""Measures the module and what one can do without it.

    scripts/bench [--quick] [--only PATTERN] [part …]
    scripts/bench hot|hot-speed|hot-waits|queues|health|budgets|affinity|fleet [--quick]   files of their own

Parts: instructions (needs valgrind), throughput, latency, requests (from a pick with a lease to its end),
values (memory, RDB, DUMP), slowest (single commands), promises (what the rivals keep) and scale (a million
pools). Without any: all of them, or with --quick the first six. --only runs the cases whose titles the
pattern finds, and the first of them.

Servers: the installed one; redis-8.2.3 for instructions; valkey-9.1.2 for the slowest commands. Or those of
$REDIS_LB_SERVERS, all but the first one for both.

Results: bench.json, .md and .svg in target/bench, or quick.* with --quick or --only. Those of whole parts
keep what earlier runs found of other parts with the same library: instructions can be counted on a busy
machine, but times must be taken on an idle one. Once every part was run, tests/data/bench.* and the tables
of README.md beside this file are written.
"""

import argparse
import hashlib
import json
import os
import platform
import re
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import callgrind
from script import Parser, module
from server import Server
from servers import Binary, chosen, fetch, installed
from wire import Wire

from . import affinity, budgets, fleet, health, hot, hot_speed, hot_waits, queues, requests
from .cases import Case, plain, with_aof
from .floor import floor
from .load import Rate, apart, latencies, throughput
from .page import marks, put, say
from .picture import picture
from .report import report, summary
from .rivals import promises
from .scale import scale
from .slowest import slowest
from .targets import reached
from .values import number, values

TARGET = Path(__file__).parents[2] / "target" / "bench"
DATA = Path(__file__).parents[1] / "data"
MARKS = marks("scripts/bench")
PARTS = ["instructions", "throughput", "latency", "requests", "values", "slowest", "promises", "scale"]
IN_QUICK = PARTS[:6]
ALONE = ["hot", "hot-speed", "hot-waits", "queues", "health", "budgets", "affinity", "fleet"]
OTHERS = {"redis-8.2.3": {"instructions", "requests"}, "valkey-9.1.2": {"slowest"}}
SUITES = {"no persistence": {}, "AOF": {"appendonly": "yes", "appendfsync": "no"}}
Figures = dict[str, Any]
Costs = dict[str, list[float]]
# Rounds of throughput and latency, and the seconds and the turns of each; servers to count instructions in,
# and what share of the commands that a case names.
FULL = {"rounds": 5, "seconds": 0.4, "turns": 1500, "starts": 3, "share": 1.0}
QUICK = {"rounds": 3, "seconds": 0.1, "turns": 300, "starts": 2, "share": 0.25}


class Keys:
    """Makes the keys that cases need, each once."""

    def __init__(self, server: Server) -> None:
        self._port = server.port
        self._made: set[str] = set()

    def make(self, case: Case) -> None:
        """Makes those of this case."""
        with Wire(self._port) as wire:
            for key in case.keys.keys() - self._made:
                case.keys[key](wire)
                self._made.add(key)


def instructions(server: callgrind.Callgrind, cases: list[Case], share: float, costs: Costs) -> None:
    """Counts the instructions of every case."""
    keys = Keys(server)
    for i, case in enumerate(cases, 1):
        say(f"{server.binary.name}: instructions, {i} of {len(cases)}: {case.title}")
        keys.make(case)
        commands = [command for turn in case.turns for command in turn]
        cost = server.cost(commands, max(int(case.counted * share), len(commands)))
        costs.setdefault(case.title, []).append(cost * len(case.turns[0]) / case.picks)


def by_size(cases: list[Case]) -> list[list[Case]]:
    """The cases that are timed in one server, the first one in each: what a rival's Function remembers of a
    large pool makes all Functions of that server slow.
    """
    groups: dict[str, list[Case]] = {}
    for case in cases[1:]:
        size = re.search(r", ([\d,]+)(?: different weights)?$", case.title)
        groups.setdefault(size[1] if size else "3", [cases[0]]).append(case)
    return [*groups.values()]


def timed(server: Server, cases: list[Case], parts: set[str], effort: Figures, results: Figures) -> None:
    """Throughput and latency of every case, in interleaved rounds. The others are compared to the first."""
    keys = Keys(server)
    for case in cases:
        keys.make(case)
    with Wire(server.port) as wire:
        process = number(wire, "server", "process_id")
    rates: dict[str, list[Rate]] = {case.title: [] for case in cases}
    waits: dict[str, list[float]] = {case.title: [] for case in cases}
    rounds = effort["rounds"]
    for i in range(rounds):
        say(f"{server.binary.name}: {len(cases)} cases to {cases[-1].title}, round {i + 1} of {rounds}")
        for case in cases:
            if "throughput" in parts:
                rates[case.title].append(throughput(server.port, process, case, effort["seconds"]))
            if "latency" in parts:
                with apart(process):
                    waits[case.title] += latencies(server.port, case, effort["turns"], effort["seconds"])
    base = [per_second(cases[0], rate) for rate in rates[cases[0].title]]
    for case in cases:
        result = results[case.title]
        if "rounds" in result or "p50" in result:
            continue
        if base:
            result["rounds"] = [per_second(case, rate) for rate in rates[case.title]]
            result["picks a second"] = median(result["rounds"])
            result["throughput ratio"] = median(a / b for a, b in zip(result["rounds"], base, strict=True))
            result["busy"] = median(rate.cpu / rate.wall for rate in rates[case.title])
        if waits[case.title]:
            hundredths = quantiles(waits[case.title], n=100)
            result["p50"], result["p99"] = hundredths[49], hundredths[98]


def per_second(case: Case, rate: Rate) -> float:
    """Picks in a second of a processor."""
    return rate.turns * case.picks / rate.cpu


def of_requests(
    binary: Binary, module: Path, options: argparse.Namespace, effort: Figures, is_first: bool
) -> Figures:
    """What requests cost, and what each way to do them keeps."""
    chosen = [
        case
        for i, case in enumerate(requests.cases(is_first, options.quick))
        if i == 0 or re.search(options.only, case[0])
    ]
    found: Figures = {title: {} for title, _, _ in chosen}
    answer: Figures = {"cases": found}
    loaded = {"loadmodule": floor(), **requests.SETTINGS}
    if is_first:
        with Server(binary, module, **loaded) as server:
            say(f"{binary.name}: requests, what each way keeps")
            answer["promises"] = requests.promises(server.port)
            for title, of in requests.timed(server, chosen, effort, say).items():
                found[title] |= of
    costs: Costs = {}
    for start in range(0 if callgrind.missing() else 1 if options.quick else 2):
        with callgrind.Callgrind(binary, module, **loaded) as server:
            some = [case for case in chosen if start == 0 or not case[1].is_rival]
            say(f"{binary.name}: requests, instructions of {len(some)} cases")
            for title, cost in requests.instructions(server, some, effort["share"]).items():
                costs.setdefault(title, []).append(cost)
    for title, all in costs.items():
        found[title] |= {"instructions": min(all), "instructions ratio": min(all) / min(costs[chosen[0][0]])}
    return answer


def measure(
    binary: Binary, module: Path, options: argparse.Namespace, parts: set[str], is_first: bool
) -> Figures:
    """Measures on one server."""
    data: Figures = {"suites": {}}
    quick = options.quick
    effort = QUICK if quick else FULL
    for suite, settings in SUITES.items() if parts & {"instructions", "throughput", "latency"} else ():
        cases = [
            case
            for i, case in enumerate(with_aof() if settings else plain(quick, is_first))
            if i == 0 or re.search(options.only, case.title)
        ]
        results = data["suites"][suite] = {case.title: {} for case in cases}
        if "instructions" in parts:
            costs: Costs = {}
            for start in range(effort["starts"]):
                with callgrind.Callgrind(binary, module, loadmodule=floor(), **settings) as server:
                    some = [case for case in cases if case.counted and case.starts > start]
                    instructions(server, some, effort["share"], costs)
            base = min(costs[cases[0].title])
            for title, all in costs.items():
                results[title] |= {"instructions": min(all), "instructions ratio": min(all) / base}
        if is_first and parts & {"throughput", "latency"}:
            for group in by_size(cases):
                with Server(binary, module, loadmodule=floor(), **settings) as server:
                    timed(server, group, parts, effort, results)
    if "requests" in parts:
        data["requests"] = of_requests(binary, module, options, effort, is_first)
    if "slowest" in parts:
        data["slowest"] = slowest(binary, module, quick, say)
    if is_first and "values" in parts:
        say(f"{binary.name}: values")
        with Server(binary, module) as server:
            data["values"] = values(server, effort["rounds"])
    if is_first and "promises" in parts:
        say(f"{binary.name}: promises of the rivals")
        data["promises"] = promises(binary, module)
    if is_first and "scale" in parts:
        for keys, members in ((100_000, 3), (100, 1000)) if quick else ((1_000_000, 3), (1000, 1000)):
            title = f"{keys:,} keys of {members:,}"
            say(f"{binary.name}: {title}")
            data.setdefault("scale", {})[title] = scale(binary, module, floor(), keys, members, quick)
    data["targets"] = reached(binary.name, data)
    return data


def joined(old: Figures, new: Figures) -> Figures:
    """Both, and of what both have the new."""
    both = {**old, **new}
    for name in old.keys() & new.keys():
        if isinstance(old[name], dict) and isinstance(new[name], dict):
            both[name] = joined(old[name], new[name])
    return both


def with_earlier(data: Figures) -> Figures:
    """With the parts that earlier runs measured in full of the same library."""
    earlier = TARGET / "bench.json"
    old = json.loads(earlier.read_text()) if earlier.exists() else {}
    if any(old.get(field) != data[field] for field in ("library", "machine", "rounds")):
        return data
    return joined(old, data)


def processor() -> str:
    """What the machine says it is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} processors"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    # What they mean is told by the script itself, without Python.
    parser = Parser(prog="scripts/bench", add_help=False)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if unknown := set(options.parts) - {*PARTS, *ALONE}:
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    try:
        re.compile(options.only)
    except re.error as error:
        parser.error(f"--only {options.only} is not a regular expression: {error}")
    options.parts = set(options.parts or (IN_QUICK if options.quick else PARTS))
    if "instructions" in options.parts and (why := callgrind.missing()):
        say(f"no instructions: {why}")
        options.parts.remove("instructions")
    return options


def main() -> None:
    """Measures, and writes what it has found."""
    options = arguments()
    TARGET.mkdir(parents=True, exist_ok=True)
    library = module()
    binaries = chosen() if os.environ.get("REDIS_LB_SERVERS") else [installed(), *map(fetch, OTHERS)]
    if "hot" in options.parts:
        hot.run(binaries[0], library, options.quick)
    if "hot-speed" in options.parts:
        hot_speed.run(binaries[0], library, processor(), options.quick)
    if "hot-waits" in options.parts:
        hot_waits.main(options.quick)
    if "queues" in options.parts:
        queues.main(options.quick)
    if "health" in options.parts:
        health.main(library, options.quick)
    if "budgets" in options.parts:
        budgets.main(library, options.quick)
    if "affinity" in options.parts:
        affinity.main(options.quick)
    if "fleet" in options.parts:
        fleet.main(library, options.quick)
    if not options.parts & {*PARTS}:
        return
    rounds = (QUICK if options.quick else FULL)["rounds"]
    before = os.getloadavg()[0]
    servers = {}
    for binary in binaries:
        is_first = binary is binaries[0]
        parts = (
            options.parts
            if is_first
            else options.parts & OTHERS.get(binary.name, set().union(*OTHERS.values()))
        )
        if parts:
            servers[binary.name] = measure(binary, library, options, parts, is_first)
    load = f"{before:.1f} before and {os.getloadavg()[0]:.1f} after"
    data = {
        "machine": processor(),
        "library": hashlib.sha256(library.read_bytes()).hexdigest(),
        "rounds": rounds,
        "load": dict.fromkeys(options.parts & {*PARTS}, load),
        "servers": servers,
    }
    are_whole = not options.quick and not options.only
    if are_whole:
        data = with_earlier(data)
        for name, of in data["servers"].items():
            of["targets"] = reached(name, of)
    are_all = are_whole and data["load"].keys() == {*PARTS}
    if are_all:
        put(MARKS, summary(data))
    files = [TARGET / ("bench" if are_whole else "quick")]
    if are_all:
        files.append(DATA / "bench")
    for file in files:
        file.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
        file.with_suffix(".md").write_text(report(data))
        if drawn := picture(data):
            file.with_suffix(".svg").write_text(drawn)
    print(report(data))
    say(f"written to {TARGET}")


main()
