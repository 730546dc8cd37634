"""Each command of the module: what it answers, and what it does to the pool."""

from collections import Counter
from unittest.mock import ANY

import pytest
import redis

from algorithms import ALGORITHMS, FORESEEABLE
from model import PAYLOAD
from wire import Refused, Wire, pack, words

UNLIMITED = {b"max": 0, b"rate": 0, b"rate-ms": 0, b"burst": 0, b"tokens": 0}
A = {b"weight": 5, b"running-weight": b"5", b"state": b"up", b"health": b"ok", b"back-in-ms": -1}
A |= {b"picks": 0, b"leases": 0, b"done": 0, b"failures": 0, b"failures-in-a-row": 0, b"ejections": 0}
A |= {b"expired": 0} | UNLIMITED | {b"tier": 0}
A |= {b"latency-us": 0, b"latency-sum-us": 0, b"latencies": 0, b"sessions": 0, b"load": b"0"}
B = A | {b"weight": 1, b"running-weight": b"1"}
INFO = {b"policy": b"wrr", b"backends": 3, b"available": 3, b"total-weight": 7, b"picks": 0, b"leases": 0}
INFO |= UNLIMITED | {
    b"waiting": 0,
    b"oldest-wait-ms": 0,
    b"refused": 0,
    b"ejected": 0,
    b"cooling": 0,
    b"held": 0,
    b"balance": 0,
    b"sessions": 0,
    b"clock": 0,
    b"rules-version": 1,
    b"bytes": ANY,
}

HEALTH = {b"fails": 0, b"failrate": 0, b"min": 20, b"window": 5000, b"eject": 5000, b"maxeject": 50}
HEALTH |= {b"slowstart": 0, b"adapt": 0}
QUEUE = {b"max": 0, b"order": b"fifo", b"waiting": 0, b"oldest-wait-ms": 0}

# What each command answers about the pool `web` with a 5, b 1, c 1. `str` is a simple string, `bytes` a bulk
# string, `dict` a map.
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
    ("LB.PICK web STICKY s 500", b"a"),
    ("LB.PICK web rr STICKY s 500 STRICT COUNT 1", [b"a"]),
    ("LB.PICK web STICKY s 500 STRICT EXCLUDE 3 a b c", None),
    ("LB.PEEK web STICKY s", b"a"),
    ("LB.PEEK web rr STICKY s COUNT 1 EXCLUDE 1 a", [b"b"]),
    ("LB.FORGET web s", 0),
    ("LB.PEEK web", b"a"),
    ("LB.PEEK web EXCLUDE 3 a b c", None),
    ("LB.PEEK web rr COUNT 4", [b"a", b"b", b"c", b"a"]),
    ("LB.PEEK web COUNT 2 EXCLUDE 3 a b c", []),
    ("LB.INFO web", INFO),
    ("LB.STATS web a", A),
    ("LB.STATS web x", None),
    ("LB.STATS web", {b"a": A, b"b": B, b"c": B}),
    ("LB.PEEK web ewma COUNT 3", [b"a", b"a", b"a"]),
    ("LB.PEEK web ewma", b"a"),
    ("LB.PICK web hash item", b"a"),
    ("LB.PICK web hash x", b"c"),
    ("LB.PICK web Hash COUNT", b"a"),
    ("LB.PICK web hash x COUNT 3 DISTINCT", [b"c", b"a", b"b"]),
    ("LB.PICK web hash x EXCLUDE 3 a b c", None),
    ("LB.PEEK web hash x", b"c"),
    ("LB.PEEK web hash x COUNT 2", [b"c", b"c"]),
    ("LB.REPORT web a", 1),
    ("LB.REPORT web a FAIL LATENCY 1500 LOAD 0.75 COOL 1000", 1),
    ("LB.REPORT web x OK", 0),
    ("LB.REPORT web a OK LEFT tokens 5", 1),
    ("LB.PICK web lc COSTS 2 tokens 5 images 1", b"a"),
    ("LB.LIMIT web EACH MAX 3 COST tokens 9 100", "OK"),
    ("LB.WHEN web COSTS 1 tokens 5", [b"available", 0]),
    ("LB.HEALTH web", HEALTH),
    ("LB.HEALTH web FAILS 5 FAILRATE 50 MIN 9 WINDOW 100 EJECT 1000 MAXEJECT 9 SLOWSTART 7 ADAPT 8", "OK"),
    ("LB.QUEUE web", QUEUE),
    ("LB.QUEUE web MAX 100 ORDER fair", "OK"),
    ("LB.PICK web EXCLUDE 3 a b c BLOCK 1 PRIO 7 FOR t", None),
    ("LB.SEED web 18446744073709551615", "OK"),
    ([b"LB.LOAD", b"web", PAYLOAD, b"REPLACE"], "OK"),
]

# The same of the pool `web` that `lease_out` makes.
LEASE_1 = {b"lease": b"7-1", b"backend": b"a", b"owner": b"o", b"age": 0, b"remaining": 510}
LEASE_2 = {b"lease": b"7-2", b"backend": b"b", b"owner": None, b"age": 0, b"remaining": 100}
LIMITED = {b"max": 3, b"rate": 2, b"rate-ms": 100, b"burst": 4, b"tokens": 4}
LEASED_REPLIES = [
    ("LB.PICK web LEASE 500", [b"c", b"7-3"]),
    ("LB.PICK web ewma LEASE 500", [b"a", b"7-3"]),
    ("LB.PICK web hash item LEASE 500", [b"a", b"7-3"]),
    ("LB.PICK web hash item COUNT 2 LEASE 500 OWNER o", [[b"a", b"7-3"], [b"a", b"7-4"]]),
    ("LB.PICK web COUNT 2 LEASE 500 OWNER o", [[b"c", b"7-3"], [b"a", b"7-4"]]),
    ("LB.PICK web lc LEASE 500 COUNT 2", [[b"a", b"7-3"], [b"a", b"7-4"]]),
    ("LB.PICK web LEASE 500 EXCLUDE 3 a b c", None),
    ("LB.PICK web LEASE 500 COUNT 2 EXCLUDE 3 a b c", []),
    ("LB.PICK web STICKY s 500 LEASE 500", [b"b", b"7-3"]),
    ("LB.PICK web STICKY s 500 STRICT EXCLUDE 1 b", None),
    ("LB.PICK web STICKY s 500 EXCLUDE 1 b", b"c"),
    ("LB.PEEK web rr STICKY s", b"b"),
    ("LB.FORGET web s", 1),
    ("LB.FORGET web nobody", 0),
    ("LB.PICK web lc", b"a"),
    ("LB.PICK web p2c EXCLUDE 1 a", b"c"),
    ("LB.PEEK web lc COUNT 2 DISTINCT", [b"a", b"c"]),
    ("LB.DONE web 7-1", 1),
    ("LB.DONE web 7-2 FAIL LATENCY 1500", 1),
    ("LB.DONE web 7-1 OK LATENCY 1500 LOAD 1.5 COOL 1000", 1),
    ("LB.DONE web 7-1 OK COSTS 1 tokens 5", 1),
    ("LB.DONE web 7-3 OK COSTS 1 tokens 5", 0),
    ("LB.DONE web 7-3 OK COOL 1000", 0),
    ("LB.DONE web 7-3", 0),
    ("LB.DONE web nonsense", 0),
    ("LB.RENEW web 7-1 1", 1),
    ("LB.RENEW web 7-0 1", 0),
    ("LB.RELEASE web OWNER o", 1),
    ("LB.RELEASE web OWNER nobody", 0),
    ("LB.LEASES web", [LEASE_1, LEASE_2]),
    ("LB.LEASES web COUNT 1", [LEASE_1]),
    ("LB.LEASES web BACKEND b", [LEASE_2]),
    ("LB.LEASES web BACKEND x", []),
    ("LB.LEASES web OWNER o", [LEASE_1]),
    ("LB.LIMIT web", {b"max": 9}),
    ("LB.LIMIT web BALANCE 125", "OK"),
    ("LB.LIMIT web BALANCE 0 MAX 0", "OK"),
    ("LB.LIMIT web BACKEND a", {b"max": 3, b"rate": 2, b"rate-ms": 100, b"burst": 4}),
    ("LB.LIMIT web BACKEND c", {}),
    ("LB.LIMIT web EACH", {}),
    ("LB.LIMIT web BACKEND x", None),
    ("LB.LIMIT web BACKEND a MAX 1 TIER 1", "OK"),
    ("LB.WHEN web", [b"available", 0]),
    ("LB.TICK web 1100", "OK"),
    ("LB.TICK web 1", "OK"),
    ("LB.EPOCH web 18446744073709551615", "OK"),
    ("LB.RULES web 2", "OK"),
    ("LB.STATS web a", A | LIMITED | {b"picks": 2, b"leases": 1, b"done": 1}),
    ("LB.STATS web b", B | {b"picks": 2, b"leases": 1, b"sessions": 1}),
    ("LB.INFO web", INFO | {b"picks": 4, b"leases": 2, b"max": 9, b"clock": 1000, b"sessions": 1}),
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
    *[(f"LB.PICK none {algorithm}", None) for algorithm in ["", *ALGORITHMS, "hash item"]],
    ("LB.PICK none EXCLUDE 1 a", None),
    ("LB.PICK none COUNT 2", []),
    ("LB.PICK none LEASE 5", None),
    ("LB.PICK none COUNT 2 LEASE 5 OWNER o", []),
    ("LB.PICK none STICKY s 5", None),
    ("LB.PICK none STICKY s 5 STRICT COUNT 1", []),
    ("LB.PEEK none STICKY s", None),
    ("LB.FORGET none s", 0),
    ("LB.PEEK none", None),
    ("LB.PEEK none rr COUNT 2 DISTINCT", []),
    ("LB.INFO none", None),
    ("LB.STATS none", {}),
    ("LB.STATS none a", None),
    ("LB.SEED none 1", "OK"),
    ("LB.DONE none 7-1", 0),
    ("LB.RENEW none 7-1 5", 0),
    ("LB.RELEASE none OWNER o", 0),
    ("LB.LEASES none", []),
    ("LB.LIMIT none", {}),
    ("LB.LIMIT none BACKEND a", None),
    ("LB.LIMIT none BACKEND a MAX 1", Refused("NOBACKEND the pool has no backend 'a': LB.ADD adds one")),
    ("LB.LIMIT none MAX 0 RATE 0 0", "OK"),
    ("LB.REPORT none a FAIL COOL 9", 0),
    ("LB.HEALTH none", HEALTH),
    ("LB.HEALTH none FAILS 0 FAILRATE 0 SLOWSTART 0 ADAPT 0", "OK"),
    ("LB.QUEUE none", QUEUE),
    ("LB.QUEUE none MAX 0 ORDER fifo", "OK"),
    ("LB.WHEN none", [b"empty", -1]),
    ("LB.TICK none 1", "OK"),
    ("LB.EPOCH none 1", "OK"),
    ("LB.RULES none 2", "OK"),
]

# The commands that make a pool.
CREATORS = ["LB.ADD none a", "LB.ADD none a 1 b 2", "LB.SET none a 1", "LB.POLICY none rr"]
CREATORS += [
    "LB.LIMIT none MAX 1",
    "LB.LIMIT none RATE 1 1000",
    "LB.HEALTH none FAILS 5",
    "LB.HEALTH none ADAPT 9",
    "LB.QUEUE none MAX 1",
    "LB.QUEUE none ORDER fair",
]

OPTIONS = [
    "",
    "COUNT 25",
    "EXCLUDE 2 a x",
    "COUNT 2 DISTINCT",
    "COUNT 9 DISTINCT",
    "COUNT 9 EXCLUDE 1 b DISTINCT",
]


@pytest.fixture
def lb(client):
    """Sends a command that is written as one line."""
    return client.execute_command


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def wire(request, server):
    """A bare connection of either protocol."""
    yield from connected(server, request.param)


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def leased(request, manual):
    """The same to a server in which only LB.TICK moves clocks, with some leases."""
    for wire in connected(manual, request.param):
        lease_out(wire)
        yield wire


def connected(server, protocol):
    with Wire(server.port, protocol) as wire:
        wire.protocol = protocol
        wire.has_maps = protocol == 3 and server.binary.satisfies("7.0")  # 6.2 has none for modules
        yield wire


def lease_out(wire):
    """At 1000 ms a pool with limits gets the leases 7-1 and 7-2."""
    wire.ask("LB.ADD web a 5 b 1 c 1")
    wire.ask("LB.SEED web 1")
    wire.ask("LB.TICK web 1000")
    # The first lease gets an epoch of the server's own.
    _, lease = wire.ask("LB.PICK web LEASE 1")
    wire.ask([b"LB.DONE", b"web", lease])
    wire.ask("LB.EPOCH web 7")
    wire.ask("LB.PICK web LEASE 500 OWNER o")
    wire.ask("LB.PICK web EXCLUDE 1 a LEASE 90")
    wire.ask("LB.LIMIT web MAX 9")
    wire.ask("LB.LIMIT web BACKEND a MAX 3 RATE 2 100 BURST 4")
    wire.ask("LB.PICK web EXCLUDE 2 a c STICKY s 500")


def ids(command):
    """The command as the name of its test."""
    return command if isinstance(command, str) else None


def flat(value):
    """Maps as RESP2 sends them: as arrays of keys and values in turn."""
    if isinstance(value, dict):
        value = [x for pair in value.items() for x in pair]
    return [flat(x) for x in value] if isinstance(value, list) else value


def digest(lb):
    """What the whole state of the pool comes down to."""
    return lb("DEBUG DIGEST-VALUE web")


def picks(lb, count, options=""):
    """So many single picks, in one word: the backends here have names of one letter."""
    return "".join(lb(f"LB.PICK web {options}") for _ in range(count))


def weights(lb):
    """The backends in order of addition, with their weights."""
    return {backend: lb(f"LB.WEIGHT web {backend}") for backend in lb("LB.LIST web")}


# Replies


@pytest.mark.parametrize(("command", "reply"), REPLIES, ids=ids)
def test_a_command_answers_in_both_protocols(wire, command, reply):
    wire.ask("LB.ADD web a 5 b 1 c 1")
    assert wire.ask(command) == (reply if wire.has_maps else flat(reply))


@pytest.mark.parametrize(("command", "reply"), LEASED_REPLIES, ids=ids)
def test_a_command_answers_where_leases_are_open(leased, command, reply):
    assert leased.ask(command) == (reply if leased.has_maps else flat(reply))


@pytest.mark.parametrize(("command", "reply"), LEASED_REPLIES, ids=ids)
def test_a_command_answers_the_same_in_transactions_and_scripts(manual, command, reply):
    script = b"return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"
    name, key, *rest = words(command)
    with Wire(manual.port) as wire:
        lease_out(wire)
        assert [wire.ask("MULTI"), wire.ask(command), *wire.ask("EXEC")] == ["OK", "QUEUED", flat(reply)]
        wire.ask("FLUSHALL")
        lease_out(wire)
        assert wire.ask([b"EVAL", script, b"1", key, name, *rest]) == flat(reply)


@pytest.mark.parametrize(("command", "reply"), MISSING, ids=ids)
def test_a_missing_key_is_an_empty_pool_and_stays_missing(wire, command, reply):
    assert wire.ask(command) == (reply if wire.has_maps else flat(reply))
    assert wire.ask("EXISTS none") == 0


@pytest.mark.parametrize(
    "command",
    [
        "LB.PICK none",
        "LB.PEEK none",
        "LB.PICK none LEASE 5",
        "LB.WEIGHT none a",
        "LB.INFO none",
        "LB.LIMIT none BACKEND a",
    ],
)
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
    commands = [words(command)[0].decode() for command, _ in REPLIES + LEASED_REPLIES]
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
    asked = [lb(command) for command in ["LB.CARD web", "LB.LIST web", "LB.PICK web", "LB.POLICY web"]]
    assert asked == [0, [], None, "rr"]
    lb("LB.POLICY web wrr")
    assert lb("EXISTS web") == 0


def test_a_limit_of_the_pool_keeps_it_until_there_is_none(lb):
    lb("LB.ADD web a")
    lb("LB.LIMIT web MAX 3 RATE 5 1000")
    lb("LB.REM web a")
    lb("LB.LIMIT web MAX 0")
    assert (lb("LB.CARD web"), lb("EXISTS web")) == (0, 1)
    lb("LB.LIMIT web RATE 0 0")
    assert lb("EXISTS web") == 0


def test_the_settings_of_a_queue_keep_the_pool_until_they_are_the_default(lb):
    lb("LB.ADD web a")
    lb("LB.QUEUE web MAX 3 ORDER fair")
    lb("LB.REM web a")
    lb("LB.QUEUE web MAX 0")
    assert (lb("LB.CARD web"), lb("EXISTS web")) == (0, 1)
    lb("LB.QUEUE web ORDER fifo")
    assert lb("EXISTS web") == 0


def test_del_removes_a_pool_with_its_settings(lb):
    lb("LB.ADD web a")
    lb("LB.POLICY web random")
    assert lb("DEL web") == 1
    assert lb("LB.POLICY web") is None


@pytest.mark.parametrize("there", ["LB.ADD web x 1 y 2", "SET web text"])
def test_load_replaces_what_is_there_only_when_told_to(lb, there):
    lb(there)
    with pytest.raises(redis.ResponseError, match="^BUSYKEY"):
        lb("LB.LOAD", "web", PAYLOAD)
    lb("LB.LOAD", "web", PAYLOAD, "REPLACE")
    assert weights(lb) == {"a": 5}


# Membership, weights, states


@pytest.mark.parametrize(
    ("command", "new", "then"),
    [
        ("LB.ADD web c", 1, {"a": 5, "b": 1, "c": 1}),
        ("LB.ADD web a", 0, {"a": 5, "b": 1}),
        ("LB.ADD web a 7", 0, {"a": 7, "b": 1}),
        ("LB.ADD web a 0 c 65535", 1, {"a": 0, "b": 1, "c": 65535}),
        ("LB.ADD web c 2 a 3 c 4 d 5", 2, {"a": 3, "b": 1, "c": 4, "d": 5}),
    ],
    ids=ids,
)
def test_add_counts_the_new_ones_and_gives_the_others_the_weight(lb, command, new, then):
    lb("LB.ADD web a 5 b 1")
    assert lb(command) == new
    assert weights(lb) == then


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
    assert picks(lb, 3) == "aab"
    before = digest(lb)
    assert lb("LB.SET web c 1 b 1 a 5") == 0
    assert digest(lb) == before
    counters = lb("LB.STATS web a")
    assert lb("LB.SET web c 1 d 1 a 5") == 2
    assert lb("LB.LIST web") == ["a", "c", "d"]
    assert lb("LB.STATS web a") == counters
    # nginx goes on so with the credits a 1, c 3, d 0. From 0 it would be a a c a d a.
    assert picks(lb, 6) == "acaaad"


def test_set_gives_those_who_stay_their_new_weight(lb):
    lb("LB.ADD web a 5 b 1")
    assert lb("LB.SET web b 9 a 5 b 3") == 0
    assert weights(lb) == {"a": 5, "b": 3}


def test_weights_are_set_for_all_named_backends_or_for_none(lb):
    lb("LB.ADD web a 5 b 1")
    before = digest(lb)
    with pytest.raises(redis.ResponseError, match="^NOBACKEND .*'x'"):
        lb("LB.WEIGHT web a 9 x 1")
    assert digest(lb) == before
    lb("LB.WEIGHT web a 9 b 0 a 8")
    assert weights(lb) == {"a": 8, "b": 0}


def test_a_fall_of_a_weight_does_not_starve_its_backend(lb):
    lb("LB.ADD web a 60000 b 60000")
    assert picks(lb, 1) == "a"
    lb("LB.WEIGHT web a 1 b 1")
    assert picks(lb, 4) == "baba"


def test_a_state_takes_a_backend_out_and_puts_it_back_with_its_credit(lb):
    lb("LB.ADD web a 5 b 1 c 1")
    assert picks(lb, 1) == "a"
    for state in ["drain", "down"]:
        lb(f"LB.STATE web a {state}")
        assert lb("LB.STATE web a") == state
        assert picks(lb, 2) == "bc"
    lb("LB.STATE web a up")
    # Of the first sequence `a a b a c a a` this is what follows the first pick.
    assert picks(lb, 6) == "abacaa"


def test_a_state_of_a_backend_that_is_not_there_is_refused(lb):
    lb("LB.ADD web a")
    with pytest.raises(redis.ResponseError, match="^NOBACKEND .*'x'"):
        lb("LB.STATE web x down")


def test_weight_zero_is_picked_by_no_algorithm(lb):
    lb("LB.ADD web a 0 b 1")
    for algorithm in ALGORITHMS:
        assert picks(lb, 5, algorithm) == "bbbbb"
    lb("LB.WEIGHT web b 0")
    assert [lb(f"LB.PICK web {algorithm}") for algorithm in ALGORITHMS] == [None] * len(ALGORITHMS)


# Picking


@pytest.mark.parametrize(
    ("members", "sequence"),
    [("a 5 b 1 c 1", "aabacaa"), ("a 5 b 3 c 2", "abcaabacba"), ("a 1 b 1 c 1", "abc"), ("a 2 b 1", "aba")],
)
def test_wrr_gives_the_sequence_of_nginx_again_and_again(lb, members, sequence):
    lb(f"LB.ADD web {members}")
    assert picks(lb, 2 * len(sequence), "wrr") == 2 * sequence


def test_rr_takes_turns_whatever_the_weights(lb):
    lb("LB.ADD web a 5 b 1 c 9")
    assert picks(lb, 4, "rr") == "abca"
    lb("LB.REM web a")
    assert picks(lb, 2, "rr") == "bc"
    lb("LB.ADD web d")
    assert picks(lb, 4, "rr") == "dbcd"


def test_algorithms_do_not_disturb_each_other(lb):
    lb("LB.ADD web a 5 b 1 c 1")
    mixed = [[picks(lb, 1, algorithm) for algorithm in ALGORITHMS] for _ in range(7)]
    rr, wrr, *_ = map("".join, zip(*mixed, strict=True))
    assert (rr, wrr) == ("abcabca", "aabacaa")


def test_lc_takes_the_one_with_the_fewest_leases_for_its_weight(lb):
    lb("LB.ADD web a 2 b 1")
    leased = [lb("LB.PICK web lc LEASE 60000") for _ in range(6)]
    # (leases + 1) / weight is 1/2 and 1, then 1 and 1: b was never picked.
    assert "".join(backend for backend, _ in leased) == "abaaba"
    # 5/2 and 3.
    assert picks(lb, 3, "lc") == "aaa"
    for backend, lease in leased:
        if backend == "b":
            lb(f"LB.DONE web {lease}")
    assert picks(lb, 3, "lc") == "bbb"


def test_lc_goes_round_where_all_are_idle(lb):
    lb("LB.ADD web a 3 b 3 c 3")
    assert picks(lb, 7, "lc") == "abcabca"
    lb("LB.ADD web d 3")
    # Never picked is longest ago.
    assert picks(lb, 5, "lc") == "dbcad"


def test_p2c_takes_the_less_loaded_of_two(lb):
    lb("LB.ADD web a 2 b 1")
    lb("LB.PICK web LEASE 60000 COUNT 2 EXCLUDE 1 b")
    # 3/2 and 1/1.
    assert picks(lb, 20, "p2c") == 20 * "b"
    lb("LB.PICK web LEASE 60000 EXCLUDE 1 a")
    assert picks(lb, 20, "p2c") == 20 * "a"
    lb("LB.ADD web c 9 d 9 e 9")
    # A loaded one is taken only with another one that is loaded more: never b.
    drawn = Counter(picks(lb, 300, "p2c"))
    assert set(drawn) == set("acde")
    assert drawn["a"] < min(drawn[other] for other in "cde")


@pytest.mark.parametrize(
    ("algorithm", "shares"), [("random", [1 / 3, 1 / 3, 1 / 3]), ("wrandom", [0.5, 0.3, 0.2])]
)
def test_chance_keeps_to_the_shares(lb, algorithm, shares):
    lb("LB.ADD web a 5 b 3 c 2")
    lb("LB.SEED web 1")
    drawn = Counter(lb(f"LB.PICK web {algorithm} COUNT 10000"))
    # Five standard deviations of 10,000 draws are at most 250.
    for backend, share in zip("abc", shares, strict=True):
        assert drawn[backend] == pytest.approx(10000 * share, abs=250)


def test_a_seed_decides_what_chance_picks(lb):
    drawn = []
    for seed in [7, 7, 8]:
        lb("DEL web")
        lb("LB.ADD web a 5 b 3 c 2")
        lb(f"LB.SEED web {seed}")
        drawn.append(picks(lb, 50, "random") + picks(lb, 50, "wrandom"))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("policy", ALGORITHMS)
def test_a_pick_that_names_no_algorithm_goes_by_the_policy(lb, policy):
    for key in ["web", "other"]:
        lb(f"LB.ADD {key} a 5 b 1 c 1")
        lb(f"LB.SEED {key} 1")
    lb(f"LB.POLICY web {policy}")
    assert lb("LB.PICK web COUNT 50") == lb(f"LB.PICK other {policy} COUNT 50")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_count_answers_what_single_picks_would(lb, algorithm):
    lb("LB.ADD web a 5 b 3 c 2")
    lb("LB.SEED web 1")
    lb("COPY web other")
    many = lb(f"LB.PICK web {algorithm} COUNT 40 EXCLUDE 1 b")
    assert many == [lb(f"LB.PICK other {algorithm} EXCLUDE 1 b") for _ in range(40)]
    assert digest(lb) == lb("DEBUG DIGEST-VALUE other")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_distinct_repeats_none_and_ends_when_none_is_left(lb, algorithm):
    lb("LB.ADD web a 5 b 3 c 2 d 0")
    assert sorted(lb(f"LB.PICK web {algorithm} COUNT 10 DISTINCT")) == ["a", "b", "c"]
    assert sorted(lb(f"LB.PICK web {algorithm} COUNT 3 DISTINCT EXCLUDE 2 a x")) == ["b", "c"]
    assert len(lb(f"LB.PICK web {algorithm} COUNT 2 DISTINCT")) == 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_excluded_ones_are_passed_over_for_this_command_alone(lb, algorithm):
    lb("LB.ADD web a 2 b 2 c 2")
    lb("LB.SEED web 1")
    assert lb(f"LB.PICK web {algorithm} EXCLUDE 3 a unknown c") == "b"
    assert set(lb(f"LB.PICK web {algorithm} COUNT 40")) == {"a", "b", "c"}


@pytest.mark.parametrize("algorithm", ["", *FORESEEABLE])
@pytest.mark.parametrize("options", OPTIONS)
def test_peek_answers_what_the_next_pick_does_and_changes_nothing(lb, algorithm, options):
    lb("LB.ADD web a 5 b 3 c 2 d 1 e 0")
    lb("LB.STATE web d drain")
    for _ in range(12):
        picks(lb, 1, algorithm)
        before = digest(lb)
        foreseen = lb(f"LB.PEEK web {algorithm} {options}")
        assert digest(lb) == before
        assert lb(f"LB.PICK web {algorithm} {options}") == foreseen


@pytest.mark.parametrize("command", ["LB.PEEK web random", "LB.PEEK web p2c", "LB.PEEK web COUNT 2"])
def test_chance_cannot_be_foreseen(lb, command):
    lb("LB.ADD web a")
    lb("LB.POLICY web wrandom")
    with pytest.raises(redis.ResponseError, match="^chance"):
        lb(command)


# Words


@pytest.mark.parametrize(
    "name", [b"\0", b"\r\n", b"\xff\xfe", "Ā".encode(), b"%s%n", b"x" * 512, b" ", b"\0a"]
)
def test_names_and_keys_are_any_bytes(server, name):
    with Wire(server.port) as wire:
        assert wire.ask([b"LB.ADD", name, name, b"2", name + b"?" if len(name) < 512 else b"?", b"1"]) == 2
        assert wire.ask([b"LB.LIST", name])[0] == name
        assert wire.ask([b"LB.PICK", name, b"COUNT", b"2", b"DISTINCT"])[0] == name
        assert wire.ask([b"LB.PICK", name, b"EXCLUDE", b"1", name]) != name
        assert wire.ask([b"LB.WEIGHT", name, name]) == 2
        assert wire.ask([b"LB.STATS", name])[0] == name
        _, lease = wire.ask([b"LB.PICK", name, b"rr", b"LEASE", b"60000", b"OWNER", name])
        (listed,) = wire.ask([b"LB.LEASES", name, b"BACKEND", name, b"OWNER", name])
        assert listed[1:6:2] == [lease, name, name]
        assert wire.ask([b"LB.LIMIT", name, b"BACKEND", name, b"MAX", b"1"]) == "OK"
        assert wire.ask([b"LB.RELEASE", name, b"OWNER", name]) == 1
        assert wire.ask([b"LB.REM", name, name]) == 1


@pytest.mark.parametrize(
    ("command", "same"),
    [
        ("lb.pick web Wrr count 7", "LB.PICK web wrr COUNT 7"),
        ("Lb.Pick web rR cOUNT 5 distinct exclude 1 b", "LB.PICK web rr COUNT 5 DISTINCT EXCLUDE 1 b"),
        ("lb.peek web RR count 5", "LB.PEEK web rr COUNT 5"),
        ("lb.policy web WRR", "LB.POLICY web wrr"),
        ("lb.state web a DRAIN", "LB.STATE web a drain"),
        (
            "lb.limit web backend a max 3 rate 2 9 burst 2 tier 1",
            "LB.LIMIT web BACKEND a MAX 3 RATE 2 9 BURST 2 TIER 1",
        ),
        ("lb.leases web backend a owner b count 1", "LB.LEASES web BACKEND a OWNER b COUNT 1"),
        ("lb.queue web max 3 order FAIR", "LB.QUEUE web MAX 3 ORDER fair"),
        ("lb.pick web block 1 prio 3 for x", "LB.PICK web BLOCK 1 PRIO 3 FOR x"),
        ("lb.release web owner b", "LB.RELEASE web OWNER b"),
        ("lb.done web 7-1 fail latency 5", "LB.DONE web 7-1 FAIL LATENCY 5"),
        ("lb.limit web each cost t 3 9 burst 2", "LB.LIMIT web EACH COST t 3 9 BURST 2"),
        ("lb.report web a left t 3", "LB.REPORT web a LEFT t 3"),
        ("lb.report web a ok latency 5 load 0.5 cool 9", "LB.REPORT web a OK LATENCY 5 LOAD 0.5 COOL 9"),
        (
            "lb.health web fails 3 failrate 50 min 9 window 9 eject 9 maxeject 9 slowstart 9 adapt 9",
            "LB.HEALTH web FAILS 3 FAILRATE 50 MIN 9 WINDOW 9 EJECT 9 MAXEJECT 9 SLOWSTART 9 ADAPT 9",
        ),
    ],
)
def test_keywords_are_the_same_in_upper_and_lower_case(manual, command, same):
    with manual.client() as client:
        lb = client.execute_command
        lb("LB.ADD web a 5 b 3 c 2")
        lb("COPY web copy")
        assert lb(command) == lb(same.replace(" web", " copy", 1))
        assert digest(lb) == lb("DEBUG DIGEST-VALUE copy")


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ("EXCLUDE 1 COUNT", "DISTINCT"),
        ("EXCLUDE 2 COUNT DISTINCT", "rr"),
        ("EXCLUDE 3 rr COUNT DISTINCT", None),
        ("COUNT 3 EXCLUDE 1 EXCLUDE DISTINCT", ["COUNT", "DISTINCT", "rr"]),
    ],
)
def test_a_backend_can_be_named_like_a_keyword(lb, options, answer):
    lb("LB.ADD web COUNT 1 DISTINCT 1 rr 1")
    assert lb(f"LB.PICK web {options}") == answer


# Inside transactions and scripts


def test_picks_run_in_transactions(client):
    client.execute_command("LB.ADD web a 5 b 1 c 1")
    pipe = client.pipeline(transaction=True)
    for _ in range(3):
        pipe.execute_command("LB.PICK web")
    pipe.execute_command("LB.PICK web random COUNT 2")
    pipe.execute_command("LB.WEIGHT web x 1")
    *picked, drawn, error = pipe.execute(raise_on_error=False)
    assert picked == ["a", "a", "b"]
    assert len(drawn) == 2
    assert str(error).startswith("NOBACKEND")


def test_picks_run_in_scripts(lb):
    lb("LB.ADD web a 5 b 1 c 1")
    script = "return {redis.call('LB.PICK', KEYS[1]), redis.call('LB.PICK', KEYS[1], 'rr', 'COUNT', ARGV[1])}"
    assert lb("EVAL", script, 1, "web", 3) == ["a", ["a", "b", "c"]]
    nil = "return redis.call('LB.PICK', KEYS[1]) == false"
    assert lb("EVAL", nil, 1, "none") == 1
    assert lb("EVAL", "return redis.pcall('LB.ADD', KEYS[1], '').err", 1, "web").startswith("ERR")
