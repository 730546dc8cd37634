"""Clients of every language pick, in RESP2 and in RESP3.

The programs are the blocks of the documents that are marked `client`, which all print what the text block of
that kind shows, and those of tests/clients/, which take names of any bytes there and back, meet errors, maps
and nil, and wait for a lease that they end themselves. All are for port 6379 and, where the client has it,
RESP3; here they get the port of a server, and RESP2 as well. Each runs twice, on a server that scripts/run
has left and that nobody empties in between.
What they need is in target/clients: scripts/setup puts it there, and cargo what redis-rs needs.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from documents import ROOT, at_port, blocks, left_running, run
from server import eventually

PROGRAMS = ROOT / "tests" / "clients"
INSTALLED = ROOT / "target" / "clients"
SUFFIXES = {"python": ".py", "rust": ".rs", "js": ".mjs", "c": ".c", "sh": ".sh"}
SHIPPED = sorted(path for path in PROGRAMS.iterdir() if path.suffix in SUFFIXES.values())
RESP3 = re.compile(r"(protocol=(?:resp)?|RESP: |HELLO |redis-cli -)3\b")
NAMES = [b"two words", b"\0\xff\r\n", b'"\\']

SHOWN = [block for block in blocks(kind="client") if block.language in SUFFIXES]
(PRINTED,) = blocks("text", "client")
(WAITING,) = blocks("js", "waiting")

# The first build of redis-rs takes long; all programs in Rust are built at the same place.
pytestmark = [pytest.mark.timeout(600), pytest.mark.usual_ports]


def in_each_protocol(programs: dict[str, tuple[str, str]]):
    """Each suffix and text, in RESP3 as it stands and in RESP2; where there is no RESP3, in RESP2 alone."""
    return pytest.mark.parametrize(
        "suffix, text, protocol",
        [
            pytest.param(suffix, RESP3.sub(rf"\g<1>{protocol}", text), protocol, id=f"{name}-RESP{protocol}")
            for name, (suffix, text) in programs.items()
            for protocol in ([2, 3] if RESP3.search(text) else [2])
        ],
    )


def command(suffix: str, text: str, folder: Path) -> list[str]:
    """What runs that program, built if it has to be."""
    source = folder / f"program{suffix}"
    source.write_text(text)
    match suffix:
        case ".py":
            return [sys.executable, str(source)]
        case ".sh":
            return ["bash", "-euo", "pipefail", str(source)]
        case ".mjs":
            (folder / "node_modules").symlink_to(INSTALLED / "node" / "node_modules")
            return ["node", str(source)]
        case ".c":
            (vendor,) = INSTALLED.glob("hiredis-*/vendor")
            library = [f"-L{INSTALLED}", f"-Wl,-rpath,{INSTALLED}", "-lhiredis"]
            build("cc", "-Wall", "-Wextra", f"-I{vendor}", "-o", folder / "program", source, *library)
            return [str(folder / "program")]
        case ".rs":
            places = ["--manifest-path", PROGRAMS / "rust" / "Cargo.toml", "--target-dir", INSTALLED / "rust"]
            build("env", f"PROGRAM={source}", "cargo", "build", "--quiet", "--locked", *places)
            return [str(INSTALLED / "rust" / "debug" / "program")]


def build(*command: str | Path) -> None:
    """Run a compiler, which must have nothing to say."""
    done = subprocess.run(["timeout", "550", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout.decode()) == (0, ""), command


def printed(suffix: str, text: str, place, folder: Path) -> list[list[str]]:
    """The words of each line that the program prints, each time when it is run twice."""
    ready = command(suffix, at_port(text, place.port), folder)
    first, second = (run(*ready, at=place, cwd=folder) for _ in range(2))
    assert first == second
    return [line.split() for line in first.splitlines()]


@pytest.fixture(scope="session")
def place(binary):
    with left_running(binary) as place:
        yield place


def test_a_client_of_each_language_is_shown():
    assert sorted(block.language for block in SHOWN) == sorted(SUFFIXES)
    assert all(RESP3.search(block.text) for block in SHOWN)


@in_each_protocol({block.language: (SUFFIXES[block.language], block.text) for block in SHOWN})
def test_the_clients_that_are_shown_print_what_is_said(suffix, text, protocol, place, tmp_path):
    lines = [line.split() for line in PRINTED.text.splitlines()]
    assert lines[0] + lines[1] == list("aabacaa"), "nginx's sequence for 5, 1, 1"
    assert printed(suffix, text, place, tmp_path) == lines


def test_a_pick_that_waits_has_a_connection_of_its_own(place, tmp_path):
    assert printed(".mjs", WAITING.text, place, tmp_path) == [["one"]]


@in_each_protocol({path.name: (path.suffix, path.read_text()) for path in SHIPPED})
def test_names_errors_maps_nil_and_waiting_reach_every_client(suffix, text, protocol, place, tmp_path):
    lines = printed(suffix, text, place, tmp_path)
    # Before 7.0 a module has no maps to answer with.
    stats = "map" if protocol == 3 and place.binary.satisfies("7.0") else "list"
    assert lines == [["NOBACKEND"], ["WRONGTYPE"], ["ERR"], [stats], ["nil"], ["nil"], ["one"]]
    # It has given each name as it came from LB.PICK back to LB.WEIGHT.
    client = redis.Redis(port=place.port)
    assert client.execute_command("LB.LIST", "odd") == NAMES
    assert [client.execute_command("LB.WEIGHT", "odd", name) for name in NAMES] == [7, 7, 7]


def fill(client) -> None:
    """Weights 5, 1, 1 and two that nobody may pick."""
    client.execute_command("LB.ADD", "web", "a", 5, "b", 1, "c", 1, "quiesced", 0, "failed", 9)
    client.execute_command("LB.STATE", "web", "failed", "down")


def test_what_breaks_a_long_wait(server):
    """A socket timeout below BLOCK: no pick is made, and nobody waits any more."""
    fill(server.client())
    server.client().execute_command("LB.STATE", "web", "a", "down")
    for backend in "bc":
        server.client().execute_command("LB.STATE", "web", backend, "down")
    hasty = redis.Redis(port=server.port, socket_timeout=0.2, retry=None)
    with pytest.raises(redis.TimeoutError):
        hasty.execute_command("LB.PICK", "web", "LEASE", 60000, "BLOCK", 5000)
    eventually(lambda: server.client().info("clients")["blocked_clients"] == 0)
    server.client().execute_command("LB.STATE", "web", "a", "up")
    assert server.client().execute_command("LB.LEASES", "web") == []
