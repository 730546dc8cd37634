"""The picture of the costs: picks a second beside INCR."""

import re
from collections.abc import Iterator
from html import escape
from typing import Any

# What the picture says, and the cases that it speaks of: of several it shows the fastest.
BARS = [
    ("INCR", r"INCR"),
    ("LB.PICK, 3 backends", r"LB\.PICK key, 3"),
    ("LB.PICK, 1,000 backends", r"LB\.PICK key, 1,000"),
    ("LB.PICK, 100,000 backends", r"LB\.PICK key, 100,000"),
    ("a module's write that does nothing", r"FLOOR\.WRITE key, 3"),
    ("LMOVE on a fixed list", r"LMOVE"),
    ("best script on a fixed list", r"(EVALSHA|FCALL) rotate\w*, 3"),
    ("best Function with weights, 3", r"FCALL (short|classes|edf|cached), 3"),
    ("best Function with weights, 1,000", r"FCALL (short|classes|edf|cached), 1,000"),
    ("best Lua script with weights, 3", r"EVALSHA (short|classes|edf), 3"),
    ("best Lua script with weights, 1,000", r"EVALSHA (short|classes|edf), 1,000"),
    ("best one in nginx's order, 1,000", r"EVALSHA (short|classes), 1,000"),
    ("INCR + SMEMBERS, 3", r"INCR \+ SMEMBERS, 3"),
    ("INCR + SMEMBERS, 1,000", r"INCR \+ SMEMBERS, 1,000"),
]
WIDTH, LINE, LABELS, BAR = 720, 28, 270, 340
# White also on dark pages.
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .note { font-size: 12px; fill: #59636e }
  .page { fill: #ffffff; stroke: #d1d9e0 } .other { fill: #9aa4af } .ours { fill: #1a7f64 }
"""


def fastest(cases: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The case that stands for each bar, where it was measured."""
    for label, pattern in BARS:
        found = [
            of for title, of in cases.items() if re.fullmatch(pattern, title) and "throughput ratio" in of
        ]
        if found:
            yield label, max(found, key=lambda of: of["throughput ratio"])


def picture(data: dict[str, Any]) -> str | None:
    """The SVG; nothing where nothing of the kind was measured."""
    server, figures = next(iter(data["servers"].items()))
    cases = figures["suites"].get("no persistence", {})
    bars = [(label, of["throughput ratio"]) for label, of in fastest(cases)]
    if len(bars) < 2:
        return None
    top = max(ratio for _, ratio in bars)
    height = 96 + LINE * len(bars)
    summary = escape("; ".join(f"{label}: {shown(ratio)}" for label, ratio in bars))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{summary}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        '<text x="20" y="34" font-weight="600">Picks in a second of processor time, INCR = 1</text>',
    ]
    for i, (label, ratio) in enumerate(bars):
        y = 54 + LINE * i
        kind = "ours" if label.startswith("LB.") else "other"
        width = max(1, BAR * ratio / top)
        lines += [
            f'<text x="{LABELS}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
            f'<rect class="{kind}" x="{LABELS + 10}" y="{y}" width="{width:.1f}" height="20" rx="2"/>',
            f'<text x="{LABELS + 18 + width:.1f}" y="{y + 15}">{shown(ratio)}</text>',
        ]
    note = f"{server}, {data['machine']}, pipelines of 64; higher is better. Repeat it: scripts/bench"
    lines += [f'<text class="note" x="20" y="{height - 18}">{escape(note)}</text>', "</svg>"]
    return "\n".join(lines) + "\n"


def shown(ratio: float) -> str:
    """Two significant digits."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"
