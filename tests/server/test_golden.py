"""What earlier releases wrote is read, and replayed, to what it was then (tests/data/golden)."""

import json
import shutil
from pathlib import Path

import pytest

from server import eventually
from test_persistence import ALGORITHMS, Pools

RELEASES = sorted(path.parent for path in Path(__file__).parents[1].glob("data/golden/*/expected.json"))


def told(pools, key):
    """What a pool comes down to, which of its members the next picks are, and what becomes of it in time."""
    members = pools.ask([b"LB.LIST", key])
    (digest,) = pools.digest(key)

    def picks(*by):
        return [members.index(name) for name in pools.ask([b"LB.PICK", key, *by])]

    told = {"digest": digest, "picks": [picks(by, b"COUNT", b"50") for by in ALGORITHMS]}
    told["by load"] = [picks(by, b"COUNT", b"20") for by in (b"lc", b"p2c")]
    told["later"] = []
    # Tokens come back, leases end, one backend after the other is free again; and in the end all are.
    for time in b"5001", b"5100", b"20000", b"999999":
        pools.ask([b"LB.TICK", key, time])
        told["later"].append([picks(b"COUNT", b"9"), *pools.digest(key)])
    return told


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
