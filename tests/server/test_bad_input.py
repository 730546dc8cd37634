"""What is wrong with a command is said clearly, and the command has changed nothing."""

import itertools
import re
import shlex

import pytest

from model import PAYLOAD
from wire import Refused, Wire

LONG = "n" * 513
HUGE = "9" * 30

# Commands up to where a pair, a name or options follow.
PAIRED = ["LB.ADD web", "LB.SET web", "LB.WEIGHT web"]
NAMING = [
    "LB.ADD web",
    "LB.REM web",
    "LB.REM web a",
    "LB.WEIGHT web",
    "LB.STATE web",
    "LB.STATS web",
    "LB.STATS none",
]
NAMING += ["LB.PICK web EXCLUDE 1", "LB.PEEK web COUNT 2 EXCLUDE 2 a"]
PICKING = ["LB.PICK web", "LB.PEEK web", "LB.PICK web rr", "LB.PEEK none wrr"]

# Too few or too many arguments.
ARITY = {
    "lb.add": ["", "web"],
    "lb.set": ["", "web", "web a"],
    "lb.rem": ["", "web"],
    "lb.weight": ["", "web"],
    "lb.state": ["", "web"],
    "lb.policy": [""],
    "lb.list": ["", "web a"],
    "lb.card": ["", "web a"],
    "lb.pick": [""],
    "lb.peek": [""],
    "lb.info": ["", "web a"],
    "lb.stats": [""],
    "lb.seed": ["", "web", "web 1 2"],
    "lb.load": ["", "web"],
}


def with_each(commands, rest):
    """The commands, each with that behind it."""
    return [f"{command} {rest}" for command in commands]


# A mistake: what the answer says of it (`…` is anything), and commands that make it. The commands are as in a
# shell: '' is an empty argument.
MISTAKES = {
    "ERR …name…1 to 512 bytes, not 0": with_each(NAMING, "''") + with_each(PAIRED, "b 1 '' 1"),
    "ERR …name…1 to 512 bytes, not 513": with_each(NAMING, LONG) + with_each(PAIRED, f"b 1 {LONG} 1"),
    "ERR …weight of 'a' is 'b'…0 to 65535": with_each(PAIRED, "a b"),
    "ERR not every backend has a weight…pipeline": ["LB.ADD web a b c", "LB.ADD web a 1 b"],
    "ERR not every backend has a weight: give": [
        "LB.SET web a 1 b",
        "LB.WEIGHT web a 1 b",
        "LB.SET none a 1 b",
    ],
    "NOBACKEND …'x'…LB.ADD": [
        "LB.WEIGHT web a 9 x 1",
        "LB.WEIGHT none x 1",
        "LB.STATE web x up",
        "LB.STATE none x up",
    ],
    "ERR 'fastest' is no algorithm: rr, wrr, random, wrandom": [
        f"{command} fastest" for command in ["LB.PICK web", "LB.PEEK web", "LB.POLICY web", "LB.PICK none"]
    ],
    "ERR 'hash' is no algorithm": ["LB.POLICY web hash", "LB.POLICY none hash"],
    "ERR 'SOMETIMES' is no keyword…COUNT": with_each(PICKING, "COUNT 2 SOMETIMES"),
    "ERR 'random' is no keyword…COUNT": ["LB.PICK web rr random", "LB.PICK web COUNT 1 random"],
    "ERR 'KEEP' is no keyword: REPLACE": ["LB.LOAD web x KEEP"],
    "ERR 'sideways' is no state: up, drain or down": ["LB.STATE web a sideways", "LB.STATE none a sideways"],
    "ERR …chance cannot be foreseen…rr or wrr": [
        "LB.PEEK web random",
        "LB.PEEK none wrandom COUNT 2",
        "LB.PEEK dice",
    ],
    "ERR …EXCLUDE 3 is followed by 1 ": with_each(PICKING, "EXCLUDE 3 a"),
    "ERR …EXCLUDE 1 is followed by 0 ": with_each(PICKING, "EXCLUDE 1"),
    "ERR COUNT lacks its value": ["LB.PICK web COUNT", "LB.PEEK web DISTINCT COUNT"],
    "ERR EXCLUDE lacks its value": ["LB.PICK web rr EXCLUDE"],
    "ERR DISTINCT needs COUNT": ["LB.PICK web DISTINCT", "LB.PEEK web rr EXCLUDE 1 a DISTINCT"],
    "ERR 'COUNT' is given twice": ["LB.PICK web COUNT 1 COUNT 2", "LB.PEEK web COUNT 1 DISTINCT COUNT 1"],
    "ERR 'DISTINCT' is given twice": with_each(PICKING, "COUNT 2 DISTINCT DISTINCT"),
    "ERR 'EXCLUDE' is given twice": with_each(PICKING, "EXCLUDE 1 a EXCLUDE 1 b"),
    "ERR …payload is no pool": ["LB.LOAD web garbage REPLACE", "LB.LOAD web garbage", "LB.LOAD none ''"],
    "ERR …seed…0 to 18446744073709551615": [
        f"LB.SEED web {seed}" for seed in ["x", "-1", "01", "1.0", "''", "18446744073709551616"]
    ],
    "WRONGTYPE ": ["LB.ADD text a", "LB.PICK text", "LB.STATS text", "LB.POLICY text rr", "LB.SEED text 1"],
    "ERR LB.STATE takes one backend and one state": ["LB.STATE web a up down"],
    "ERR LB.POLICY takes one algorithm": ["LB.POLICY web rr wrr"],
    "ERR LB.STATS takes one backend": ["LB.STATS web a b"],
    "ERR LB.LOAD takes one payload": ["LB.LOAD web x REPLACE REPLACE"],
}
for bad in ["70000", "65536", "5x", "-1", "+1", "01", "-0", "1.5", "", " 1", "1e3", HUGE]:
    MISTAKES[f"ERR …weight of 'a' is '{bad}'…0 to 65535"] = with_each(PAIRED, f"a '{bad}'")
for bad in ["0", "-1", "10001", "x", "+1", "01", "", HUGE]:
    MISTAKES[f"ERR COUNT is '{bad}'…1 to 10000"] = with_each(PICKING, f"COUNT '{bad}'")
for bad in ["0", "-1", "1001", "x", ""]:
    MISTAKES[f"ERR …EXCLUDE is '{bad}'…1 to 1000"] = with_each(PICKING, f"EXCLUDE '{bad}' a")
for name, arguments in ARITY.items():
    MISTAKES[f"ERR wrong number of arguments for '{name}'"] = [f"{name} {given}" for given in arguments]

COMMANDS = [(command, says) for says, commands in MISTAKES.items() for command in commands]

# What a client may send that C, or the protocol, takes for something else.
HOSTILE = [
    b"\0",
    b"a\0b",
    b"\r\n+OK\r\n",
    b"%s%n%s%n",
    b"\xff\xfe\x80",
    "Ā".encode(),
    b"'\\'\"",
    b"x" * 100_000,
]

# Where an error shows what was sent.
SHOWN = [
    "LB.ADD web a {}",
    "LB.SET web {} x",
    "LB.WEIGHT web {} 1",
    "LB.STATE web {} up",
    "LB.STATE web a {}",
    "LB.POLICY web {}",
    "LB.PICK web {}",
    "LB.PEEK web {}",
    "LB.PICK web COUNT {}",
    "LB.PICK web EXCLUDE {} a",
    "LB.PICK web COUNT 1 {}",
    "LB.LOAD web {}",
    "LB.LOAD web x {}",
    "LB.SEED web {}",
]


@pytest.fixture
def wire(server):
    """A connection to a server with the pools `web` and `dice`, and with a `text`."""
    with Wire(server.port) as wire:
        prepare(wire)
        yield wire


def prepare(wire):
    """Makes what the commands here are sent to."""
    for command in ["LB.ADD web a 5 b 1", "LB.PICK web COUNT 3", "LB.POLICY dice random", "SET text text"]:
        wire.ask(command)


def ask(wire, command):
    """The answer to a command that is written as in a shell."""
    return wire.ask([word.encode() for word in shlex.split(command)])


def state(wire):
    """All that a command could have changed: the pools, and how much was ever written."""
    changes = re.search(rb"rdb_changes_since_last_save:(\d+)", wire.ask("INFO persistence"))[1]
    pools = [wire.ask(f"DEBUG DIGEST-VALUE {key}") for key in ["web", "dice"]]
    return wire.ask("LB.STATS web"), pools, wire.ask("DBSIZE"), wire.ask("GET text"), changes


@pytest.mark.parametrize(("command", "says"), COMMANDS, ids=[command[:60] for command, _ in COMMANDS])
def test_a_mistake_is_named_and_changes_nothing(wire, command, says):
    before = state(wire)
    answer = ask(wire, command)
    assert isinstance(answer, Refused)
    assert re.match(".*".join(map(re.escape, says.split("…"))), answer, re.IGNORECASE), answer
    assert state(wire) == before


def test_each_mistake_has_an_error_of_its_own(wire):
    answers = {says: ask(wire, commands[0]) for says, commands in MISTAKES.items()}
    assert len(set(answers.values())) == len(MISTAKES)


def test_no_mistake_is_written_into_the_stream_or_announced(new_server):
    server = new_server(appendonly="yes", appendfsync="always", notify_keyspace_events="KEA")
    with Wire(server.port) as wire, server.client() as subscriber:
        prepare(wire)
        size = server.client().info("persistence")["aof_current_size"]
        events = subscriber.pubsub()
        events.psubscribe("__key*__:*")
        assert events.get_message(timeout=10)["type"] == "psubscribe"
        for command, _ in COMMANDS:
            assert isinstance(ask(wire, command), Refused)
        assert server.client().info("persistence")["aof_current_size"] == size
        wire.ask("SET end x")
        assert "end" in events.get_message(timeout=10)["channel"]


@pytest.mark.parametrize("command", SHOWN)
@pytest.mark.parametrize("argument", HOSTILE, ids=lambda argument: ascii(argument[:10]))
def test_what_an_error_shows_cannot_break_the_protocol(wire, command, argument):
    before = state(wire)
    answer = wire.ask([argument if word == "{}" else word.encode() for word in command.split()])
    assert isinstance(answer, Refused)
    assert len(answer) < 400
    assert answer.isprintable()
    assert wire.ask([b"ECHO", argument]) == argument
    assert state(wire) == before


# Payloads


def damaged(payload):
    """All that it is when it is cut off, and when one byte is another."""
    yield from (payload[:end] for end in range(len(payload)))
    for at, byte in itertools.product(range(len(payload)), (0, 1, 2, 127, 128, 254, 255)):
        yield payload[:at] + bytes([byte]) + payload[at + 1 :]


def assert_harmless(wire, commands):
    """Each is refused, or makes a pool `new` that can be used like any other."""
    uses = [f"LB.PICK new {algorithm} COUNT 9" for algorithm in ["rr", "wrr", "random", "wrandom"]]
    outcomes = set()
    for command in commands:
        outcomes.add(type(wire.ask(command)))
        for use in [*uses, "LB.PEEK new wrr", "LB.STATS new", "LB.ADD new b 3", "DUMP new", "DEL new"]:
            wire.ask(use)
    assert outcomes == {str, Refused}
    assert wire.ask("PING") == "PONG"


def test_a_damaged_payload_does_no_harm(wire):
    for end in range(len(PAYLOAD)):
        assert "payload" in wire.ask([b"LB.LOAD", b"new", PAYLOAD[:end]])
    assert_harmless(wire, ([b"LB.LOAD", b"new", payload] for payload in damaged(PAYLOAD)))


def test_a_damaged_dump_does_no_harm(wire):
    wire.ask("LB.PICK web random")
    body, version = wire.ask("DUMP web")[:-10], wire.ask("DUMP web")[-10:-8]
    # What comes first says that a pool of this module follows: other values are the server's own affair.
    bodies = (body[:10] + rest for rest in damaged(body[10:]))
    sealed = (each + version + crc64(each + version) for each in bodies)
    assert_harmless(wire, ([b"RESTORE", b"new", b"0", dump] for dump in sealed))


def crc64(payload):
    """The checksum that makes RESTORE believe a dump: CRC-64/Jones, bits and bytes reversed."""
    crc = 0
    for byte in payload:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
    return crc.to_bytes(8, "little")
