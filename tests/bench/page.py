"""What the parts of the bench share that say how far they are, draw a picture, or write into README.md."""

import sys
import time
from html import escape
from pathlib import Path

README = Path(__file__).with_name("README.md")
START = time.monotonic()
THIN = 11  # The height of a bar, with the gap below it.


def say(what: str) -> None:
    """Shows how far it is."""
    print(f"[{time.monotonic() - START:4.0f} s] {what}", file=sys.stderr, flush=True)


def marks(of: str) -> tuple[str, str]:
    """Between these lines README.md has what that command wrote."""
    return f"<!-- written by {of} -->\n", f"<!-- end of what {of} wrote -->\n"


def put(between: tuple[str, str], text: str, document: Path = README) -> None:
    """Writes the text between these marks of README.md, or of another document."""
    begin, end = between
    before, _, rest = document.read_text().partition(begin)
    document.write_text(f"{before}{begin}{text}{end}{rest.partition(end)[2]}")


def framed(title: str, style: str, lines: list[str], width: int, bottom: int, note: str) -> str:
    """A picture: these lines on a page that ends below `bottom`, with a note."""
    return (
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 30}" role="img">',
                f"<title>{escape(title)}</title>",
                f"<style>{style}</style>",
                f'<rect class="page" x=".5" y=".5" width="{width - 1}" height="{bottom + 29}" rx="8"/>',
                *lines,
                f'<text class="note" x="20" y="{bottom + 12}">{note}</text>',
                "</svg>",
            ]
        )
        + "\n"
    )


def bars(
    label: str,
    kind: str,
    figures: list[tuple[float, float, str]],
    longest: float,
    frame: tuple[int, int],
    y: int,
) -> list[str]:
    """The lines of one way: its label, and a bar for each figure with an opacity and a text.

    The first bar is at `y`. `frame` says where labels end, and how wide a bar of the longest figure is.
    What is longer is cut there.
    """
    labels, widest = frame
    left, middle = labels + 10, y + THIN * len(figures) / 2 + 4
    lines = [f'<text x="{labels}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>']
    for figure, opacity, text in figures:
        width = max(1, widest * min(figure, longest) / longest)
        lines.append(
            f'<rect class="{kind}" opacity="{opacity}" x="{left}" y="{y}" '
            f'width="{width:.1f}" height="{THIN - 1}"/>'
        )
        if figure > longest:
            lines.append(f'<path class="cut" d="M {left + width - 24:.1f} {y + THIN} l 6 -{THIN + 1}"/>')
        lines.append(f'<text class="small" x="{left + width + 6:.1f}" y="{y + THIN - 2}">{text}</text>')
        y += THIN
    return lines
