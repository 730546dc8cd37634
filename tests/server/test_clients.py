"""Clients of every language pick, in RESP2 and in RESP3.

The programs are the blocks of the documents that are marked `client`, which all print what the text block of
that kind shows, and those of tests/clients/, which take names of any bytes there and back, meet errors, maps
and nil, and wait for a lease that they end themselves. All are for port 6379 and, where the client has it,
RESP3; here they get the port of a server, and RESP2 as well. Each runs twice, on a server that scripts/run
has left and that nobody empties in between.
What they need is in target/clients: scripts/setup puts it there, and cargo what redis-rs needs.
"""

import os
import re
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from documents import ROOT, at_port, blocks, left_running, run
from server import eventually, free_port

PROGRAMS = ROOT / "tests" / "clients"
INSTALLED = ROOT / "target" / "clients"
SUFFIXES = {"python": ".py", "rust": ".rs", "js": ".mjs", "c": ".c", "sh": ".sh"}
SHIPPED = sorted(path for path in PROGRAMS.iterdir() if path.suffix in SUFFIXES.values())
RESP3 = re.compile(r"(protocol=(?:resp)?|RESP: |HELLO |redis-cli -)3\b")
NAMES = [b"two words", b"\0\xff\r\n", b'"\\']

SHOWN = [block for block in blocks(kind="client") if block.language in SUFFIXES]
(PRINTED,) = blocks("text", "client")
(WAITING,) = blocks("js", "waiting")
(FALLBACK,) = [block for block in blocks("python") if block.section == "When Redis is unreachable"]

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


def recipe(server) -> type:
    """The class that the document shows; its last lines have made one and picked."""
    module = types.ModuleType("readme")
    exec(compile(at_port(FALLBACK.text, server.port), str(FALLBACK), "exec"), module.__dict__)
    return module.Pool


def fill(client) -> None:
    """Weights 5, 1, 1 and two that nobody may pick."""
    client.execute_command("LB.ADD", "web", "a", 5, "b", 1, "c", 1, "quiesced", 0, "failed", 9)
    client.execute_command("LB.STATE", "web", "failed", "down")


@pytest.mark.parametrize("protocol", [2, 3])
def test_picks_go_on_without_the_server_and_with_it_again(new_server, protocol):
    server = new_server(appendonly="yes", appendfsync="always")
    client = server.client(protocol=protocol)
    fill(client)
    pool = recipe(server)(client, "web", retry_after=0.05, refresh_after=0)
    client.execute_command("LB.PICK", "web", "COUNT", 6)  # the rest of the sequence that the recipe began
    assert [pool.pick() for _ in range(6)] == list("aabaca")

    server.kill()
    assert [pool.pick() for _ in range(3)] == list("aab"), "an order of its own"
    server.start()
    eventually(lambda: time.monotonic() > pool.retry_at)
    assert [pool.pick() for _ in range(2)] == list("aa"), "the shared one goes on"
    server.kill()
    assert [pool.pick() for _ in range(4)] == list("acaa"), "so does its own"
    with ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(lambda _: pool.pick(), range(700))) == {"a": 500, "b": 100, "c": 100}

    # Weights and members that changed are known the next time.
    server.start()
    client.execute_command("LB.SET", "web", "a", 1, "c", 1, "new", 2)
    eventually(lambda: time.monotonic() > pool.retry_at)
    pool.pick()
    server.kill()
    assert Counter(pool.pick() for _ in range(400)) == {"a": 100, "c": 100, "new": 200}


class Counting(redis.Redis):
    """How often it was asked, by a pool that refreshes each time."""

    asked = 0

    def pipeline(self, *args, **options):
        self.asked += 1
        return super().pipeline(*args, **options)


def test_one_caller_waits_for_a_server_that_hangs(new_server):
    server = new_server()
    fill(server.client())
    client = Counting(port=server.port, decode_responses=True, socket_timeout=0.5, retry=None)
    pool = recipe(server)(client, "web", retry_after=0.1, refresh_after=0)
    eventually(lambda: pool.pick() and pool.retry_at is None)
    process = client.info("server")["process_id"]
    os.kill(process, signal.SIGSTOP)
    pool.pick()
    pool.retry_after = 3600
    eventually(lambda: time.monotonic() > pool.retry_at)
    client.asked = 0
    with ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(lambda _: pool.pick(), range(7000))).keys() == {"a", "b", "c"}
    assert client.asked == 1

    os.kill(process, signal.SIGCONT)
    pool.retry_at = 0
    eventually(lambda: pool.pick() and pool.retry_at is None)


def test_what_the_server_says_is_not_replaced(new_server):
    server = new_server()
    client = server.client()
    pool = recipe(server)
    assert pool(client, "empty").pick() is None
    client.set("text", "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        pool(client, "text").pick()
    newcomer = pool(redis.Redis(port=free_port(), retry=None), "web")
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            newcomer.pick()


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
