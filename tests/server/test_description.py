"""How the module describes itself to the server, and what redis-cli, maxmemory and INFO make of it."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from pathlib import Path

import pytest
import redis

from algorithms import ALL, BY_ITEM, BY_LATENCY, FORESEEABLE
from commands import COMMANDS
from server import SECONDS, waiting
from syntax import syntax
from wire import Wire

CARGO = Path(__file__).parents[2] / "Cargo.toml"
every_command = pytest.mark.parametrize("name", COMMANDS)
described = pytest.mark.needs("7.0", "descriptions of a module's commands")


@pytest.fixture
def ask(server):
    """Asks a server in RESP3."""
    return server.client(protocol=3).execute_command


@pytest.fixture
def wire(server):
    """A connection on which an error is an answer."""
    with Wire(server.port) as wire:
        yield wire


def test_the_table_here_has_every_command_of_the_module(client):
    assert {name.upper() for name in client.command() if name.upper().startswith("LB.")} == set(COMMANDS)


def test_the_lists_here_have_every_algorithm_of_the_module(wire):
    """A server lists them where it refuses one."""
    assert wire.ask("LB.POLICY web fastest") == f"ERR 'fastest' is no algorithm: {', '.join(ALL)}"
    *most, last = [*FORESEEABLE, *BY_LATENCY, *BY_ITEM]
    assert f"LB.PEEK takes {', '.join(most)} or {last}, " in wire.ask("LB.PEEK web random")


@every_command
def test_the_server_knows_the_flags_and_where_the_key_is(ask, name):
    info = ask("COMMAND", "INFO", name)[name]
    assert set(info["flags"]) - {"module", "admin"} == COMMANDS[name].flags
    assert (info["first_key_pos"], info["last_key_pos"], info["step_count"]) == (1, 1, 1)


@every_command
def test_the_server_finds_the_key(ask, name):
    assert ask(f"COMMAND GETKEYS {COMMANDS[name].form}") == ["web"]


@described
@every_command
def test_the_server_knows_the_arity_and_what_is_done_to_the_key(ask, name):
    info = ask("COMMAND", "INFO", name)[name]
    assert info["arity"] == COMMANDS[name].arity
    (key,) = info["key_specifications"]
    assert set(key["flags"]) == COMMANDS[name].access


@every_command
def test_a_command_takes_as_many_arguments_as_it_says(wire, name):
    arity = COMMANDS[name].arity
    least = abs(arity) - 1
    for number in [*range(least), *([least + 1] if arity > 0 else [])]:
        assert re.match("ERR wrong number of arguments", wire.ask(" ".join([name] + number * ["1"])))
    answer = wire.ask(" ".join([name] + least * ["1"]))
    assert "number of arguments" not in str(answer)


@described
@every_command
def test_every_command_is_documented(ask, name):
    docs = ask("COMMAND DOCS", name)[name]
    assert docs["module"] == "lb"
    assert docs["since"] == COMMANDS[name].since
    assert docs["summary"].endswith(".")
    assert docs["complexity"].startswith("O(")
    first, *_ = docs["arguments"]
    assert (first["name"], first["type"]) == ("key", "key")


@described
def test_redis_cli_shows_the_arguments_while_one_types(server, ask):
    (docs,) = ask("COMMAND DOCS", "LB.PICK").values()
    hint = syntax("LB.PICK", docs["arguments"]).replace(" | ", "|")
    with redis_cli(server) as terminal:
        seen_on(terminal, "> ")
        os.write(terminal, b"LB.PICK ")
        seen_on(terminal, hint.removeprefix("LB.PICK "))


@contextlib.contextmanager
def redis_cli(server):
    """A redis-cli on a terminal, which is 700 columns wide."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 700, 0, 0))
    command = ["redis-cli", "-p", str(server.port)]
    environment = os.environ | {"TERM": "xterm"}
    cli = subprocess.Popen(command, stdin=its_end, stdout=its_end, stderr=its_end, env=environment)
    try:
        yield terminal
    finally:
        cli.kill()
        cli.wait()
        os.close(terminal)
        os.close(its_end)


def seen_on(terminal, text):
    """Waits until the terminal has shown that."""
    shown = ""
    for _ in waiting(SECONDS, pause=0):
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536).decode().replace(" | ", "|")
        if text in shown:
            return
    raise AssertionError(f"{text!r} is not in {shown!r}")


def test_a_full_server_refuses_what_takes_memory_and_goes_on_picking(wire):
    wire.ask("LB.ADD busy a 5 b 1 c 1")
    try:
        wire.ask("CONFIG SET maxmemory 1")
        refused = {
            name for name, command in COMMANDS.items() if getattr(wire.ask(command.form), "code", "") == "OOM"
        }
        assert refused == {name for name, command in COMMANDS.items() if "denyoom" in command.flags}
        assert wire.ask("LB.PICK busy COUNT 3") == [b"a", b"a", b"b"]
    finally:
        wire.ask("CONFIG SET maxmemory 0")


def test_info_counts_picks_and_refusals(client):
    client.execute_command("LB.ADD web a")
    before = client.info("lb")
    client.execute_command("LB.PICK web COUNT 3")
    client.execute_command("LB.PICK web")
    with pytest.raises(redis.ResponseError):
        client.execute_command("LB.PICK web COUNT 0")
    after = client.info("lb")
    assert after["lb_picks"] == before["lb_picks"] + 4
    assert after["lb_refused_commands"] == before["lb_refused_commands"] + 1


def test_the_version_is_told_alike(client):
    version = re.search(r'^version = "(\d+)\.(\d+)\.(\d+)"$', CARGO.read_text(), re.M)
    major, minor, patch = map(int, version.groups())
    assert client.info("lb")["lb_version"] == f"{major}.{minor}.{patch}"
    (told,) = [of for of in client.module_list() if of["name"] == "lb"]
    assert told["ver"] == 10_000 * major + 100 * minor + patch
