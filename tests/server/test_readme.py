"""README.md is true: every block in it runs, and its table of commands is the server's own.

    ```sh       commands, run in the repository. Those that build, serve or test are replaced, see REPLACED
    ```redis    a transcript: `> COMMAND` as typed into redis-cli, below it the answer as redis-cli shows it
    ```python   a script; it must end without an error
    ```rust, ```js, ```c    a program of the section "Clients", which test_clients.py runs

A block starts with an empty server. One with `continued` after its language goes on where the last one ended.
In an answer `…` stands for what differs from run to run. Port 6379 becomes that of the test server.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from server import Server
from servers import environment
from syntax import syntax

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

# Blocks that nothing can run, and why.
NOT_RUN = {
    "text": "neither commands nor code: a drawing, a syntax, a log",
    "ini": "lines for redis.conf",
}

# What a test of the README cannot do as it stands in an sh block, and what it does instead.
REPLACED = {
    r"git clone .*": "true",
    r"cd redis-lb": "true",
    r"scripts/run( .*)?": "scripts/run --demo",
    r"scripts/(test|lint|cluster|sentinel)( .*)?": r"test -x scripts/\1",
}


@dataclass
class Block:
    """A fenced block, the heading that it stands under and the line where it starts."""

    language: str
    section: str
    line: int
    text: str


def blocks() -> list[Block]:
    """All fenced blocks; a continued one is part of the one that it continues."""
    found: list[Block] = []
    text = README.read_text() if README.exists() else ""
    section = ""
    for part in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$|^#+ (.*)$", text, re.MULTILINE):
        if part[3] is not None:
            section = part[3]
            continue
        language, *how = part[1].split() or [""]
        if how == ["continued"]:
            found[-1].text += part[2]
        elif not how:  # others are for a set of servers: test_cluster.py and test_sentinel.py run them there
            found.append(Block(language, section, text.count("\n", 0, part.start()) + 1, part[2]))
    return found


def of(language: str):
    """Run the test for every block in that language."""
    return pytest.mark.parametrize(
        "block", [pytest.param(b, id=f"line-{b.line}") for b in blocks() if b.language == language]
    )


def run(*command: str, server: Server, cwd: Path = ROOT, typed: str = "") -> str:
    """What a command prints. A script that starts a server starts a program like the one under test."""
    program = server.binary.path
    done = subprocess.run(
        ["timeout", "100", *command],  # which ends what the command started, too
        cwd=cwd,
        env=environment(program) | {"REDIS_SERVER": str(program)},
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


def test_every_block_has_a_language_that_is_checked():
    elsewhere = {block.language for block in blocks() if block.section != "Clients"}
    assert elsewhere <= {"sh", "redis", "python", *NOT_RUN}
    assert any(block.language == "redis" for block in blocks()), "README.md shows no transcript"


@of("sh")
def test_commands_run(block, server):
    script = at_port(block.text, server.port)
    for line, instead in REPLACED.items():
        script = re.sub(rf"^{line}$", instead, script, flags=re.MULTILINE)
    run("bash", "-euo", "pipefail", "-c", script, server=server)


@of("redis")
def test_transcripts_are_what_redis_cli_shows(block, server):
    lines = block.text.splitlines()
    typed = "".join(line.removeprefix("> ") + "\n" for line in lines if line.startswith("> "))
    shown = run("redis-cli", "--no-raw", "-p", str(server.port), server=server, typed=typed).splitlines()
    expected = [line for line in lines if line and not line.startswith("> ")]
    # Lines that a … allows are taken over, so that a failure shows only true differences.
    for number, (line, real) in enumerate(zip(expected, shown, strict=False)):
        if re.fullmatch(re.escape(line).replace("…", ".*"), real):
            expected[number] = real
    assert shown == expected


@of("python")
def test_scripts_run(block, server, tmp_path):
    script = tmp_path / "readme.py"
    script.write_text(at_port(block.text, server.port))
    run(sys.executable, str(script), server=server, cwd=tmp_path)


@pytest.mark.needs("7.0", "COMMAND LIST and COMMAND DOCS")
def test_the_table_of_commands_is_the_servers(server):
    table = README.read_text().partition("\n| command |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(LB\.[^`]*)` \|", table, re.MULTILINE)
    client = server.client(protocol=3)
    names = client.execute_command("COMMAND LIST FILTERBY MODULE lb")
    docs = client.execute_command("COMMAND DOCS", *names)
    theirs = [syntax(name, doc["arguments"]) for name, doc in docs.items()]
    assert sorted(row.replace("\\|", "|") for row in rows) == sorted(theirs)
