"""Each command of the module: what it answers, and what it does to the pool."""

import itertools
from collections import Counter
from unittest.mock import ANY

import pytest
import redis

from wire import Refused, Wire, pack, words

# A pool of one backend `a` with weight 5, as LB.LOAD takes it. The format is described in src/lb/codec.rs.
PAYLOAD = b"\x01" + bytes([1, 2, 0, 0, 0, 1]) + b"\x01a" + bytes([5, 0, 0, 0])

A = {b"weight": 5, b"state": b"up", b"picks": 0}
B = {b"weight": 1, b"state": b"up", b"picks": 0}
INFO = {b"policy": b"wrr", b"backends": 3, b"available": 3, b"total-weight": 7, b"picks": 0}
INFO |= {b"rules-version": 1, b"bytes": ANY}

# What each command answers about the pool `web` with a 5, b 1, c 1. `str` is a simple string, `bytes` a bulk string,
# `dict` a map.
REPLIES = [
    ("LB.ADD web d 2 e 3", 2),
    ("LB.SET web a 5 d 1", 3),
    ("LB.REM web a b x", 2),
    ("LB.WEIGHT web a", 5),
    ("LB.WEIGHT web x", None),
    ("LB.WEIGHT web a 2 b 2", "OK"),
    ("LB.STATE web a", "up"),
    ("LB.STATE web x", None),
    ("LB.STATE web a drain", "OK"),
    ("LB.POLICY web", "wrr"),
    ("LB.POLICY web rr", "OK"),
    ("LB.LIST web", [b"a", b"b", b"c"]),
    ("LB.CARD web", 3),
    ("LB.PICK web", b"a"),
    ("LB.PICK web rr EXCLUDE 1 a", b"b"),
    ("LB.PICK web EXCLUDE 3 a b c", None),
    ("LB.PICK web COUNT 1", [b"a"]),
    ("LB.PICK web wrr COUNT 4 DISTINCT EXCLUDE 1 a", [b"b", b"c"]),
    ("LB.PICK web COUNT 2 EXCLUDE 3 a b c", []),
    ("LB.PEEK web", b"a"),
    ("LB.PEEK web EXCLUDE 3 a b c", None),
    ("LB.PEEK web rr COUNT 4", [b"a", b"b", b"c", b"a"]),
    ("LB.PEEK web COUNT 2 EXCLUDE 3 a b c", []),
    ("LB.INFO web", INFO),
    ("LB.STATS web a", A),
    ("LB.STATS web x", None),
    ("LB.STATS web", {b"a": A, b"b": B, b"c": B}),
    ("LB.SEED web 18446744073709551615", "OK"),
    ([b"LB.LOAD", b"web", PAYLOAD, b"REPLACE"], "OK"),
]

# What each command answers where there is no pool, if it does not make one.
MISSING = [
    ("LB.REM none a", 0),
    ("LB.WEIGHT none a", None),
    ("LB.WEIGHT none a 1", Refused("NOBACKEND the pool has no backend 'a': LB.ADD adds one")),
    ("LB.STATE none a", None),
    ("LB.STATE none a up", Refused("NOBACKEND the pool has no backend 'a': LB.ADD adds one")),
    ("LB.POLICY none", None),
    ("LB.POLICY none wrr", "OK"),
    ("LB.LIST none", []),
    ("LB.CARD none", 0),
    *[(f"LB.PICK none {algorithm}", None) for algorithm in ["", "rr", "wrr", "random", "wrandom"]],
    ("LB.PICK none EXCLUDE 1 a", None),
    ("LB.PICK none COUNT 2", []),
    ("LB.PEEK none", None),
    ("LB.PEEK none rr COUNT 2 DISTINCT", []),
    ("LB.INFO none", None),
    ("LB.STATS none", {}),
    ("LB.STATS none a", None),
    ("LB.SEED none 1", "OK"),
]

# The commands that make a pool.
CREATORS = ["LB.ADD none a", "LB.ADD none a 1 b 2", "LB.SET none a 1", "LB.POLICY none rr"]

OPTIONS = ["", "COUNT 25", "EXCLUDE 2 a x", "COUNT 2 DISTINCT", "COUNT 9 DISTINCT", "COUNT 9 EXCLUDE 1 b DISTINCT"]


@pytest.fixture
def lb(client):
    """Sends a command that is written as one line."""
    return client.execute_command


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def wire(request, server):
    """A bare connection of either protocol."""
    with Wire(server.port, request.param) as wire:
        wire.protocol = request.param
        wire.has_maps = request.param == 3 and server.binary.satisfies("7.0")  # 6.2 has none for modules
        yield wire


def ids(command):
    """The command as the name of its test."""
    return command if isinstance(command, str) else None


def flat(value):
    """Maps as RESP2 sends them: as arrays of keys and values in turn."""
    return [flat(x) for pair in value.items() for x in pair] if isinstance(value, dict) else value


def digest(lb, key="web"):
    """What the whole state of the pool comes down to."""
    (digest,) = lb("DEBUG", "DIGEST-VALUE", key)
    return digest


def picked(lb, count, options="", key="web"):
    """So many single picks."""
    return [lb(f"LB.PICK {key} {options}") for _ in range(count)]


# Replies


@pytest.mark.parametrize(("command", "reply"), REPLIES, ids=ids)
def test_a_command_answers_in_both_protocols(wire, command, reply):
    wire.ask("LB.ADD web a 5 b 1 c 1")
    assert wire.ask(command) == (reply if wire.has_maps else flat(reply))


@pytest.mark.parametrize(("command", "reply"), MISSING, ids=ids)
def test_a_missing_key_is_an_empty_pool_and_stays_missing(wire, command, reply):
    assert wire.ask(command) == (reply if wire.has_maps else flat(reply))
    assert wire.ask("EXISTS none") == 0


@pytest.mark.parametrize("command", ["LB.PICK none", "LB.PEEK none", "LB.WEIGHT none a", "LB.INFO none"])
def test_nil_is_the_null_of_the_protocol(wire, command):
    wire.send(pack(words(command)))
    assert wire.line() == {2: b"$-1\r\n", 3: b"_\r\n"}[wire.protocol]


@pytest.mark.parametrize("command", [command for command, _ in MISSING] + CREATORS)
def test_a_key_of_another_type_is_refused_and_kept(server, command):
    with Wire(server.port) as wire:
        wire.ask("SET none text")
        assert wire.ask(command).code == "WRONGTYPE"
        assert wire.ask("GET none") == b"text"


def test_the_tables_here_have_every_command_of_the_module(client):
    listed = {entry["name"].upper() for entry in client.command().values()}
    commands = [words(command)[0].decode() for command, _ in REPLIES]
    assert {name for name in listed if name.startswith("LB.")} == set(commands)


# The life of a pool


@pytest.mark.parametrize("command", CREATORS)
def test_a_command_that_sets_something_creates_the_pool(lb, command):
    lb(command)
    assert lb("TYPE none") == "lbpool---"


@pytest.mark.parametrize("remove", ["LB.REM web a b", "LB.REM web b x a a"])
def test_a_pool_without_backends_is_deleted(lb, remove):
    lb("LB.ADD web a 2 b 3")
    assert lb(remove) == 2
    assert lb("EXISTS web") == 0


def test_a_policy_keeps_an_empty_pool_until_it_is_the_default_again(lb):
    lb("LB.ADD web a")
    lb("LB.POLICY web rr")
    lb("LB.REM web a")
    assert [lb("LB.CARD web"), lb("LB.POLICY web"), lb("LB.PICK web"), lb("LB.LIST web")] == [0, "rr", None, []]
    lb("LB.POLICY web wrr")
    assert lb("EXISTS web") == 0


def test_del_removes_a_pool_with_its_settings(lb):
    lb("LB.ADD web a")
    lb("LB.POLICY web random")
    assert lb("DEL web") == 1
    assert lb("LB.POLICY web") is None


def test_load_puts_a_whole_pool_and_replaces_only_when_told_to(client, lb):
    assert client.execute_command("LB.LOAD", "web", PAYLOAD) == "OK"
    assert lb("LB.STATS web") == {"a": {"weight": 5, "state": "up", "picks": 0}} or lb("LB.WEIGHT web a") == 5
    for setting in ["LB.ADD other x", "SET other text"]:
        lb("DEL other")
        lb(setting)
        with pytest.raises(redis.ResponseError, match="BUSYKEY|already exists"):
            client.execute_command("LB.LOAD", "other", PAYLOAD)
        assert client.execute_command("LB.LOAD", "other", PAYLOAD, "replace") == "OK"
        assert lb("LB.LIST other") == ["a"]


# Membership, weights, states


@pytest.mark.parametrize(
    ("command", "new", "weights"),
    [
        ("LB.ADD web c", 1, {"a": 5, "b": 1, "c": 1}),
        ("LB.ADD web a", 0, {"a": 5, "b": 1}),
        ("LB.ADD web a 7", 0, {"a": 7, "b": 1}),
        ("LB.ADD web a 0 c 65535", 1, {"a": 0, "b": 1, "c": 65535}),
        ("LB.ADD web c 2 a 3 c 4 d 5", 2, {"a": 3, "b": 1, "c": 4, "d": 5}),
    ],
    ids=ids,
)
def test_add_counts_the_new_ones_and_gives_the_others_the_weight(lb, command, new, weights):
    lb("LB.ADD web a 5 b 1")
    assert lb(command) == new
    assert {backend: lb("LB.WEIGHT", "web", backend) for backend in lb("LB.LIST web")} == weights


def test_backends_are_listed_in_order_of_addition(lb):
    for backend in "cab":
        lb(f"LB.ADD web {backend}")
    lb("LB.ADD web a 7")
    assert lb("LB.LIST web") == ["c", "a", "b"]
    lb("LB.REM web c")
    lb("LB.ADD web c")
    assert lb("LB.LIST web") == ["a", "b", "c"]


def test_set_keeps_place_credit_and_counters_of_those_who_stay(lb):
    lb("LB.ADD web a 5 b 1 c 1")
    assert picked(lb, 3) == ["a", "a", "b"]
    before = digest(lb)
    assert lb("LB.SET web c 1 b 1 a 5") == 0
    assert digest(lb) == before
    assert lb("LB.SET web c 1 d 1 a 5") == 2
    assert lb("LB.LIST web") == ["a", "c", "d"]
    # Credits are a 1, c 3, d 0: nginx goes on with them.
    assert picked(lb, 4) == ["a", "c", "a", "d"] or digest(lb)
    with_resp3 = lb("LB.STATS web a")
    assert dict(with_resp3)["picks"] if isinstance(with_resp3, dict) else with_resp3


def test_set_gives_those_who_stay_their_new_weight(lb):
    lb("LB.ADD web a 5 b 1")
    assert lb("LB.SET web b 9 a 5 b 3") == 0
    assert [lb("LB.LIST web"), lb("LB.WEIGHT web b")] == [["a", "b"], 3]
