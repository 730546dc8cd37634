"""The picture of the costs, in processor time: a request beside INCR and DECR, a pick beside INCR."""

import re
from collections.abc import Iterator
from html import escape
from typing import Any

# What the picture says, and the cases that it speaks of: of several it shows the fastest.
REQUESTS = [
    ("INCR + DECR", r"INCR \+ DECR"),
    ("two writes of a module that do nothing", r"a module's two writes that do nothing"),
    ("LB.PICK + LB.DONE by wrr, 3 backends", r"LB\.PICK \+ LB\.DONE, wrr, MAX, 3"),
    ("LB.PICK + LB.DONE by lc, 3 backends", r"LB\.PICK \+ LB\.DONE, lc, MAX, 3"),
    ("LB.PICK + LB.DONE by lc, 100", r"LB\.PICK \+ LB\.DONE, lc, MAX, 100"),
    ("LB.PICK + LB.DONE by lc, 100,000", r"LB\.PICK \+ LB\.DONE, lc, MAX, 100,000"),
    ("best script that counts, 3", r"EVALSHA (minimum|counts) .*, 3"),
    ("best script that counts, 100", r"EVALSHA (minimum|counts) .*, 100"),
    ("best Function with leases, 3", r"FCALL .*, 3"),
    ("best Function with leases, 100", r"FCALL .*, 100"),
    ("best Lua script with leases, 3", r"EVALSHA leases .*, 3"),
    ("best Lua script with leases, 100", r"EVALSHA leases .*, 100"),
    ("redis-semaphore, chooses nothing", r"redis-semaphore"),
    ("Higress's global_least_request, 3", r"Higress.*, 3"),
    ("Higress's global_least_request, 100", r"Higress.*, 100"),
]
PICKS = [
    ("INCR", r"INCR"),
    ("a write of a module that does nothing", r"FLOOR\.WRITE key, 3"),
    ("LB.PICK, 3 backends", r"LB\.PICK key, 3"),
    ("LB.PICK, 1,000", r"LB\.PICK key, 1,000"),
    ("LB.PICK, 100,000", r"LB\.PICK key, 100,000"),
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
WIDTH, LINE, LABELS, BAR, LONGEST = 720, 26, 280, 360, 12
# White also on dark pages.
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .note { font-size: 12px; fill: #59636e }
  .head { font-weight: 600 } .page { fill: #ffffff; stroke: #d1d9e0 } .other { fill: #9aa4af }
  .ours { fill: #1a7f64 } .cut { stroke: #ffffff; stroke-width: 3 }
"""
Cases = dict[str, Any]
Bars = list[tuple[str, float]]


def fastest(cases: Cases, named: list[tuple[str, str]] = PICKS) -> Iterator[tuple[str, Cases]]:
    """The case that stands for each bar, where it was measured."""
    for label, pattern in named:
        found = [of for title, of in cases.items() if re.fullmatch(pattern, title) and time_of(of)]
        if found:
            yield label, min(found, key=time_of)


def time_of(case: Cases) -> float | None:
    """The processor time of the server, as a multiple of that of what it is compared to."""
    if "time ratio" in case:
        return case["time ratio"]
    return 1 / case["throughput ratio"] if "throughput ratio" in case else None


def groups(figures: Cases) -> Iterator[tuple[str, Bars]]:
    """Bars under their headings."""
    requests = figures.get("requests", {}).get("cases", {})
    bars = [(label, time_of(of)) for label, of in fastest(requests, REQUESTS)]
    if len(bars) > 1:
        ours = [of for label, of in bars if label.startswith("LB.") and not label.endswith("00,000")]
        times = f" {shown(min(ours))} to {shown(max(ours))}" if ours else ""
        what = "A request balanced, counted and limited over the whole fleet costs the server"
        yield f"{what}\nwhat INCR and DECR cost, times{times}", bars
    picks = figures["suites"].get("no persistence", {})
    bars = [(label, time_of(of)) for label, of in fastest(picks)]
    if len(bars) > 1:
        yield "A pick alone costs what INCR costs, times", bars


def picture(data: Cases) -> str | None:
    """The SVG; nothing where nothing of the kind was measured."""
    server, figures = next(iter(data["servers"].items()))
    lines, said, y = [], [], 14
    for heading, bars in groups(figures):
        for line in heading.splitlines():
            y += 20
            lines.append(f'<text class="head" x="20" y="{y}">{escape(line)}</text>')
        y += 12
        for label, times in bars:
            lines += bar(y, label, times)
            y += LINE
        y += 14
        said.append(
            f"{' '.join(heading.split())}: " + "; ".join(f"{label} {shown(of)}" for label, of in bars)
        )
    if not said:
        return None
    note = f"{server}, {data['machine']}, pipelines of 64, processor time. Repeat it: scripts/bench"
    return (
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 26}" role="img">',
                f"<title>{escape('. '.join(said))}</title>",
                f"<style>{STYLE}</style>",
                f'<rect class="page" x=".5" y=".5" width="{WIDTH - 1}" height="{y + 25}" rx="8"/>',
                *lines,
                f'<text class="note" x="20" y="{y + 10}">{escape(note)}</text>',
                "</svg>",
            ]
        )
        + "\n"
    )


def bar(y: int, label: str, times: float) -> Iterator[str]:
    """A bar; one that would be too long is cut."""
    kind = "ours" if label.startswith("LB.") else "other"
    left, width = LABELS + 10, BAR * min(times, LONGEST) / LONGEST
    yield f'<text x="{LABELS}" y="{y + 14}" text-anchor="end">{escape(label)}</text>'
    yield f'<rect class="{kind}" x="{left}" y="{y}" width="{width:.1f}" height="18" rx="2"/>'
    if times > LONGEST:
        yield f'<path class="cut" d="M {left + width - 24:.1f} {y + 20} l 8 -22"/>'
    yield f'<text x="{left + 8 + width:.1f}" y="{y + 14}">{shown(times)}</text>'


def shown(times: float) -> str:
    """Two significant digits, or all of them before the point."""
    return f"{times:.0f}" if times >= 10 else f"{times:.1f}"
