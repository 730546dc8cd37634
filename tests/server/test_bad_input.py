"""What is wrong with a command is said clearly, and the command has changed nothing."""

import itertools
import re
import shlex

import pytest

from algorithms import ALL, BY_ITEM
from commands import COMMANDS
from dump import Dump
from model import LEASED, PAYLOAD
from server import SECONDS
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
NAMING += ["LB.LEASES web BACKEND", "LB.LEASES none OWNER o BACKEND", "LB.LIMIT web BACKEND"]
NAMING += ["LB.LIMIT none MAX 1 BACKEND", "LB.REPORT web", "LB.REPORT none"]
OWNING = ["LB.PICK web LEASE 9 OWNER", "LB.PICK none COUNT 2 LEASE 9 OWNER", "LB.RELEASE web OWNER"]
OWNING += ["LB.RELEASE none OWNER", "LB.LEASES web OWNER"]
STICKING = ["LB.PICK web STICKY", "LB.PEEK none STICKY", "LB.FORGET web", "LB.FORGET none"]
ITEM = ["LB.PICK web hash", "LB.PICK none hash", "LB.PEEK web Hash"]
PICKING = ["LB.PICK web", "LB.PEEK web", "LB.PICK web rr", "LB.PEEK none wrr", "LB.PICK web LEASE 9"]


def miscounted(command):
    """The command with too few arguments or too many."""
    name, *arguments = command.form.split()
    least = abs(command.arity) - 1
    yield from (" ".join([name, *arguments[:number]]) for number in range(least))
    if command.arity > 0:
        yield f"{command.form} 2"


def with_each(commands, rest):
    """The commands, each with that behind it."""
    return [f"{command} {rest}" for command in commands]


# A mistake: what the answer says of it (`…` is anything), and commands that make it. The commands are as in a
# shell: '' is an empty argument.
MISTAKES = {
    "ERR …name of a backend…1 to 512 bytes, not 0": with_each(NAMING, "''") + with_each(PAIRED, "b 1 '' 1"),
    "ERR …name of a backend…1 to 512 bytes, not 513": with_each(NAMING, LONG)
    + with_each(PAIRED, f"b 1 {LONG} 1"),
    "ERR …name of an owner…1 to 512 bytes, not 0": with_each(OWNING, "''"),
    "ERR …name of an owner…1 to 512 bytes, not 513": with_each(OWNING, LONG),
    "ERR …name of a session…1 to 512 bytes, not 0": with_each(STICKING, "''"),
    "ERR …name of a session…1 to 512 bytes, not 513": with_each(STICKING, LONG),
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
        "LB.LIMIT web BACKEND x MAX 1",
        "LB.LIMIT web TIER 1 RATE 1 1 BACKEND x",
        "LB.LIMIT none BACKEND x MAX 0",
    ],
    f"ERR 'fastest' is no algorithm: {', '.join([*ALL, *BY_ITEM])}, or COUNT": [
        f"{command} fastest" for command in ["LB.PICK web", "LB.PEEK web", "LB.PICK none"]
    ],
    f"ERR 'fastest' is no algorithm: {', '.join(ALL)}": ["LB.POLICY web fastest", "LB.POLICY none fastest"],
    "ERR hash is no policy: it needs an item": ["LB.POLICY web hash", "LB.POLICY none HASH"],
    "ERR hash needs an item…LB.PICK key hash item": [
        "LB.PICK web hash",
        "LB.PICK none Hash",
        "LB.PEEK web hash",
    ],
    "ERR an item has 1 to 512 bytes, not 0": with_each(ITEM, "''"),
    "ERR an item has 1 to 512 bytes, not 513": with_each(ITEM, LONG),
    "ERR '2' is no keyword": with_each(ITEM, "COUNT 2"),
    "ERR 'SOMETIMES' is no keyword…COUNT": with_each(PICKING, "COUNT 2 SOMETIMES"),
    "ERR 'random' stands among the options: one algorithm…before them": [
        "LB.PICK web rr random",
        "LB.PICK none COUNT 1 random",
        "LB.PICK web LEASE 9 OWNER o random",
        "LB.PEEK web rr random",
        "LB.PEEK web EXCLUDE 1 a random",
    ],
    "ERR 'rr' stands among the options": ["LB.PICK web wrr rr", "LB.PICK web COUNT 2 rr"],
    "ERR EXCLUDE is 'a', which is not an integer…the number of backends comes first…EXCLUDE 1 a": with_each(
        PICKING, "EXCLUDE a"
    ),
    "ERR 'MAX' is no keyword…LEASE": ["LB.PICK web rr MAX 3", "LB.PICK web LEASE 9 MAX 3"],
    "ERR 'OWNER' is no keyword…BACKEND": ["LB.LIMIT web OWNER o", "LB.LIMIT none MAX 3 OWNER o"],
    "ERR 'LEASE' is no keyword…BACKEND backend, OWNER name or COUNT n": [
        "LB.LEASES web LEASE 7-1",
        "LB.LEASES none COUNT 1 LEASE",
    ],
    "ERR 'PERHAPS' is no keyword: OK, FAIL, LATENCY us, LOAD x, COOL ms or ": with_each(
        ["LB.DONE web 7-1", "LB.DONE none 7-1 OK", "LB.REPORT web a", "LB.REPORT none a OK"], "PERHAPS"
    ),
    "ERR 'PERHAPS' is no keyword: FAILS n": with_each(["LB.HEALTH web", "LB.HEALTH none FAILS 1"], "PERHAPS"),
    "ERR 'BACKEND' is no keyword: OWNER": ["LB.RELEASE web BACKEND a", "LB.RELEASE none BACKEND a"],
    "ERR 'KEEP' is no keyword: REPLACE": ["LB.LOAD web x KEEP"],
    "ERR 'sideways' is no state: up, drain or down": ["LB.STATE web a sideways", "LB.STATE none a sideways"],
    "ERR …chance cannot be foreseen…rr, wrr, lc, ewma or hash": [
        "LB.PEEK web p2c",
        "LB.PEEK web random",
        "LB.PEEK none wrandom COUNT 2",
        "LB.PEEK dice",
    ],
    "ERR …EXCLUDE 3 is followed by 1 ": with_each(PICKING, "EXCLUDE 3 a"),
    "ERR …EXCLUDE 1 is followed by 0 ": with_each(PICKING, "EXCLUDE 1"),
    "ERR COUNT lacks its value": ["LB.PICK web COUNT", "LB.PEEK web DISTINCT COUNT"],
    "ERR EXCLUDE lacks its value": ["LB.PICK web rr EXCLUDE"],
    "ERR STICKY lacks its value": [
        "LB.PICK web STICKY",
        "LB.PICK none rr STICKY s",
        "LB.PEEK web rr STICKY",
    ],
    "ERR STRICT needs STICKY": ["LB.PICK web STRICT", "LB.PICK none rr COUNT 1 STRICT"],
    "ERR STICKY picks one backend": [
        "LB.PICK web STICKY s 9 COUNT 2",
        "LB.PICK none COUNT 10000 LEASE 9 STICKY s 9",
        "LB.PEEK web COUNT 2 STICKY s",
    ],
    "ERR 'STICKY' is given twice": ["LB.PICK web STICKY s 9 STICKY s 9", "LB.PEEK web STICKY s STICKY t"],
    "ERR 'STRICT' is given twice": ["LB.PICK web STICKY s 9 STRICT STRICT"],
    "ERR '9' is no keyword": ["LB.PEEK web STICKY s 9"],
    "ERR LEASE lacks its value": ["LB.PICK web LEASE", "LB.PICK none rr COUNT 2 LEASE"],
    "ERR OWNER lacks its value": ["LB.PICK web LEASE 9 OWNER", "LB.LEASES web OWNER"],
    "ERR BLOCK lacks its value": ["LB.PICK web BLOCK", "LB.PICK none COUNT 2 BLOCK"],
    "ERR PRIO lacks its value": ["LB.PICK web BLOCK 1 PRIO", "LB.PICK none PRIO"],
    "ERR FOR lacks its value": ["LB.PICK web BLOCK 1 FOR", "LB.PICK none FOR"],
    "ERR PRIO and FOR need BLOCK": [
        "LB.PICK web PRIO 1",
        "LB.PICK web LEASE 9 FOR a",
        "LB.PICK none COUNT 2 FOR a PRIO 0",
        "LB.PEEK web PRIO 1",
    ],
    "ERR 'PRIO' is given twice": ["LB.PICK web BLOCK 1 PRIO 1 PRIO 1"],
    "ERR 'FOR' is given twice": ["LB.PICK web BLOCK 1 FOR a FOR b"],
    "ERR the name behind FOR has 1 to 512 bytes, not 0": ["LB.PICK web BLOCK 1 FOR ''"],
    "ERR the name behind FOR has 1 to 512 bytes, not 513": [f"LB.PICK web FOR {'n' * 513} BLOCK 1"],
    "ERR ORDER lacks its value": ["LB.QUEUE web ORDER", "LB.QUEUE none MAX 1 ORDER"],
    "ERR 'lifo' is no order: fifo or fair": ["LB.QUEUE web ORDER lifo", "LB.QUEUE none MAX 1 ORDER lifo"],
    "ERR 'ORDER' is given twice": ["LB.QUEUE web ORDER fifo ORDER fair"],
    "ERR 'PERHAPS' is no keyword: MAX n or ORDER fifo|fair": with_each(
        ["LB.QUEUE web", "LB.QUEUE none MAX 1"], "PERHAPS"
    ),
    "ERR BACKEND lacks its value": ["LB.LEASES web BACKEND", "LB.LIMIT web MAX 1 BACKEND"],
    "ERR MAX lacks its value": ["LB.LIMIT web MAX", "LB.LIMIT none BACKEND a MAX", "LB.QUEUE web MAX"],
    "ERR RATE lacks its value": ["LB.LIMIT web RATE"],
    "ERR the time of RATE lacks its value": ["LB.LIMIT web RATE 5", "LB.LIMIT web MAX 1 RATE 0"],
    "ERR BURST lacks its value": ["LB.LIMIT web RATE 5 1000 BURST"],
    "ERR TIER lacks its value": ["LB.LIMIT web BACKEND a TIER"],
    "ERR LATENCY lacks its value": ["LB.DONE web 7-1 LATENCY", "LB.DONE none 7-1 FAIL LATENCY"],
    "ERR LOAD lacks its value": ["LB.DONE web 7-1 LOAD", "LB.REPORT none a OK LOAD"],
    "ERR COOL lacks its value": ["LB.DONE web 7-1 COOL", "LB.REPORT none a OK COOL"],
    "ERR FAILS lacks its value": ["LB.HEALTH web FAILS", "LB.HEALTH none EJECT 9 FAILS"],
    "ERR ADAPT lacks its value": ["LB.HEALTH web ADAPT"],
    "ERR MIN and WINDOW need FAILRATE": ["LB.HEALTH web MIN 9", "LB.HEALTH none FAILS 3 WINDOW 9"],
    "ERR 'LOAD' is given twice": ["LB.REPORT web a LOAD 1 LOAD 1", "LB.DONE web 7-1 LOAD 1 LOAD 2"],
    "ERR 'COOL' is given twice": ["LB.REPORT web a COOL 1 COOL 1", "LB.DONE none 7-1 COOL 1 OK COOL 2"],
    "ERR 'FAILS' is given twice": ["LB.HEALTH web FAILS 1 FAILS 1", "LB.HEALTH none FAILS 0 FAILS 0"],
    "ERR 'WINDOW' is given twice": ["LB.HEALTH web FAILRATE 5 WINDOW 9 WINDOW 9"],
    "ERR OWNER needs LEASE": [
        "LB.PICK web OWNER o",
        "LB.PICK none rr COUNT 2 OWNER o",
        "LB.PEEK web OWNER o",
    ],
    "ERR ewma goes by leases": ["LB.PICK web ewma", "LB.PICK none ewma COUNT 2"],
    "ERR BURST needs RATE or COST": [
        "LB.LIMIT web COST a 0 0 BURST 3",
        "LB.LIMIT web BURST 3",
        "LB.LIMIT web BACKEND a MAX 3 BURST 3",
    ]
    + ["LB.LIMIT web RATE 0 0 BURST 3", "LB.LIMIT web RATE 0 1000 BURST 3", "LB.LIMIT none BURST 3"],
    "ERR BALANCE lacks its value": ["LB.LIMIT web BALANCE"],
    "ERR BALANCE concerns the pool": ["LB.LIMIT web EACH BALANCE 125", "LB.LIMIT web BALANCE 0 BACKEND a"],
    "ERR BALANCE is '100', which is neither 0 nor…101 to 10000": [
        "LB.LIMIT web BALANCE 100",
        "LB.LIMIT none MAX 1 BALANCE 100",
    ],
    "ERR BALANCE is '10001'": ["LB.LIMIT web BALANCE 10001"],
    "ERR 'BALANCE' is given twice": ["LB.LIMIT web BALANCE 125 BALANCE 0"],
    "ERR COST lacks its value": ["LB.LIMIT web COST", "LB.LIMIT none COST tokens"],
    "ERR the time of COST lacks its value": ["LB.LIMIT web COST tokens 5", "LB.LIMIT none COST tokens 0"],
    "ERR COSTS lacks its value": ["LB.PICK web COSTS", "LB.PICK none COSTS 2 a 1", "LB.WHEN web COSTS 1 a"],
    "ERR LEFT lacks its value": ["LB.REPORT web a LEFT", "LB.REPORT none a OK LEFT tokens"],
    "ERR COSTS is 'tokens', which is not an integer…the number of costs comes first": [
        "LB.PICK web COSTS tokens 5",
        "LB.DONE none 7-1 COSTS tokens 5",
    ],
    "ERR the name of a cost has 1 to 512 bytes, not 0": [
        "LB.PICK web COSTS 1 '' 5",
        "LB.LIMIT web COST '' 1 1",
        "LB.REPORT web a LEFT '' 1",
    ],
    "ERR 'COST' is given twice": ["LB.LIMIT web COST a 1 1 MAX 1 COST a 0 0"],
    "ERR 'COSTS' is given twice": [
        "LB.PICK web COSTS 1 a 1 COSTS 1 b 1",
        "LB.WHEN none COSTS 1 a 1 COSTS 1 a 1",
    ],
    "ERR 'LEFT' is given twice": ["LB.REPORT web a LEFT a 1 LEFT b 1"],
    "ERR 'EACH' is given twice": ["LB.LIMIT web EACH EACH", "LB.LIMIT web BACKEND a EACH MAX 1"],
    "ERR 'LEFT' is no keyword": ["LB.DONE web 7-1 LEFT tokens 1"],
    "ERR 'COSTS' is no keyword": ["LB.REPORT web a COSTS 1 tokens 1"],
    "ERR 'LEASE' is no keyword: COSTS": ["LB.WHEN web LEASE 5", "LB.WHEN none COSTS 1 a 1 LEASE"],
    "ERR TIER needs BACKEND: tiers differ": ["LB.LIMIT web EACH TIER 1", "LB.LIMIT none TIER 0 EACH"],
    "ERR a pool has at most 4 different costs": [
        "LB.LIMIT web COST a 1 1 COST b 1 1 COST c 1 1 COST d 1 1 COST e 1 1"
    ]
    + ["LB.LIMIT none EACH COST a 1 1 COST b 1 1 COST c 1 1 COST d 1 1 COST e 1 1 COST f 0 0"],
    "ERR TIER needs BACKEND": ["LB.LIMIT web TIER 1", "LB.LIMIT web MAX 3 TIER 0", "LB.LIMIT none TIER 1"],
    "ERR LB.PEEK changes nothing…neither STRICT nor LEASE…BLOCK": [
        "LB.PEEK web STICKY s STRICT",
        "LB.PEEK web COSTS 1 tokens 1",
        "LB.PEEK web LEASE 9",
        "LB.PEEK web rr COUNT 2 LEASE 9 OWNER o",
        "LB.PEEK web BLOCK 9",
        "LB.PEEK none BLOCK 0",
    ],
    "ERR DISTINCT needs COUNT": ["LB.PICK web DISTINCT", "LB.PEEK web rr EXCLUDE 1 a DISTINCT"],
    "ERR 'COUNT' is given twice": ["LB.PICK web COUNT 1 COUNT 2", "LB.PEEK web COUNT 1 DISTINCT COUNT 1"],
    "ERR 'DISTINCT' is given twice": with_each(PICKING, "COUNT 2 DISTINCT DISTINCT"),
    "ERR 'EXCLUDE' is given twice": with_each(PICKING, "EXCLUDE 1 a EXCLUDE 1 b"),
    "ERR 'LEASE' is given twice": ["LB.PICK web LEASE 9 LEASE 9", "LB.PICK web LEASE 9 OWNER o LEASE 9"],
    "ERR 'OWNER' is given twice": ["LB.PICK web LEASE 9 OWNER o OWNER o", "LB.LEASES web OWNER o OWNER p"],
    "ERR 'BLOCK' is given twice": ["LB.PICK web BLOCK 9 BLOCK 9"],
    "ERR 'BACKEND' is given twice": ["LB.LEASES web BACKEND a BACKEND b", "LB.LIMIT web BACKEND a BACKEND a"],
    "ERR 'MAX' is given twice": ["LB.LIMIT web MAX 1 MAX 1", "LB.QUEUE web MAX 1 MAX 1"],
    "ERR 'RATE' is given twice": ["LB.LIMIT web RATE 1 1 RATE 0 0", "LB.LIMIT web RATE 0 0 RATE 1 1"],
    "ERR 'BURST' is given twice": ["LB.LIMIT web RATE 1 1 BURST 1 BURST 2"],
    "ERR 'TIER' is given twice": ["LB.LIMIT web TIER 1 BACKEND a TIER 1"],
    "ERR 'OK or FAIL' is given twice": [
        "LB.DONE web 7-1 OK OK",
        "LB.DONE none 7-1 FAIL OK",
        "LB.DONE web 7-1 OK LATENCY 1 FAIL",
        "LB.REPORT web a OK LOAD 1 FAIL",
    ],
    "ERR 'LATENCY' is given twice": ["LB.DONE web 7-1 LATENCY 1 LATENCY 1"],
    "ERR …payload is no pool": ["LB.LOAD web garbage REPLACE", "LB.LOAD web garbage", "LB.LOAD none ''"],
    "ERR …seed…0 to 18446744073709551615": [
        f"LB.SEED web {seed}" for seed in ["x", "-1", "01", "1.0", "''", "18446744073709551616"]
    ],
    "ERR …the server's own clock is not there yet": ["LB.TICK web 100000000000000", f"LB.TICK web {2**47}"],
    "WRONGTYPE ": ["LB.ADD text a", "LB.PICK text", "LB.STATS text", "LB.POLICY text rr", "LB.SEED text 1"]
    + ["LB.PICK text LEASE 9", "LB.DONE text 7-1", "LB.DONE text ?", "LB.LIMIT text", "LB.LIMIT text MAX 1"]
    + ["LB.LIMIT text RATE 1 1", "LB.TICK text 1", "LB.EPOCH text 1", "LB.LEASES text", "LB.WHEN text"]
    + ["LB.REPORT text a OK", "LB.REPORT text a", "LB.HEALTH text", "LB.HEALTH text FAILS 1"]
    + ["LB.FORGET text s", "LB.PICK text STICKY s 9"]
    + ["LB.QUEUE text", "LB.QUEUE text MAX 1", "LB.QUEUE text MAX 0"],
    "ERR LB.STATE takes one backend and one state": ["LB.STATE web a up down"],
    "ERR LB.POLICY takes one algorithm": ["LB.POLICY web rr wrr"],
    "ERR LB.STATS takes one backend": ["LB.STATS web a b"],
    "ERR LB.LOAD takes one payload": ["LB.LOAD web x REPLACE REPLACE"],
}
for bad in ["70000", "65536", "5x", "-1", "+1", "01", "-0", "1.5", "", " 1", "1e3", HUGE]:
    MISTAKES[f"ERR …weight of 'a' is '{bad}'…0 to 65535"] = with_each(PAIRED, f"a '{bad}'")
for bad in ["0", "-1", "10001", "x", "+1", "01", "", HUGE]:
    counting = [*PICKING, "LB.LEASES web", "LB.LEASES none OWNER o"]
    MISTAKES[f"ERR COUNT is '{bad}'…1 to 10000"] = with_each(counting, f"COUNT '{bad}'")
for bad in ["0", "-1", "1001", "x", ""]:
    MISTAKES[f"ERR …EXCLUDE is '{bad}'…1 to 1000"] = with_each(PICKING, f"EXCLUDE '{bad}' a")

for bad in ["0", "-1", "17", ""]:
    costing = ["LB.PICK web", "LB.PICK none rr", "LB.DONE web 7-1", "LB.WHEN web"]
    MISTAKES[f"ERR COSTS is '{bad}'…1 to 16"] = with_each(costing, f"COSTS '{bad}' tokens 1")

# What takes a number of a range, with what the error calls it.
RANGES = {
    "LEASE": (["LB.PICK web LEASE {}", "LB.PICK none rr COUNT 2 LEASE {} OWNER o"], 1, 2**40),
    "BLOCK": (["LB.PICK web BLOCK {}"], 0, 2**40),
    "STICKY": (["LB.PICK web STICKY s {}", "LB.PICK none rr STICKY s {} STRICT"], 1, 2**40),
    "PRIO": (["LB.PICK web BLOCK 1 PRIO {}", "LB.PICK none PRIO {}"], 0, 255),
    "the time of a lease": (["LB.RENEW web 7-1 {}", "LB.RENEW none ? {}"], 1, 2**40),
    "LATENCY": (["LB.DONE web 7-1 LATENCY {}", "LB.DONE none ? FAIL LATENCY {}"], 0, 2**50),
    "MAX": (["LB.LIMIT web MAX {}", "LB.LIMIT web BACKEND a MAX {}", "LB.QUEUE none MAX {}"], 0, 2**31 - 1),
    "RATE": (["LB.LIMIT web RATE {} 1000", "LB.LIMIT web BACKEND a RATE {} 1000 BURST 3"], 0, 2**40),
    "the time of RATE": (["LB.LIMIT web RATE 5 {}", "LB.LIMIT none RATE 5 {}"], 1, 2**40),
    "BURST": (["LB.LIMIT web RATE 5 1000 BURST {}", "LB.LIMIT none BURST {}"], 1, 2**40),
    "COST": (["LB.LIMIT web COST tokens {} 9", "LB.LIMIT none EACH COST tokens {} 9"], 0, 2**40),
    "the time of COST": (["LB.LIMIT web COST tokens 5 {}"], 1, 2**40),
    "an amount": (["LB.PICK web COSTS 1 tokens {}", "LB.REPORT web a LEFT tokens {}"], 0, 2**40),
    "COOL": (["LB.REPORT web a COOL {}", "LB.DONE web 7-1 COOL {}", "LB.REPORT none a COOL {}"], 1, 2**40),
    "FAILS": (["LB.HEALTH web FAILS {}", "LB.HEALTH none FAILS {}"], 0, 2**20),
    "FAILRATE": (["LB.HEALTH web FAILRATE {}"], 0, 100),
    "MIN": (["LB.HEALTH web FAILRATE 5 MIN {}"], 1, 2**20),
    "WINDOW": (["LB.HEALTH web FAILRATE 5 WINDOW {}"], 1, 2**40),
    "EJECT": (["LB.HEALTH web EJECT {}", "LB.HEALTH none FAILS 1 EJECT {}"], 1, 2**40),
    "MAXEJECT": (["LB.HEALTH web MAXEJECT {}"], 0, 100),
    "SLOWSTART": (["LB.HEALTH web SLOWSTART {}"], 0, 2**40),
    "ADAPT": (["LB.HEALTH web ADAPT {}"], 0, 2**40),
    "TIER": (["LB.LIMIT web BACKEND a TIER {}", "LB.LIMIT none TIER {}"], 0, 255),
}
for what, (forms, least, most) in RANGES.items():
    for bad in [least - 1, most + 1, "-1", "x", "01", "+1", "1.5", "", HUGE]:
        says = f"ERR {what} is '{bad}'…{least} to {most}"
        MISTAKES[says] = [form.format(bad if bad != "" else "''") for form in forms]
for bad in ["x", "-1", 2**40 + 1]:
    MISTAKES[f"ERR the time of RATE is '{bad}'…0 to {2**40}"] = with_each(["LB.LIMIT web RATE 0"], bad)
for command, most in [("LB.TICK", 2**47), ("LB.EPOCH", 2**64 - 1)]:
    bad = ["x", "-1", "01", "1.0", "''", most + 1, HUGE]
    MISTAKES[f"ERR a…is an integer from 0 to {most}"] = [
        f"{command} {key} {b}" for b in bad for key in ("web", "none")
    ]
for name, command in COMMANDS.items():
    MISTAKES[f"ERR wrong number of arguments for '{name.lower()}'"] = [*miscounted(command)]

MISTAKES["ERR a version of the rules is an integer from 1 to 2"] = [
    f"LB.RULES {key} {bad}" for bad in ["x", "-1", "01", "''", 0, 3, 256, HUGE] for key in ("web", "none")
]

EACH = [(command, says) for says, commands in MISTAKES.items() for command in commands]

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
    "LB.PICK web LEASE {}",
    "LB.PICK web LEASE 9 {}",
    "LB.PICK web BLOCK {}",
    "LB.PICK web STICKY s {}",
    "LB.PICK web STICKY s 9 {}",
    "LB.PEEK web STICKY s {}",
    "LB.PICK web BLOCK 1 PRIO {}",
    "LB.QUEUE web {}",
    "LB.QUEUE web MAX {}",
    "LB.QUEUE web ORDER {}",
    "LB.DONE web 7-1 {}",
    "LB.DONE web 7-1 LATENCY {}",
    "LB.REPORT web a {}",
    "LB.REPORT web a LOAD {}",
    "LB.REPORT web a COOL {}",
    "LB.HEALTH web {}",
    "LB.HEALTH web FAILRATE {}",
    "LB.RENEW web 7-1 {}",
    "LB.RELEASE web {} o",
    "LB.LEASES web {}",
    "LB.LEASES web COUNT {}",
    "LB.LIMIT web {}",
    "LB.LIMIT web BACKEND {} MAX 1",
    "LB.LIMIT web MAX {}",
    "LB.LIMIT web RATE {} 1",
    "LB.LIMIT web RATE 1 {}",
    "LB.LIMIT web BACKEND a TIER {}",
    "LB.TICK web {}",
    "LB.EPOCH web {}",
]


@pytest.fixture
def wire(server):
    """A connection to a server with the pools `web` and `dice`, and with a `text`."""
    with Wire(server.port) as wire:
        prepare(wire)
        yield wire


def prepare(wire):
    """Makes what the commands here are sent to. In `web` time matters: what ticks it shows."""
    for command in ["LB.ADD web a 5 b 1", "LB.PICK web COUNT 3", "LB.POLICY dice random", "SET text text"]:
        wire.ask(command)
    for command in ["LB.PICK web LEASE 100000000 OWNER o", "LB.LIMIT web BACKEND a MAX 9 RATE 9 1000000"]:
        wire.ask(command)


def ask(wire, command):
    """The answer to a command that is written as in a shell."""
    return wire.ask([word.encode() for word in shlex.split(command)])


def state(wire):
    """All that a command could have changed: the pools, and how much was ever written."""
    changes = re.search(rb"rdb_changes_since_last_save:(\d+)", wire.ask("INFO persistence"))[1]
    pools = [wire.ask(f"DEBUG DIGEST-VALUE {key}") for key in ["web", "dice"]]
    return wire.ask("LB.STATS web"), pools, wire.ask("DBSIZE"), wire.ask("GET text"), changes


@pytest.mark.parametrize(("command", "says"), EACH, ids=[command[:60] for command, _ in EACH])
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
        assert events.get_message(timeout=SECONDS)["type"] == "psubscribe"
        for command, _ in EACH:
            assert isinstance(ask(wire, command), Refused)
        assert server.client().info("persistence")["aof_current_size"] == size
        wire.ask("SET end x")
        assert "end" in events.get_message(timeout=SECONDS)["channel"]


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
    uses = [f"LB.PICK new {algorithm} COUNT 9 LEASE 9" for algorithm in [*ALL, "hash item"]]
    uses += ["LB.PEEK new wrr", "LB.STATS new", "LB.LEASES new", "LB.WHEN new", "LB.RELEASE new OWNER o"]
    uses += ["LB.ADD new b 3", "LB.REM new a", "DUMP new", "DEL new"]
    outcomes = set()
    for command in commands:
        outcomes.add(type(wire.ask(command)))
        for use in uses:
            wire.ask(use)
    assert outcomes == {str, Refused}
    assert wire.ask("PING") == "PONG"


@pytest.mark.parametrize("payload", [PAYLOAD, LEASED], ids=["a pool", "one with leases and limits"])
def test_a_damaged_payload_does_no_harm(wire, payload):
    for end in range(len(payload)):
        assert "payload" in wire.ask([b"LB.LOAD", b"new", payload[:end]])
    assert_harmless(wire, ([b"LB.LOAD", b"new", some] for some in damaged(payload)))


def test_a_damaged_dump_does_no_harm(wire):
    wire.ask("LB.PICK web random")
    dump = Dump(wire.ask("DUMP web"))
    # What comes first says that a pool of this module follows: other values are the server's own affair.
    bodies = (dump.body[:10] + rest for rest in damaged(dump.body[10:]))
    assert_harmless(wire, ([b"RESTORE", b"new", b"0", dump.sealed(body)] for body in bodies))
