"""What earlier releases wrote is read, and replayed, to what it was then (tests/data/golden)."""

import json
import shutil
from pathlib import Path

import pytest

from test_persistence import ALGORITHMS, Pools

RELEASES = sorted(path.parent for path in Path(__file__).parents[1].glob("data/golden/*/expected.json"))


def told(pools, key):
    """What a pool comes down to, and which of its members the next 50 picks of each algorithm are."""
    members = pools.ask([b"LB.LIST", key])
    (digest,) = pools.digest(key)
    picks = [pools.ask([b"LB.PICK", key, by, b"COUNT", b"50"]) for by in ALGORITHMS]
    return {"digest": digest, "picks": [[members.index(name) for name in some] for some in picks]}


def assert_as_recorded(server, release):
    pools = Pools(server)
    recorded = json.loads((release / "expected.json").read_text())
    assert pools.ask("DBSIZE") == len(recorded)
    for key, then in recorded.items():
        assert told(pools, bytes.fromhex(key)) == then, key


def test_there_are_releases():
    assert RELEASES


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
@pytest.mark.parametrize(
    ("file", "as_file", "appendonly"),
    [
        ("dump.rdb", "dump.rdb", "no"),
        ("stream.aof", "appendonly.aof", "yes"),
        ("rewritten.aof", "appendonly.aof", "yes"),
    ],
)
def test_a_file_of_a_release_is_loaded(new_server, tmp_path, release, file, as_file, appendonly):
    shutil.copy(release / file, tmp_path / as_file)
    assert_as_recorded(new_server(folder=tmp_path, appendonly=appendonly), release)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_a_stream_of_a_release_is_followed(server, release):
    """The commands as a replica of an old primary gets them, sent by a client."""
    stream = (release / "stream.aof").read_bytes()
    pools = Pools(server)
    pools.send(stream + b"PING\r\n")
    while pools.read() != "PONG":
        pass
    pools.ask("SELECT 0")
    assert_as_recorded(server, release)
