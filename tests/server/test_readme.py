"""The documents are true: every block in them runs, their links lead somewhere, and the top one stays short.

Each block runs twice on one server, which scripts/run has left with a pool and which nobody empties between,
the second time after all other blocks. See documents.py for what a block can be.
"""

import re
import sys
from collections import Counter

import pytest

from documents import ROOT, TOP, at_port, blocks, documents, left_running, run
from syntax import syntax

pytestmark = pytest.mark.usual_ports

# All kinds of blocks, and who runs them.
HERE = {("sh", ""), ("redis", ""), ("python", "")}
ELSEWHERE = {("python", "cluster"), ("python", "sentinel"), ("python", "litellm")}
ELSEWHERE |= {(language, "client") for language in ("python", "rust", "js", "c", "sh", "text")}
ELSEWHERE |= {("js", "waiting"), ("python", "gateway")}
NOT_RUN = {("text", ""), ("ini", "")}

# What a test cannot do as it stands in an sh block, and what it does instead.
REPLACED = {
    r"git clone .*": "true",
    r"cd redis-lb": "true",
    r"scripts/run( .*)?": "scripts/run --demo",
    r"scripts/(bench|cluster|fuzz|lint|package|sentinel|setup|test)( .*)?": r"scripts/\1 --help",
}
TWICE = [
    # A program that watches shares for some seconds is not repeated on every server.
    pytest.param(
        block,
        id=f"{block}, {time} time",
        marks=[pytest.mark.heavy] if "ThreadingHTTPServer" in block.text else [],
    )
    for time in ("first", "second")
    for block in blocks()
    if (block.language, block.kind) in HERE
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="session")
def place(binary):
    with left_running(binary) as place:
        yield place


def test_every_block_is_of_a_kind_that_somebody_runs():
    kinds = {(block.language, block.kind) for block in blocks()}
    assert kinds <= HERE | ELSEWHERE | NOT_RUN
    assert HERE | ELSEWHERE <= kinds, "the tests of such blocks run nothing"


@pytest.mark.parametrize("block", TWICE)
def test_blocks_run_after_anything(block, place, tmp_path):
    {"sh": commands_run, "redis": transcript_is_shown, "python": script_runs}[block.language](
        at_port(block.text, place.port), place, tmp_path
    )


def commands_run(text, place, _):
    for line, instead in REPLACED.items():
        text = re.sub(rf"^{line}$", instead, text, flags=re.MULTILINE)
    run("bash", "-euo", "pipefail", "-c", text, at=place)


def transcript_is_shown(text, place, _):
    lines = text.splitlines()
    typed = "".join(line.removeprefix("> ") + "\n" for line in lines if line.startswith("> "))
    shown = run("redis-cli", "--no-raw", "-p", str(place.port), at=place, typed=typed).splitlines()
    expected = [line for line in lines if line and not line.startswith("> ")]
    # Lines that a … allows are taken over, so that a failure shows only true differences.
    for number, (line, real) in enumerate(zip(expected, shown, strict=False)):
        if re.fullmatch(re.escape(line).replace("…", ".*"), real):
            expected[number] = real
    assert shown == expected


def script_runs(text, place, folder):
    script = folder / "readme.py"
    script.write_text(text)
    run(sys.executable, str(script), at=place, cwd=folder)


def anchors(path):
    """What a link to a heading of that document can say, as GitHub makes it."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    seen = Counter()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
        seen[anchor] += 1


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"https?:", link):
            continue
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.exists() and there.is_relative_to(ROOT), link
        if anchor:
            # GitHub shows a folder's README.md below the folder, but does not scroll to its headings.
            assert there.suffix == ".md" and anchor in anchors(there), link


def test_the_top_one_is_short():
    assert len(TOP.read_text().splitlines()) < 200


def test_every_document_can_be_reached_from_the_top_one():
    reached, new = set(), {TOP}
    while new:
        reached |= new
        links = {
            path.parent / link.partition("#")[0] for path in new for link in LINK.findall(path.read_text())
        }
        there = {link.resolve() for link in links}
        new = {path for path in documents() if {path, path.parent} & there} - reached
    assert reached == set(documents())


def test_every_test_is_in_the_table_of_proofs():
    told = "".join((ROOT / "tests" / path).read_text() for path in ("README.md", "server/README.md"))
    tests = {path.name for path in (ROOT / "tests" / "server").glob("test_*.py")}
    assert {name for name in tests if f"/{name})" not in told and f"({name})" not in told} == set()


@pytest.mark.needs("7.0", "COMMAND LIST and COMMAND DOCS")
def test_the_table_of_commands_is_the_servers(server):
    (text,) = [text for path in documents() if "\n| command |" in (text := path.read_text())]
    table = text.partition("\n| command |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(LB\.[^`]*)` \|", table, re.MULTILINE)
    client = server.client(protocol=3)
    names = client.execute_command("COMMAND LIST FILTERBY MODULE lb")
    docs = client.execute_command("COMMAND DOCS", *names)
    theirs = [syntax(name, doc["arguments"]) for name, doc in docs.items()]
    assert sorted(row.replace("\\|", "|") for row in rows) == sorted(theirs)
