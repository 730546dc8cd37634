"""The tables, in Markdown."""

import re
from collections.abc import Iterator
from typing import Any

from .picture import fastest
from .slowest import TIMER, of_commands

Figures = dict[str, Any]
PLAIN = "no persistence"
SIZES = ["3", "100", "1,000", "10,000", "100,000"]
WAYS = r"(LB.PICK key(?: wrr| COUNT 100)?|EVALSHA \w+|FCALL \w+|INCR \+ SMEMBERS), ([\d,]+)"
YES = {True: "yes", False: "no"}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])], *rows]
    return "\n".join(f"| {' | '.join(aligned(line, widths))} |" for line in lines)


def aligned(line: list[str], widths: list[int]) -> list[str]:
    """The fields of a line, each as wide as its column."""
    padded = [field.rjust(width) for field, width in zip(line, widths, strict=True)]
    return [line[0].ljust(widths[0]), *padded[1:]]


COLUMNS = [
    ("picks/s", "picks a second", ",.0f"),
    ("× INCR", "throughput ratio", ",.3f"),
    ("instructions/pick", "instructions", ",.0f"),
    ("× INCR", "instructions ratio", ",.3f"),
    ("p50 µs", "p50", ",.1f"),
    ("p99 µs", "p99", ",.1f"),
]


def commands(title: str, cases: dict[str, Figures]) -> str:
    """What commands cost."""
    return with_columns(title, cases, COLUMNS)


def with_columns(title: str, cases: dict[str, Figures], columns: list[tuple[str, str, str]]) -> str:
    """The figures of cases, as far as they were measured."""
    columns = [column for column in columns if any(column[1] in of for of in cases.values())]
    rows = [
        [name, *(format(of[field], form) if field in of else "" for _, field, form in columns)]
        for name, of in cases.items()
    ]
    return table([title, *(head for head, _, _ in columns)], rows)


def beside(title: str, ours: tuple[str, Figures], theirs: tuple[str, Figures]) -> str:
    """Figures of two kinds of value beside each other."""
    head = [title, ours[0], theirs[0], "ratio"]
    rows = [
        [name, f"{value:,.1f}", f"{theirs[1][name]:,.1f}", f"{value / theirs[1][name]:.2f}"]
        for name, value in ours[1].items()
    ]
    return table(head, rows)


REQUESTS = [
    ("requests/s", "requests a second", ",.0f"),
    ("time, INCR + DECR = 1", "time ratio", ",.2f"),
    ("instructions/request", "instructions", ",.0f"),
    ("INCR + DECR = 1", "instructions ratio", ",.2f"),
]


def of_requests(server: str, figures: Figures) -> Iterator[str]:
    """What requests cost, end to end as well, and what each way keeps."""
    cases = figures["cases"]
    yield with_columns(f"{server}, a request from its beginning to its end", cases, REQUESTS)
    slow = {title: of["latencies"] for title, of in cases.items() if of.get("latencies")}
    if slow:
        places = [*next(iter(slow.values()))]
        rows = [
            [title, *(f"{of[place]['p50']:,.0f} / {of[place]['p99']:,.0f}" for place in places)]
            for title, of in slow.items()
        ]
        head = f"{server}: µs of a request, p50 / p99, by connections"
        yield table([head, *places], rows)
    if promises := figures.get("promises"):
        rows = [[title, *(YES[kept] for kept in of.values())] for title, of in promises.items()]
        yield table(["what each way keeps", *next(iter(promises.values()))], rows)


def of_single_commands(data: Figures) -> str:
    """The slowest executions, on each server that was asked."""
    servers = {server: of["slowest"] for server, of in data["servers"].items() if "slowest" in of}
    (size,) = {of["size"] for of in servers.values()}
    found: dict[tuple[str, str], dict[str, tuple[float, str]]] = {}
    for server, of in servers.items():
        for command, ms, where, why in of_commands(of["situations"]):
            found.setdefault((command, why), {})[server] = ms, where
    rows = [
        [command, *(f"{on[s][0]:.2f}" if s in on else "" for s in servers), max(on.values())[1], why]
        for (command, why), on in found.items()
    ]
    rows.sort(key=lambda row: row[0] == TIMER)
    return table(
        [f"slowest single execution, {size}", *(f"{s}, ms" for s in servers), "where", "why it may"], rows
    )


def of_situations(data: Figures) -> str:
    """The slowest execution in each situation, on each server that was asked."""
    servers = {
        server: of["slowest"]["situations"] for server, of in data["servers"].items() if "slowest" in of
    }
    rows = []
    for title in next(iter(servers.values())):
        cells = []
        for situations in servers.values():
            noted = [(ms, command) for command, ms in situations[title]["ms"].items() if command != TIMER]
            ms, command = max(noted, default=(0, "none"))
            cells.append(f"{command} {ms:.2f}")
        rows.append([title, *cells])
    return table(["the slowest command of a situation, ms", *servers], rows)


def single(title: str, figures: Figures) -> str:
    """Figures of one kind."""
    return table(
        [title, ""],
        [[name, f"{value:,.2f}" if value < 10 else f"{value:,.0f}"] for name, value in figures.items()],
    )


def against_targets(data: Figures) -> str:
    """The targets and what became of them on each server."""
    servers = {server: of["targets"] for server, of in data["servers"].items()}
    titles = dict.fromkeys(title for of in servers.values() for title in of)
    rows = []
    for title in titles:
        cells = [of.get(title) for of in servers.values()]
        bounds = " / ".join(dict.fromkeys(cell["target"] for cell in cells if cell))
        rows.append([title, bounds, *(verdict(cell) if cell else "" for cell in cells)])
    return table(["", "target", *servers], rows)


def verdict(cell: Figures) -> str:
    """A figure, and whether it is as it should be."""
    number = cell["is"]
    return f"{number:,.{0 if number >= 100 else 1 if number >= 10 else 3}f} {'✓' if cell['reached'] else '✗'}"


def over_sizes(figures: Figures) -> str:
    """Thousands of picks a second over sizes, and what each way promises."""
    cases = figures["suites"][PLAIN]
    found: dict[str, dict[str, str]] = {}
    for title, of in cases.items():
        if (match := re.fullmatch(WAYS, title)) and "picks a second" in of:
            found.setdefault(match[1], {})[match[2]] = f"{of['picks a second'] / 1000:,.1f}"
    promises = figures.get("promises", {})
    head = ["1,000 picks a second", *SIZES, *next(iter(promises.values()), {})]
    rows = []
    for title, by_size in found.items():
        kept = promises.get(title.rpartition(" ")[2], {})
        rows.append([title, *(by_size.get(size, "") for size in SIZES)])
        rows[-1] += [YES[kept[promise]] if kept else "" for promise in head[6:]]
    return table(head, rows)


def summary(data: Figures) -> str:
    """What README.md beside this file shows."""
    server, figures = next(iter(data["servers"].items()))
    parts = [
        *of_requests(server, figures["requests"]),
        of_single_commands(data),
        commands(f"{server}, a pick alone", dict(fastest(figures["suites"][PLAIN]))),
        against_targets(data),
    ]
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def tables(data: Figures) -> Iterator[str]:
    """All of them."""
    loads = "; ".join(f"{part}: {load}" for part, load in sorted(data["load"].items()))
    yield (
        f"{data['machine']}; median of {data['rounds']} interleaved rounds, pipelines of 64; "
        f"picks a second of the processor time of the server's main thread. Load of the machine: {loads}."
    )
    for server, figures in data["servers"].items():
        for suite, cases in figures["suites"].items():
            if any(cases.values()):
                yield commands(f"{server}, {suite}", cases)
        if "requests" in figures:
            yield from of_requests(server, figures["requests"])
        if "values" in figures:
            yield beside(f"{server}: a value", *figures["values"].items())
        for title, of in figures.get("scale", {}).items():
            yield beside(f"{server}: {title}", ("pool", of["pool"]), ("sorted set", of["zset"]))
            for kind in "pool", "zset":
                yield single(f"{server}: {title}, {kind}s at random", of[f"{kind}, spread"])
    if any("slowest" in of for of in data["servers"].values()):
        yield of_single_commands(data)
        yield of_situations(data)
    first = next(iter(data["servers"].values()))
    if any("picks a second" in of for of in first["suites"].get(PLAIN, {}).values()):
        yield over_sizes(first)
    if any(figures["targets"] for figures in data["servers"].values()):
        yield against_targets(data)


def report(data: Figures) -> str:
    """All of them."""
    return "\n\n".join(tables(data)) + "\n"
