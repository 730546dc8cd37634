"""The picture of the shares that follow the servers: it runs the README's own program, and draws its answers.

PYTHONPATH=tests:tests/server target/venv/bin/python -m bench.shares
"""

from collections import Counter
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from documents import TOP, at_port, blocks
from script import module
from server import Server
from servers import installed

DATA = Path(__file__).parents[1] / "data"
LEFT, TOP_EDGE, WIDTH, HEIGHT, STEP = 60, 64, 600, 200, 0.25
COLOURS = "#1a7f64", "#6cb8a2", "#c9d1d9"
STYLE = "text { font: 13px system-ui, sans-serif; fill: #1f2328 } .page { fill: #ffffff; stroke: #d1d9e0 }"


def program() -> dict[str, Any]:
    """What the program's names stand for after it has run."""
    (text,) = [block.text for block in blocks() if block.path == TOP and "most_go_to" in block.text]
    # The moment at which a server becomes slow.
    text = text.replace('delay["10.0.0.1:80"] = ', 'slowed = time.monotonic(); delay["10.0.0.1:80"] = ')
    names: dict[str, Any] = {}
    server = Server(installed(), module())
    try:
        server.start()
        exec(compile(at_port(text, server.port), str(TOP), "exec"), names)
        return names
    finally:
        server.close()


def picture(ran: dict[str, Any]) -> str:
    """The shares of the answers, one server above the other."""
    answers = sorted(ran["answers"])
    begun, ended = answers[0][0], answers[-1][0]

    def x(time: float) -> float:
        return LEFT + WIDTH * (time - begun) / (ended - begun)

    edges = []  # For each step the time, and how high each server's area reaches.
    for at in range(int((ended - begun) / STEP) + 1):
        middle = begun + STEP * at
        some = Counter(name for time, name in answers if abs(time - middle) <= STEP)
        shares = [some[name] / some.total() for name in ran["delay"]]
        edges.append((x(middle), [0, *accumulate(shares)]))
    lines = []
    for (low, high), colour in zip(pairwise(range(4)), COLOURS, strict=True):
        there = [f"{at:.1f} {TOP_EDGE + HEIGHT * (1 - of[high]):.1f}" for at, of in edges]
        back = [f"{at:.1f} {TOP_EDGE + HEIGHT * (1 - of[low]):.1f}" for at, of in reversed(edges)]
        lines.append(f'<path fill="{colour}" d="M {" L ".join(there + back)} z"/>')
    bottom, slowed = TOP_EDGE + HEIGHT, x(ran["slowed"])
    page = 'class="page" x=".5" y=".5" width="719" rx="8"'
    labels = ["20 ms, later 500 ms", "60 ms", "180 ms"]
    for at, (colour, label) in enumerate(zip(COLOURS, labels, strict=True)):
        lines.append(f'<rect fill="{colour}" x="{LEFT + 190 * at}" y="34" width="14" height="14" rx="2"/>')
        lines.append(f'<text x="{LEFT + 20 + 190 * at}" y="46">{label}</text>')
    for share in (0, 50, 100):
        y = bottom - HEIGHT * share / 100
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{share} %</text>')
    for second in range(int(ended - begun) + 1):
        lines.append(f'<text x="{x(begun + second):.1f}" y="{bottom + 18}">{second} s</text>')
    lines.append(f'<path stroke="#1f2328" stroke-dasharray="4 3" d="M {slowed:.1f} {TOP_EDGE} v {HEIGHT}"/>')
    said = (
        "Shares of the answers of three servers, no weights set. At the dashed line the fastest slows down."
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {bottom + 34}" role="img">',
            f"<title>{said}</title>",
            f"<style>{STYLE}</style>",
            f'<rect {page} height="{bottom + 33}"/>',
            f'<text x="{LEFT}" y="22" font-weight="600">{said}</text>',
            *lines,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    (DATA / "shares.svg").write_text(picture(program()))
