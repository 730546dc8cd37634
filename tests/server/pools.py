"""Pools of all kinds in the middle of their lives, and what they are asked to be told apart."""

import random

from algorithms import ALGORITHMS, BLIND, packed
from server import Server
from wire import Refused, Wire, words

ODD = b"\0\r\n\xff"
KEYS = [b"web", b"large", ODD, b"policy", b"busy", b"limit", b"over", b"sessions", b"costs"]


def large():
    """Commands that make a pool with 2,000 backends of a hundred weights, and take every third one away."""
    weight = random.Random(1).randint
    yield " ".join(["LB.ADD large", *(f"b{n} {weight(1, 100)}" for n in range(2000))])
    yield "LB.SEED large 1"
    yield from ("LB.PICK large rr COUNT 700", "LB.PICK large COUNT 3000", "LB.PICK large wrandom COUNT 9")
    yield " ".join(["LB.REM large", *(f"b{n}" for n in range(0, 2000, 3))])
    yield "LB.PICK large COUNT 99"


def busy():
    """Commands that make a pool with leases of two epochs and limits of all kinds."""
    yield from ("LB.ADD busy a 5 b 3 c 2 d 1 e 1", "LB.SEED busy 1")
    # The first epoch is the server's own, so nothing of it stays.
    yield from ("LB.PICK busy LEASE 1 OWNER opener", "LB.RELEASE busy OWNER opener", "LB.EPOCH busy 7")
    yield from ("LB.TICK busy 4000", "LB.LIMIT busy MAX 90 RATE 70 1000 BURST 80")
    yield from ("LB.LIMIT busy BACKEND a MAX 3", "LB.LIMIT busy BACKEND b RATE 1 300 BURST 4")
    yield from ("LB.LIMIT busy BACKEND c TIER 1 MAX 9 RATE 3 7", "LB.LIMIT busy BACKEND d TIER 255")
    yield from (
        "LB.PICK busy COUNT 5 LEASE 60000 OWNER o",
        "LB.PICK busy rr LEASE 200",
        "LB.PICK busy LEASE 9000",
    )
    yield from ("LB.EPOCH busy 8", "LB.PICK busy lc COUNT 9 LEASE 30000 OWNER p", "LB.PICK busy p2c LEASE 99")
    yield from ("LB.DONE busy 7-1 FAIL LATENCY 900", "LB.DONE busy 7-3", "LB.RENEW busy 7-4 70000")
    yield from ("LB.TICK busy 5000", "LB.REM busy e", "LB.PICK busy EXCLUDE 2 a b LEASE 500 OWNER o")


def over():
    """Commands that make a pool by version 2 of the rules, in the middle of clearing what is over."""
    yield from ("LB.ADD over a 5 b 3 gone 4 c 2", "LB.SEED over 1")
    yield from ("LB.PICK over LEASE 1 OWNER opener", "LB.RELEASE over OWNER opener", "LB.EPOCH over 7")
    yield from ("LB.RULES over 2", "LB.TICK over 4000", "LB.LIMIT over MAX 3000")
    yield from ("LB.LIMIT over BACKEND c RATE 1 300", "LB.LIMIT over BACKEND b RATE 3 900 BURST 2")
    yield "LB.PICK over COUNT 20 LEASE 60000"
    # The first 1,000 of these are cleared at 5000.
    yield "LB.PICK over EXCLUDE 3 b gone c COUNT 1200 LEASE 500 OWNER o"
    yield "LB.PICK over EXCLUDE 3 b gone c COUNT 200 LEASE 60000 OWNER o"
    yield "LB.PICK over EXCLUDE 3 a b c COUNT 100 LEASE 60000 OWNER p"
    yield from ("LB.REM over gone", "LB.RELEASE over OWNER o", "LB.STATE over b down", "LB.STATE over b up")
    yield from ("LB.PICK over LEASE 70000 OWNER o", "LB.TICK over 5000")


def sessions():
    """Commands that make a pool with sessions: some are over and not cleared, some have no backend."""
    yield from ("LB.ADD sessions a 5 b 3 gone 4 c 2", "LB.SEED sessions 1", "LB.RULES sessions 2")
    yield from ("LB.TICK sessions 4000", "LB.LIMIT sessions BACKEND b RATE 1 300 BURST 9")
    # The first 1,000 of these are cleared at 5000.
    yield from (f"LB.PICK sessions STICKY over-{n} 500" for n in range(1200))
    yield from (f"LB.PICK sessions rr STICKY {n} {100 * n + 2000}" for n in range(40))
    yield from ("LB.REM sessions gone", "LB.STATE sessions c drain", "LB.FORGET sessions 7")
    yield from (f"LB.PICK sessions lc STICKY {n} 60000" for n in range(12))
    yield "LB.TICK sessions 5000"


def costs():
    """Commands that make a pool with limited costs, of all, of each and of one, with debts and estimates."""
    yield from ("LB.ADD costs a 5 b 3 gone 4 c 2", "LB.SEED costs 1")
    yield from ("LB.PICK costs LEASE 1 OWNER opener", "LB.RELEASE costs OWNER opener", "LB.EPOCH costs 7")
    yield from ("LB.RULES costs 2", "LB.TICK costs 4000", "LB.LIMIT costs EACH MAX 30 RATE 90 1000 BURST 40")
    yield "LB.LIMIT costs EACH COST tokens 700 1000 BURST 90 COST images 3 700 BURST 4"
    yield "LB.LIMIT costs COST tokens 1500 1000 BURST 300 COST chars 9 90"
    yield "LB.LIMIT costs BACKEND b MAX 9 COST tokens 70 900 COST seconds 1 1"
    yield from (
        "LB.PICK costs COUNT 4 LEASE 60000 COSTS 2 tokens 50 images 1",
        "LB.PICK costs COSTS 1 tokens 999",
    )
    yield from ("LB.PICK costs EXCLUDE 1 a LEASE 300 COSTS 1 tokens 30", "LB.ADD costs d 2")
    yield from ("LB.DONE costs 7-1 OK COSTS 2 tokens 200 images 0", "LB.DONE costs 7-2 COSTS 1 tokens 7")
    yield from (
        "LB.REPORT costs d LEFT tokens 11",
        "LB.LIMIT costs BACKEND b COST seconds 0 0",
        "LB.REM costs gone",
    )
    yield from ("LB.LIMIT costs BALANCE 125", "LB.QUEUE costs MAX 9 ORDER fair", "LB.PICK costs random")
    yield from (f"LB.PICK costs hash item-{n % 3} LEASE 60000" for n in range(9))
    yield "LB.TICK costs 4100"


# Commands that make a pool of each kind, in the middle of all sequences.
MAKE = [
    "LB.ADD web a 5 b 3 gone 4 c 2 d 1",
    "LB.SEED web 18446744073709551615",
    *(f"LB.PICK web {algorithm} COUNT 13" for algorithm in BLIND),
    *(
        "LB.STATE web d drain",
        "LB.POLICY web wrandom",
        "LB.REM web gone",
        "LB.WEIGHT web a 7",
        "LB.ADD web e 0",
    ),
    "LB.PICK web wrr COUNT 2 DISTINCT EXCLUDE 1 a",
    *large(),
    [b"LB.ADD", ODD, b"\0", b"1", b"\xff" * 512, b"65535", b"\r\n", b"2"],
    [b"LB.SEED", ODD, b"0"],
    [b"LB.STATE", ODD, b"\0", b"down"],
    [b"LB.PICK", ODD, b"random"],
    "LB.POLICY policy rr",
    *busy(),
    *over(),
    *sessions(),
    *costs(),
    "LB.LIMIT limit MAX 3",
]
# The same, with seeds of the server's own.
MAKE_UNSEEDED = [command for command in MAKE if not words(command)[0] == b"LB.SEED"]


class Pools(Wire):
    """The pools of a server."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.port, protocol=3)

    def make(self, commands):
        """Runs commands, none of which is refused."""
        for command in commands:
            answer = self.ask(command)
            assert not isinstance(answer, Refused), f"{command}: {answer}"

    def digest(self, *keys):
        """What the state of these pools comes down to."""
        return self.ask([b"DEBUG", b"DIGEST-VALUE", *keys])

    def picks(self, *keys):
        """The next 50 picks of every algorithm from each of these pools, and what becomes of its leases."""
        looks = [[b"LB.LEASES"], [b"LB.WHEN"], [b"LB.LIMIT"], [b"LB.STATS"]]
        asked = [
            [b"LB.PICK", key, algorithm, b"COUNT", b"50"] for key in keys for algorithm in packed(ALGORITHMS)
        ]
        for time in (b"5100", b"20000"):
            asked += [[name, key, *rest] for key in keys for name, *rest in [[b"LB.TICK", time], *looks]]
            asked += [[b"LB.PICK", key, b"COUNT", b"9"] for key in keys]
            asked += [[b"LB.PICK", key, b"STICKY", b"%d" % n, b"99"] for key in keys for n in range(9)]
        return [self.ask(command) for command in asked]
