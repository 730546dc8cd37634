"""The scripts say how they are used, refuse what they do not understand, and do not call a loss well."""

import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import closing, suppress

import pytest
import redis

from script import ROOT, module
from server import BOUND, eventually, free_port, is_free
from servers import environment
from standing import process

pytestmark = pytest.mark.usual_ports

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").iterdir())
HELP = [
    ["cluster", "start", "--help"],
    ["test", "-k", "x", "--help"],
    *([name, "--help"] for name in SCRIPTS),
]

# Arguments that a script refuses before it looks for anything to install, and words of its answer.
REFUSED_AT_ONCE = [
    ("cluster", "", "start, status or stop"),
    ("cluster", "stat", "start, status or stop"),
    ("sentinel", "", "start, status or stop"),
    ("sentinel", "--port 7000", "start, status or stop"),
    ("run", "0", "port 0 "),
    ("run", "70000", "port 70000 "),
    ("run", "123456", "'123456'"),
    ("run", "6379 6380", "'6380'"),
    ("run", "--demmo", "'--demmo'"),
    ("fuzz", "soon", "'soon'"),
    ("fuzz", "0", "'0'"),
    ("fuzz", "1 2", "'1 2'"),
    ("lint", "src", "no arguments"),
    ("licenses", "html", "no arguments"),
    ("setup", "", "which kind of work"),
    ("setup", "tset", "'tset'"),
    ("package", "rpm", "'rpm'"),
    ("package", "deb --fast", "'--fast'"),
]
# Those that it refuses when the tests' own Python is there.
REFUSED = [
    ("cluster", "start --port 0", "--port 0 "),
    ("cluster", "start --port 70000", "--port 70000 "),
    ("cluster", "start --port 55531", "between 1 and 55530"),  # the last bus port would be 65536
    ("cluster", "start --port x", "'x'"),
    ("cluster", "status --port 7000", "--port"),
    ("sentinel", "start --port 65531", "between 1 and 65530"),
    ("sentinel", "start --port -1", "--port"),
    ("sentinel", "stop --all", "--all"),
    ("bench", "latencies", "latencies"),
    ("watch", "--interval 0", "--interval"),
    ("watch", "--url http://localhost", "scheme"),
    ("watch", "web more", "more"),
    ("bench", "--only (", "--only ("),
]


def call(*command, path=os.environ["PATH"], **more):
    """Run a script to its end."""
    name, *arguments = command
    return subprocess.run(
        [ROOT / "scripts" / name, *arguments],
        env=os.environ | {"PATH": str(path)} | more,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def bare(tmp_path):
    """A folder of programs on which nothing can be installed: what would do it only leaves a note."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in "bash", "cat", "cmp", "dirname", "env", "sed", "tail", "test":
        (folder / program).symlink_to(shutil.which(program))
    for program in "apt-get", "sudo", "cargo", "python3", "npm", "tar", "cc":
        (folder / program).write_text('#!/bin/sh\necho "$0 $*" >>"${0%/*}/called"\nexit 1\n')
        (folder / program).chmod(0o755)
    yield folder
    assert not (folder / "called").exists(), (folder / "called").read_text()


def one_line(done, word):
    """It failed, and said why in one line, which names the script."""
    assert done.returncode != 0 and done.stdout == ""
    assert re.fullmatch(r"scripts/\w+: .+\n", done.stderr) and word in done.stderr, done.stderr


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_is_printed_and_nothing_else_happens(bare, command):
    done = call(*command, path=bare)
    assert (done.returncode, done.stderr) == (0, "")
    usage, rest = done.stdout.split("\n", 1)
    assert usage.startswith(f"usage: scripts/{command[0]}") and len(rest) > 50
    assert not re.search(r"^#|set -", rest, re.MULTILINE)


@pytest.mark.parametrize("name, arguments, word", REFUSED_AT_ONCE)
def test_wrong_arguments_are_refused_before_anything_is_installed(bare, name, arguments, word):
    one_line(call(name, *arguments.split(), path=bare), word)


@pytest.fixture(scope="module")
def set_up():
    """All is installed that scripts install first, and they have nothing to say about that any more."""
    done = subprocess.run([ROOT / "scripts" / "setup", "run", "test", "watch", "bench"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.usefixtures("set_up")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name, arguments, word", REFUSED)
def test_wrong_arguments_are_refused_by_one_line(tmp_path, name, arguments, word):
    folder = [] if name in ("bench", "watch") else ["--folder", tmp_path / "nodes"]
    one_line(call(name, *arguments.split(), *folder), word)
    assert not (tmp_path / "nodes").exists()


@pytest.mark.parametrize("name", ["build", "test"])
def test_arguments_for_another_program_are_refused_by_that(name):
    done = call(name, "--bogus")
    assert done.returncode != 0 and done.stdout == "" and "--bogus" in done.stderr


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one_line(call("run", str(port)), f"port {port} is taken")


def test_run_says_last_which_port_it_took(binary):
    """Where the usual port is taken. What it leaves running ends with it."""
    with suppress(OSError), closing(socket.create_server(("127.0.0.1", 6379))):
        assert said_last(binary, []) != 6379
    port = free_port()
    assert said_last(binary, [str(port)]) == port
    assert is_free(port)


def said_last(binary, arguments):
    """The port in the last lines of scripts/run, before it waits; a server picks there."""
    command = [*BOUND[:-1], "TERM", ROOT / "scripts" / "run", *arguments]
    more = {"REDIS_SERVER": str(binary.path), "REDIS_LB_MODULE": str(module())}
    with subprocess.Popen(
        command, env=environment(binary.path) | more, stdout=subprocess.PIPE, text=True
    ) as run:
        lines = []
        for line in run.stdout:
            lines.append(line)
            if "redis-cli -p" in line:
                break
        port = int(re.search(r"redis-cli -p (\d+) LB.PICK web", lines[-1])[1])
        assert (f"6379 is taken, so this server listens on port {port}." in lines[-2]) == (not arguments)
        with redis.Redis(port=port, decode_responses=True) as client:
            assert client.execute_command("LB.PICK", "web").startswith("10.0.0.")
        run.terminate()
        assert "Ready to accept connections" not in run.stdout.read(), "the log of its start follows"
    assert run.returncode == 0
    return port


@pytest.mark.parametrize("name", ["cluster", "sentinel"])
def test_a_loss_is_not_called_well(tmp_path, name):
    folder = tmp_path / "nodes"
    at = ["--folder", folder]
    library = {"REDIS_LB_MODULE": str(module())}

    def told():
        done = call(name, "status", *at)
        return done.returncode, done.stdout.splitlines()[-1]

    try:
        started = call(name, "start", *at, **library)
        assert started.returncode == 0, started.stderr
        # A node that has just stood still for seconds may be missed for a moment.
        eventually(lambda: told() == (0, "all is well"))
        last = max(folder.iterdir())
        if name == "cluster":  # sentinels ask one another, which takes half a minute in vain
            os.kill(process(last), signal.SIGSTOP)
            hung = told()
            assert hung[0] == 1 and f"127.0.0.1:{last.name} does not answer" in hung[1]
        os.kill(process(last), signal.SIGKILL)
        eventually(lambda: process(last) is None)
        ended = told()
        assert ended[0] == 1 and f"127.0.0.1:{last.name} does not run" in ended[1]
        shutil.rmtree(last)
        lost = told()
        assert lost[0] == 1 and lost[1].endswith(f"1 of 6 folders are gone from {folder}")
    finally:
        assert call(name, "stop", *at).returncode == 0
