"""What a thousand gateways lose that do not ask one pool for each request, in time over service.

    scripts/bench hot-waits [--quick]

hot.rs computes it; its heading says how. This file runs it, on all processors, and shows what it found. A
full run writes tests/data/hot_waits.json and .svg, and the tables of README.md beside this file. A quick one
computes the short scenario alone, and prints it.
"""

import json
import subprocess
from collections.abc import Callable
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any

from .hot import Rows, different, written
from .page import THIN, bars, framed, marks, put
from .report import table

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
MARKS = marks("scripts/bench hot-waits")
FIGURES = "mean", "p99"
# What the tables call the scenarios of hot.rs.
SCENARIOS = {
    "web": "1,600 backends of 5 slots, 60 ms a request",
    "LLM": "1,000 backends of 50 slots, 1 s a request",
}


def computed(is_quick: bool) -> dict[str, Rows]:
    """The figures of hot.rs: short, and whole."""
    command = ["cargo", "bench", "--locked", "--bench", "hot", "--"]
    done = subprocess.run(
        [*command, "--quick"] if is_quick else command, cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def of(rows: Rows, figure: str, **where: Any) -> list[float]:
    """A figure of the rows for which that holds, by seed."""
    return [row[figure] for row in rows if where.items() <= row.items()]


def shown_ms(figure: float) -> str:
    """Milliseconds, with two digits or all of them before the point."""
    return f"{figure:.2f}" if figure < 1 else f"{figure:.1f}" if figure < 10 else f"{figure:,.0f}"


def tables(rows: Rows) -> list[str]:
    """One for each scenario, in Markdown: the means over the seeds."""
    found = []
    for scenario, title in SCENARIOS.items():
        some = [row for row in rows if row["scenario"] == scenario]
        loads = different(some, "load")
        lines = [
            [
                way,
                *(
                    " / ".join(shown_ms(mean(of(some, figure, way=way, load=load))) for figure in FIGURES)
                    for load in loads
                ),
            ]
            for way in different(some, "way")
        ]
        found.append(
            table(
                [f"ms over service, {title}", *(f"{load:.0%}, {' / '.join(FIGURES)}" for load in loads)],
                lines,
            )
        )
    return found


def unsteady(rows: Rows, is_of: Callable[[str], bool]) -> float:
    """How far the mean of any trace is from that of all, as a part of it, where that is above 1 ms."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if is_of(row["way"]):
            groups.setdefault((row["scenario"], row["load"], row["way"]), []).append(row["mean"])
    return max(
        abs(value / mean(values) - 1) for values in groups.values() if mean(values) > 1 for value in values
    )


WIDTH, LABELS, BAR, LONGEST = 780, 290, 390, 400
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .note { font-size: 12px; fill: #59636e }
  .small { font-size: 10px } .head { font-weight: 600 } .page { fill: #ffffff; stroke: #d1d9e0 }
  .pick { fill: #1a7f64 } .ahead { fill: #2f6fb5 } .alone { fill: #9aa4af }
  .cut { stroke: #ffffff; stroke-width: 3 }
"""
OPACITY = [0.45, 0.7, 1]


def kind(way: str) -> str:
    """Its colour."""
    return "ahead" if "prefetch" in way else "alone" if "alone" in way or "queue" in way else "pick"


def has_counts(way: str) -> bool:
    """Whether it goes by the leases of the fleet."""
    return way.startswith("lc")


def picture(rows: Rows) -> str:
    """The 99th percentile of each way, for the three loads. Its page is white also on dark pages."""
    lines, said, y = [], [], 10
    for scenario, title in SCENARIOS.items():
        some = [row for row in rows if row["scenario"] == scenario]
        heading = f"The 99th percentile of time over service, in ms: {title}"
        y += 24
        lines.append(f'<text class="head" x="20" y="{y}">{escape(heading)}</text>')
        y += 14
        told = []
        for way in different(some, "way"):
            found = [mean(of(some, "p99", way=way, load=load)) for load in different(some, "load")]
            drawn = [*zip(found, OPACITY, map(shown_ms, found), strict=True)]
            lines += bars(way, kind(way), drawn, LONGEST, (LABELS, BAR), y)
            y += THIN * len(drawn)
            y += 6
            told.append(f"{way} {' / '.join(map(shown_ms, found))}")
        said.append(f"{heading}: {'; '.join(told)}.")
        y += 8
    note = "Each group: 50, 80 and 95 % load. 1,000 gateways. Repeat it: scripts/bench hot-waits"
    return framed(" ".join(said), STYLE, lines, WIDTH, y, note)


def shown(rows: Rows) -> str:
    """What README.md shows between the marks."""
    seeds = len(different(rows, "seed"))
    counting, others = unsteady(rows, has_counts), unsteady(rows, lambda way: not has_counts(way))
    note = (
        f"Means over {seeds} traces. Where they are above 1 ms, the mean of one trace is within "
        f"{counting:.0%} of them by `lc`, and within {others:.0%} by the others."
    )
    return "".join(f"\n{part}\n" for part in [*tables(rows), note]) + "\n"


def main(is_quick: bool) -> None:
    """Computes, and writes what it has found."""
    data = computed(is_quick)
    if is_quick:
        print(json.dumps(data["short"], indent=1))
        return
    (DATA / "hot_waits.json").write_text(written(data))
    (DATA / "hot_waits.svg").write_text(picture(data["whole"]))
    put(MARKS, shown(data["whole"]))
    print(shown(data["whole"]))
