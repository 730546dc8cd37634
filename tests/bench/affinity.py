"""Which backend gets an item: the map of `hash` beside those of others, and the caches of conversations.

    scripts/bench affinity [--quick]

A program in Rust does the work (the folder affinity beside this file). It has the library's own core, and the
published forms of the others, each with its source. It finds:
- maps: how far shares are from the weights, and what a change moves, by the lengths of arcs; for `hash` by
  items;
- instructions of a lookup and of a change, counted by valgrind's callgrind;
- conversations with a language model, on replicas whose caches are simulated.

A full run writes tests/data/affinity.json and affinity.svg, and the tables of README.md beside this file.
They come out alike on every machine, but for the instructions. A quick one computes short forms, and prints
what it has found. `cargo test` computes the short forms too.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from html import escape
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

import callgrind

from .hot import written
from .page import THIN, bars, framed, marks, put, say
from .report import table

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
# How many backends; and how many items show the shares of `hash`, and what a change moves.
SIZES = {10: (6_000_000, 2_000_000), 1_000: (1_000_000, 3_000_000), 100_000: (400_000, 10_000)}
EQUAL, MIXED, SKEWED = "equal", "1 to 100", "1, one of 65,535"
MAPS = ["hash", "nginx", "HAProxy", "Envoy RING_HASH", "Envoy MAGLEV"]
COUNTED = [(of, EQUAL) for of in MAPS] + [("hash", MIXED), ("hash", SKEWED)]
LOOKUPS = {10: 1_000, 1_000: 1_000, 100_000: 100}
CHANGES = {"removed": "one of the heaviest goes", "added": "one comes", "lighter": "100 becomes 70"}
Row = dict[str, Any]
Rows = list[Row]


# What is computed


def program() -> str:
    """The program, built."""
    say("building")
    command = ["cargo", "bench", "--locked", "--bench", "affinity", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    messages = map(json.loads, built.stdout.splitlines())
    paths = [m["executable"] for m in messages if m.get("target", {}).get("name") == "affinity"]
    return paths[-1]


def found(affinity: str, *words: Any) -> Rows:
    """The rows that it prints."""
    command = [affinity, *map(str, words)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def instructions(affinity: str, of: str, backends: int, weights: str) -> Row:
    """Those of a lookup, and of taking one backend out."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=counts"]
        command += ["--dump-before=*affinity*mark*", affinity, "count", of, str(backends), weights]
        subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)
        # Before a mark each: built, looked up, nothing, changed.
        lookups, change = (
            int(re.search(r"^totals: (\d+)", (Path(folder) / f"counts.{i}").read_text(), re.M)[1])
            for i in (2, 4)
        )
    row = {"map": of, "backends": backends, "weights": weights}
    # The index by names has a seed of its own in each process, so the last digits of a change are luck.
    return row | {"lookup": round(lookups / LOOKUPS[backends]), "change": round(change, -2)}


# What is shown


class Figures:
    """Rows by map, number of backends and weights."""

    def __init__(self, rows: Rows) -> None:
        self._rows = {(row["map"], row["backends"], row["weights"]): row for row in rows}

    def of(self, *key: Any) -> Row:
        """One of them."""
        return self._rows[key]

    def table(self, head: str, weights: list[str], cell: Any) -> str:
        """A line for each map, a column for each kind of weights and number of backends."""
        columns = [(backends, kind) for kind in weights for backends in SIZES]
        titles = [f"{backends:,}, {kind}" for backends, kind in columns]
        return table(
            [head, *titles], [[of, *(cell(self.of(of, *column)) for column in columns)] for of in MAPS]
        )


def visible(row: Row) -> float:
    """The error of all shares, in percent, that two standard deviations of chance leave unseen."""
    return 100 * sqrt(2 * deviation(row) * row["backends"] / row["items"])


def deviation(row: Row) -> float:
    """The standard deviation of χ² by degree of freedom, where only chance is at work."""
    return sqrt(2 / (row["backends"] - 1))


def error(row: Row) -> str:
    """Of a share, in percent of it."""
    if "items" in row:
        return f"none; {visible(row):.1g} would show"
    if "mean" not in row:
        return f"not built: {size(row['bytes'])}"
    none = f"; {row['without']:,} get nothing" if row["without"] else ""
    return f"{percent(row['mean'])} / {percent(row['most'])}{none}"


def percent(figure: float) -> str:
    """In two places."""
    return f"{figure:,.0f}" if figure >= 10 else f"{figure:.2g}"


def moved(change: str, row: Row) -> str:
    """Beside the least that can move."""
    if change not in row:
        return "not built"
    least, needless = row[change], f"({row[f'{change}, needless']:.2g})"
    count = row.get(f"{change}, items")
    if count is None:
        return f"{least:.3g} {needless}"
    return f"{least:.2f} ± {least / sqrt(count):.2f} {needless}" if count > 99 else f"too few {needless}"


def size(count: int) -> str:
    """Of memory."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def costs(data: dict[str, Rows]) -> str:
    """Instructions and memory."""
    counted, maps = Figures(data["instructions"]), Figures(data["maps"])
    columns = [f"{what}, {backends:,}" for what in ("lookup", "change", "memory") for backends in SIZES]
    lines = []
    for of, weights in COUNTED:
        title = of if weights == EQUAL else f"{of}, weights {weights}"
        rows = [counted.of(of, backends, weights) for backends in SIZES]
        memory = [maps.of(of, backends, EQUAL)["bytes"] for backends in SIZES]
        cells = [f"{row[what]:,}" for what in ("lookup", "change") for row in rows]
        lines.append([title, *cells, *map(size, memory)])
    return table(["instructions; bytes", *columns], lines)


def loads(rows: Rows) -> list[float]:
    """Those that were tried."""
    return sorted({row["load"] for row in rows})


def ways(rows: Rows) -> list[str]:
    """In their order."""
    return [*dict.fromkeys(row["way"] for row in rows)]


def middle(rows: Rows, load: float, way: str, what: str) -> float:
    """The median of the seeds."""
    return median(row[what] for row in rows if (row["load"], row["way"]) == (load, way))


def conversations(rows: Rows, load: float) -> str:
    """A line for each way."""
    head = [f"load {load:g}; s", "hits", "first token, p50 / p99", "answer, p50 / p99", "most / mean"]
    lines = []
    for way in ways(rows):
        of = {what: middle(rows, load, way, what) for what in rows[0] if what not in ("way", "load")}
        lines.append(
            [
                way,
                f"{of['hits']:.1f} %",
                f"{of['first token p50']:.2f} / {of['first token p99']:.1f}",
                f"{of['answer p50']:.1f} / {of['answer p99']:.1f}",
                f"{of['most']:.2f}",
            ]
        )
    return table(head, lines)


def reached(data: dict[str, Rows]) -> Iterator[tuple[str, str, str, bool]]:
    """Each target: of what, the bound, the figure, and whether it is reached."""
    counted = Figures(data["instructions"])
    ours = [row for row in data["maps"] if row["map"] == "hash"]
    for row in ours:
        title = f"χ²/df of the shares of hash: {row['backends']:,} backends, {row['weights']}"
        far = abs(row["chi-squared"] - 1)
        bound = 3 * deviation(row)
        yield title, f"1 ± {bound:.3f}", f"{row['chi-squared']:.3f}", far <= bound
    needless = sum(row.get(f"{change}, needless", 0) for row in ours for change in CHANGES)
    yield "items of hash that move and need not", "0", f"{needless:g}", needless == 0
    for weights in (EQUAL, MIXED):
        few, many = (counted.of("hash", backends, weights)["lookup"] for backends in (10, 1_000))
        each = (many - few) / 990
        yield (
            f"instructions of hash for each backend, weights {weights}",
            "≤ 8",
            f"{each:.2f}",
            each <= 8,
        )


def tables(data: dict[str, Rows]) -> list[str]:
    """All of them, in Markdown."""
    maps = Figures(data["maps"])
    answers = data["conversations"]
    return [
        maps.table("error of a share in %, mean / largest", [EQUAL, MIXED], error),
        *(
            maps.table(
                f"{title}: moved, the least = 1 (of it needless)",
                [MIXED] if change == "lighter" else [EQUAL, MIXED],
                lambda row, change=change: moved(change, row),
            )
            for change, title in CHANGES.items()
        ),
        costs(data),
        *(conversations(answers, load) for load in loads(answers)),
        table(
            ["", "target", "is"],
            [[title, bound, f"{is_} {'✓' if ok else '✗'}"] for title, bound, is_, ok in reached(data)],
        ),
    ]


WIDTH, LABELS, BAR = 760, 200, 430
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .note { font-size: 12px; fill: #59636e }
  .small { font-size: 10px } .head { font-weight: 600 } .page { fill: #ffffff; stroke: #d1d9e0 }
  .ours { fill: #1a7f64 } .other { fill: #9aa4af }
"""
OPACITY = [0.45, 0.7, 1]
PANELS = [
    ("Tokens of earlier turns that the replica has in its cache, in percent", "hits", 100, "{:.0f} %"),
    ("The 99th percentile of the time to the first token, in seconds", "first token p99", 15, "{:.1f}"),
]


def picture(rows: Rows) -> str:
    """Hits and times, a bar for each load. Its page is white also on dark pages."""
    lines, said, y = [], [], 10
    for heading, what, longest, form in PANELS:
        y += 24
        lines.append(f'<text class="head" x="20" y="{y}">{escape(heading)}</text>')
        y += 14
        told = []
        for way in ways(rows):
            figures = [middle(rows, load, way, what) for load in loads(rows)]
            kind = "other" if way.startswith("Envoy") else "ours"
            drawn = [*zip(figures, OPACITY, map(form.format, figures), strict=True)]
            lines += bars(way, kind, drawn, longest, (LABELS, BAR), y)
            y += THIN * len(drawn)
            y += 6
            told.append(f"{way} {' / '.join(map(form.format, figures))}")
        said.append(f"{heading}: {'; '.join(told)}.")
        y += 8
    note = f"Each group: loads of {', '.join(f'{load:g}' for load in loads(rows))}. "
    return framed(" ".join(said), STYLE, lines, WIDTH, y, f"{note}Repeat it: scripts/bench affinity")


# The program

MARKS = marks("scripts/bench affinity")


def shown(data: dict[str, Rows]) -> str:
    """What README.md shows between the marks."""
    return "".join(f"\n{part}\n" for part in tables(data)) + "\n"


def main(is_quick: bool) -> None:
    """Computes, and writes what it has found."""
    affinity = program()
    [short] = found(affinity, "short")
    if is_quick:
        print(json.dumps(short, indent=1))
        return
    if why := callgrind.missing():
        raise SystemExit(why)
    data = {f"short {part}": rows for part, rows in short.items()}
    say("conversations")
    data["conversations"] = found(affinity, "conversations")
    data["instructions"] = []
    for of, weights in COUNTED:
        for backends in SIZES:
            say(f"instructions: {of}, {backends:,} backends, weights {weights}")
            data["instructions"].append(instructions(affinity, of, backends, weights))
    data["maps"] = []
    for backends, items in SIZES.items():
        say(f"maps of {backends:,} backends")
        data["maps"] += found(affinity, "maps", backends, *items)
    (DATA / "affinity.json").write_text(written(data))
    (DATA / "affinity.svg").write_text(picture(data["conversations"]))
    put(MARKS, shown(data))
    print(shown(data))
