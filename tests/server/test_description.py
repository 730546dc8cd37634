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

from server import waiting
from syntax import syntax
from wire import Wire

CARGO = Path(__file__).parents[2] / "Cargo.toml"
# Of each command its arity, its flags, and what it does to its key.
COMMANDS = {
    "LB.ADD": (-3, {"write", "denyoom", "fast"}, {"RW", "update"}),
    "LB.SET": (-4, {"write", "denyoom"}, {"RW", "update"}),
    "LB.REM": (-3, {"write", "fast"}, {"RW", "delete"}),
    "LB.WEIGHT": (-3, {"write", "fast"}, {"RW", "access", "update"}),
    "LB.STATE": (-3, {"write", "fast"}, {"RW", "access", "update"}),
    "LB.POLICY": (-2, {"write", "denyoom", "fast"}, {"RW", "access", "update"}),
    "LB.LIST": (2, {"readonly"}, {"RO", "access"}),
    "LB.CARD": (2, {"readonly", "fast"}, {"RO"}),
    "LB.PICK": (-2, {"write", "fast"}, {"RW", "access", "update"}),
    "LB.PEEK": (-2, {"readonly", "fast"}, {"RO", "access"}),
    "LB.DONE": (-3, {"write", "fast"}, {"RW", "access", "update"}),
    "LB.RENEW": (4, {"write", "fast"}, {"RW", "access", "update"}),
    "LB.RELEASE": (4, {"write"}, {"RW", "access", "update"}),
    "LB.LEASES": (-2, {"readonly"}, {"RO", "access"}),
    "LB.LIMIT": (-2, {"write"}, {"RW", "access", "update"}),
    "LB.WHEN": (2, {"readonly"}, {"RO", "access"}),
    "LB.INFO": (2, {"readonly", "fast"}, {"RO", "access"}),
    "LB.STATS": (-2, {"readonly"}, {"RO", "access"}),
    "LB.TICK": (3, {"write", "fast"}, {"RW", "update"}),
    "LB.SEED": (3, {"write", "fast"}, {"RW", "update"}),
    "LB.EPOCH": (3, {"write", "fast"}, {"RW", "update"}),
    "LB.LOAD": (-3, {"write", "denyoom"}, {"OW", "update"}),
}

# A form of each that is not refused where there is no pool, or only because of it.
FORMS = [
    "LB.ADD web a",
    "LB.SET web a 1",
    "LB.REM web a",
    "LB.WEIGHT web a",
    "LB.STATE web a",
    "LB.POLICY web",
]
FORMS += ["LB.LIST web", "LB.CARD web", "LB.PICK web", "LB.PEEK web", "LB.INFO web", "LB.STATS web"]
FORMS += ["LB.DONE web 7-1", "LB.RENEW web 7-1 9", "LB.RELEASE web OWNER o", "LB.LEASES web"]
FORMS += ["LB.LIMIT web", "LB.WHEN web", "LB.TICK web 1", "LB.SEED web 1", "LB.EPOCH web 1", "LB.LOAD web x"]

# Since 0.1.0 there are the others.
SINCE_0_2_0 = {"LB.DONE", "LB.RENEW", "LB.RELEASE", "LB.LEASES", "LB.LIMIT", "LB.WHEN", "LB.TICK", "LB.EPOCH"}

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


def flags(command):
    """The flags that it should have."""
    _, flags, _ = COMMANDS[command.split()[0]]
    return flags


def test_the_table_here_has_every_command_of_the_module(client):
    assert {name.upper() for name in client.command() if name.upper().startswith("LB.")} == set(COMMANDS)


@every_command
def test_the_server_knows_the_flags_and_where_the_key_is(ask, name):
    info = ask("COMMAND", "INFO", name)[name]
    assert set(info["flags"]) - {"module", "admin"} == flags(name)
    assert (info["first_key_pos"], info["last_key_pos"], info["step_count"]) == (1, 1, 1)


@pytest.mark.parametrize("form", FORMS)
def test_the_server_finds_the_key(ask, form):
    assert ask(f"COMMAND GETKEYS {form}") == ["web"]


@described
@every_command
def test_the_server_knows_the_arity_and_what_is_done_to_the_key(ask, name):
    arity, _, access = COMMANDS[name]
    info = ask("COMMAND", "INFO", name)[name]
    assert info["arity"] == arity
    (key,) = info["key_specifications"]
    assert set(key["flags"]) == access


@every_command
def test_a_command_takes_as_many_arguments_as_it_says(wire, name):
    arity, _, _ = COMMANDS[name]
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
    assert docs["since"] == ("0.2.0" if name in SINCE_0_2_0 else "0.1.0")
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
    """A redis-cli on a terminal, which is 200 columns wide."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
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
    for _ in waiting(10, pause=0):
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536).decode().replace(" | ", "|")
        if text in shown:
            return
    raise AssertionError(f"{text!r} is not in {shown!r}")


def test_a_full_server_refuses_what_takes_memory_and_goes_on_picking(wire):
    wire.ask("LB.ADD busy a 5 b 1 c 1")
    try:
        wire.ask("CONFIG SET maxmemory 1")
        refused = {form for form in FORMS if getattr(wire.ask(form), "code", "") == "OOM"}
        assert refused == {form for form in FORMS if "denyoom" in flags(form)}
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
