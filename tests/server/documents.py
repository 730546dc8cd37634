"""The documentation as tests see it: README.md at the top and in the folders, with their blocks and headings.

    ```sh       commands, run in the repository; test_readme.py replaces those that serve or test
    ```redis    a transcript: `> COMMAND` as typed into redis-cli, below it the answer as redis-cli shows it
    ```python   a script; it must end without an error
    ```python cluster, ```python sentinel    the same for a set of servers: test_cluster.py, test_sentinel.py
    ```python litellm                        one that needs LiteLLM: litellm_cases.py
    ```python client, also sh, rust, js, c   a program for test_clients.py; ```text client: what it prints
    ```js waiting                            another one, with a pick that waits
    ```python gateway                        a program for test_llm_gateway.py
    ```text, ```ini                          nothing that can be run: a drawing, a log, lines of redis.conf

In an answer `…` stands for what differs from run to run. Port 6379 becomes that of the test server.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from script import ROOT, module
from server import BOUND
from servers import Binary, environment

TOP = ROOT / "README.md"
CLIENT = ROOT / "src" / "clients" / "python" / "src"
FENCE_OR_HEADING = re.compile(r"^( *)```(.*)\n((?:.*\n)*?) *```$|^#+ (.*)$", re.MULTILINE)


@cache
def documents() -> list[Path]:
    """All README.md files of the repository, and its CHANGELOG.md."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if name != "target" and not name.startswith("."))
        found += [Path(folder, name) for name in files if name in ("README.md", "CHANGELOG.md")]
    return found


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language and what kind of it, and the heading above it."""

    path: Path
    line: int
    section: str
    language: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks(language: str | None = None, kind: str | None = None) -> list[Block]:
    """The blocks of all documents, of one language or kind where that is named."""
    found = [block for path in documents() for block in blocks_of(path)]
    return [block for block in found if language in (None, block.language) and kind in (None, block.kind)]


def blocks_of(path: Path) -> Iterator[Block]:
    """The blocks of one document."""
    text = path.read_text()
    section = ""
    for part in FENCE_OR_HEADING.finditer(text):
        indent, words, inner, heading = part.groups()
        if heading is not None:
            section = heading
            continue
        language, _, kind = words.partition(" ")
        inner = re.sub(f"^{indent}", "", inner, flags=re.MULTILINE)
        yield Block(path, text.count("\n", 0, part.start()) + 1, section, language, kind, inner)


@dataclass(frozen=True)
class Place:
    """Where a block runs: the port of a server, and the program behind it."""

    port: int
    binary: Binary


@contextmanager
def left_running(binary: Binary) -> Iterator[Place]:
    """The server that scripts/run leaves to its user, with the pool that it has shown picks from."""
    more = {"REDIS_SERVER": str(binary.path), "REDIS_LB_MODULE": str(module())}
    command = [*BOUND[:-1], "TERM", ROOT / "scripts" / "run"]
    with subprocess.Popen(
        command, env=environment(binary.path) | more, stdout=subprocess.PIPE, text=True
    ) as script:
        try:
            said = next(filter(None, (re.search(r"redis-cli -p (\d+) ", line) for line in script.stdout)))
            yield Place(int(said[1]), binary)
        finally:
            script.send_signal(signal.SIGTERM)
            script.stdout.read()


def run(*command: str, at: Place, cwd: Path = ROOT, typed: str = "") -> str:
    """What a command prints. A script that starts a server starts a program like the one under test."""
    done = subprocess.run(
        ["timeout", "100", *command],  # which ends what the command started, too
        cwd=cwd,
        env=environment(at.binary.path) | {"REDIS_SERVER": str(at.binary.path), "PYTHONPATH": str(CLIENT)},
        input=typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command} ends with {done.returncode}:\n{done.stdout}"
    return done.stdout


def at_port(text: str, port: int) -> str:
    """The text with the port that a reader has replaced by that of the test server."""
    return re.sub(r"(port=|localhost:|127\.0\.0\.1:|127\.0\.0\.1\", |-p )6379\b", rf"\g<1>{port}", text)
