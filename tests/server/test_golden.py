"""What earlier releases wrote is read, and replayed, to what it was then (tests/data/golden)."""

import json
import shutil
from pathlib import Path

import pytest

from golden import told
from pools import Pools
from server import eventually

RELEASES = sorted(path.parent for path in Path(__file__).parents[1].glob("data/golden/*/expected.json"))


def assert_as_recorded(server, release):
    pools = Pools(server)
    recorded = json.loads((release / "expected.json").read_text())
    assert pools.ask("DBSIZE") == len(recorded)
    for key, then in recorded.items():
        now = told(pools, bytes.fromhex(key))
        # An older release has told less.
        assert {what: now[what] for what in then} == then, key


def test_there_are_releases():
    assert RELEASES


of_each_release = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
each_file = pytest.mark.parametrize(
    ("file", "as_file", "appendonly"),
    [
        ("dump.rdb", "dump.rdb", "no"),
        ("stream.aof", "appendonly.aof", "yes"),
        ("rewritten.aof", "appendonly.aof", "yes"),
    ],
)


@of_each_release
@each_file
def test_a_file_of_a_release_is_loaded(new_server, tmp_path, release, file, as_file, appendonly):
    shutil.copy(release / file, tmp_path / as_file)
    settings = {"appendonly": appendonly, "module_args": ["clock", "manual"]}
    assert_as_recorded(new_server(folder=tmp_path, **settings), release)


@of_each_release
@each_file
def test_a_file_of_a_release_is_loaded_where_time_goes_on(
    new_server, tmp_path, release, file, as_file, appendonly
):
    """On a replica whose primary is away all is as it was. When it is promoted, years have gone by."""
    shutil.copy(release / file, tmp_path / as_file)
    server = new_server(folder=tmp_path, appendonly=appendonly, replicaof="127.0.0.1 1")
    pools = Pools(server)
    recorded = json.loads((release / "expected.json").read_text())
    assert {key: pools.digest(bytes.fromhex(key))[0] for key in recorded} == {
        key: then["digest"] for key, then in recorded.items()
    }
    pools.ask("REPLICAOF NO ONE")
    for key in map(bytes.fromhex, recorded):
        eventually(lambda key=key: not pools.ask([b"LB.LEASES", key]))
        eventually(lambda key=key: pools.ask([b"LB.WHEN", key])[0] in (b"available", b"empty"))


@of_each_release
def test_a_stream_of_a_release_is_followed(manual, release):
    """The commands as a replica of an old primary gets them, sent by a client."""
    stream = (release / "stream.aof").read_bytes()
    pools = Pools(manual)
    pools.send(stream + b"PING\r\n")
    while pools.read() != "PONG":
        pass
    pools.ask("SELECT 0")
    assert_as_recorded(manual, release)
