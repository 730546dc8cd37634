"""The fixtures of the tests that run against real servers.

Fixtures
    server      a running `Server` with the module, shared by all tests, empty at the start of each.
                Whoever changes its CONFIG changes it back; whoever restarts or kills takes `new_server`.
    manual      as `server`, but in its pools nobody moves the clock save LB.TICK: so answers are exact.
    client      a client of it: `client.execute_command("LB.PICK web wrr COUNT 3") == ["a", "a", "b"]`.
                It answers str; `server.client(decode_responses=False)` answers bytes, `protocol=3` speaks
                RESP3. (redis-py splits the first argument at blanks: give odd names as further arguments.)
    lb          sends a command that is written as one line to `manual`: `lb("LB.PICK web LEASE 500")`.
                There is a pool `web` (a 5, b 3, c 2, seed 1), whose clock stands at 1000 ms.
    new_server  a factory of servers of the test's own, gone when it ends:
                    primary = new_server(appendonly="yes", aof_use_rdb_preamble="no")
                    replica = new_server(replicaof=f"127.0.0.1 {primary.port}")
                    manual = new_server(module_args=["clock", "manual"])
                    plain = new_server(module=None)
                then restart(), kill(), start(), stop(), log(), client(): see server.py.
    binary      the server program itself, for the rare test that asks for its name or version.
    `from server import eventually`: wait for what takes a moment, as replication.

Markers
    @pytest.mark.needs("7.0", "COMMAND DOCS")       skips older servers; also "redis 7.4", "valkey 9.0"
    @pytest.mark.long                               runs only with REDIS_LB_LONG=1
    @pytest.mark.heavy                              with REDIS_LB_LONG=1 on all servers, else on the installed
                                                    one and the newest Valkey
    @pytest.mark.once("it counts instructions")     on the installed server only
    @pytest.mark.timeout(900)                       instead of 300 s
    @pytest.mark.usual_ports                        never beside another such test: it runs what takes the
                                                    first free port, as scripts/run does

Environment
    REDIS_LB_MODULE     the module to load; scripts/test sets it
    REDIS_LB_SERVERS    `all`, or names as `redis-7.0.15,valkey-9.1.2`; without it the installed redis-server
    REDIS_LB_LONG       1: the long tests too

A test with any of these fixtures runs once for each server chosen. A failure shows the log of every running
server, and a test after which a server has crashed fails.

Three processes
    scripts/test runs the tests in three processes; with --long or `-n 0` in one. The tests of a file for one
    server run one after the other in one process; beside them run those of another file or server.
"""

import os
from pathlib import Path

import pytest
from _pytest.nodeid import NodeId

from matrix import Matrix
from server import Server
from servers import chosen, installed, newest

OPEN: list[Server] = []


def pytest_configure(config):
    try:
        chosen()
    except LookupError as error:
        raise pytest.UsageError(str(error)) from None
    # A worker has seen a part of the tests alone.
    if not is_worker(config):
        config.pluginmanager.register(Matrix())


def is_worker(config):
    """Whether this is one of several processes that share the tests."""
    return hasattr(config, "workerinput")


def pytest_generate_tests(metafunc):
    if "binary" in metafunc.fixturenames:
        metafunc.parametrize("binary", chosen(), ids=lambda binary: binary.name, scope="session")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if is_worker(config):
            # What xdist 3.8 does for its marker xdist_group; but pytest 9.2 does not look where it writes.
            item._id = NodeId.parse(f"{item.nodeid}@{group(item)}")
        if item.get_closest_marker("long") and os.environ.get("REDIS_LB_LONG") != "1":
            item.add_marker(pytest.mark.skip(reason="long: set REDIS_LB_LONG=1"))
        binary = binary_of(item)
        if item.get_closest_marker("heavy") and os.environ.get("REDIS_LB_LONG") != "1":
            if binary not in [None, installed(), newest("valkey")]:
                item.add_marker(pytest.mark.skip(reason="heavy: set REDIS_LB_LONG=1"))
        for marker in item.iter_markers("once"):
            if binary not in [None, installed()]:
                item.add_marker(pytest.mark.skip(reason=marker.args[0]))
        for marker in item.iter_markers("needs"):
            version, why = marker.args
            if binary and not binary.satisfies(version):
                item.add_marker(pytest.mark.skip(reason=f"needs {version}: {why}"))
    if is_worker(config):
        # Short groups come last, so that all processes end at about the same time.
        items.sort(key=runs_late)


def group(item):
    """The name of the tests that run in one process, in their order."""
    if item.get_closest_marker("usual_ports"):
        return "usual ports"
    binary = binary_of(item)
    # What runs on one server and what runs on none may share what they make.
    return f"{item.path.stem} {binary.name if binary else installed().name}"


def runs_late(item):
    """Whether it belongs to the shorter groups: those of servers on which heavy tests do not run."""
    return binary_of(item) not in [None, installed(), newest("valkey")]


def binary_of(item):
    """The server program that a test runs on, if it needs one."""
    return item.callspec.params.get("binary") if hasattr(item, "callspec") else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    if report.failed:
        report.sections += [(f"log of {server}", server.log_tail()) for server in OPEN]
    return report


def module() -> Path:
    """The module that this build made."""
    path = os.environ.get("REDIS_LB_MODULE")
    if not path:
        pytest.fail("REDIS_LB_MODULE does not name the module: run scripts/test", pytrace=False)
    return Path(path).absolute()


@pytest.fixture(scope="session")
def shared_server(binary):
    yield from until_closed(Server(binary, module()))


@pytest.fixture(scope="session")
def shared_manual_server(binary):
    yield from until_closed(Server(binary, module(), ["clock", "manual"]))


def until_closed(server):
    OPEN.append(server)
    yield server
    OPEN.remove(server)
    server.close()


@pytest.fixture
def server(shared_server):
    yield from emptied(shared_server)


@pytest.fixture
def manual(shared_manual_server):
    yield from emptied(shared_manual_server)


def emptied(server):
    if not server.alive():
        server.port = None  # another one may have its old port
        server.start()
    server.client().flushall()
    yield server
    assert server.alive(), f"{server} ended during this test"


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture
def lb(manual):
    with manual.client() as client:
        client.execute_command("LB.ADD web a 5 b 3 c 2")
        client.execute_command("LB.SEED web 1")
        client.execute_command("LB.TICK web 1000")
        yield client.execute_command


@pytest.fixture
def new_server(binary):
    mine: list[Server] = []

    def start(module=module, **options) -> Server:
        server = Server(binary, module() if callable(module) else module, **options)
        mine.append(server)
        OPEN.append(server)
        return server.start()

    yield start
    crashes = [f"{server} crashed:\n{server.log_tail()}" for server in mine if server.crashed()]
    for server in mine:
        OPEN.remove(server)
        server.close()
    if crashes:
        pytest.fail("\n".join(crashes), pytrace=False)
