"""What the parts of the bench share that say how far they are, draw a picture, or write into README.md."""

import sys
import time
from html import escape
from pathlib import Path

README = Path(__file__).with_name("README.md")
START = time.monotonic()


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
