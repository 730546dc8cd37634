"""The tables, in Markdown."""

from typing import Any

Figures = dict[str, Any]


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
    ("server busy", "busy", ".0%"),
    ("instructions/pick", "instructions", ",.0f"),
    ("× INCR", "instructions ratio", ",.3f"),
    ("p50 µs", "p50", ",.1f"),
    ("p99 µs", "p99", ",.1f"),
]


def commands(title: str, cases: dict[str, Figures]) -> str:
    """What commands cost: what was measured of it."""
    columns = [column for column in COLUMNS if any(column[1] in of for of in cases.values())]
    rows = [
        [name, *(format(of[field], form) if field in of else "" for _, field, form in columns)]
        for name, of in cases.items()
    ]
    return table([title, *(head for head, _, _ in columns)], rows)


def beside(title: str, ours: tuple[str, Figures], theirs: tuple[str, Figures]) -> str:
    """Figures of two kinds of value beside each other."""
    head = [title, ours[0], theirs[0], "ratio"]
    rows = [
        [name, f"{value:,.2f}", f"{theirs[1][name]:,.2f}", f"{value / theirs[1][name]:.2f}"]
        for name, value in ours[1].items()
    ]
    return table(head, rows)


def single(title: str, figures: Figures) -> str:
    """Figures of one kind."""
    return table(
        [title, ""],
        [[name, f"{value:,.3g}" if value < 10 else f"{value:,.0f}"] for name, value in figures.items()],
    )


def report(data: Figures) -> str:
    """All tables."""
    parts = [f"{data['machine']}; median of {data['rounds']} interleaved rounds; pipelines of 64 commands"]
    for server, figures in data["servers"].items():
        parts += [
            commands(f"{server}, {suite}", cases)
            for suite, cases in figures["suites"].items()
            if any(cases.values())
        ]
        if "values" in figures:
            parts.append(beside(f"{server}: a value", *figures["values"].items()))
        for title, of in figures.get("scale", {}).items():
            parts.append(beside(f"{server}: {title}", ("pool", of["pool"]), ("sorted set", of["zset"])))
            for kind in "pool", "zset":
                parts.append(single(f"{server}: {title}, {kind}s at random", of[f"{kind}, spread"]))
    return "\n\n".join(parts) + "\n"
