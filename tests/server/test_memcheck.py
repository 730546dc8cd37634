"""The module touches no memory that is not its own, and forgets none: memcheck of valgrind watches a server.

The module takes its memory from the server's allocator. Memcheck sees what is done to it only if it can put
its own malloc in the place of that one: it can where jemalloc is a library, as in Debian.
"""

import re
import shutil

import pytest

from algorithms import BLIND
from conftest import OPEN, module
from damage import Target
from memory import limit
from server import Server, eventually
from servers import Binary, installed
from wire import Refused, Wire

pytestmark = pytest.mark.timeout(600)

# As in the sources of Redis: to compress is to guess, by a table that need not be filled.
KNOWN = """
{
   jump
   Memcheck:Cond
   fun:lzf_compress
}
{
   index
   Memcheck:Value8
   fun:lzf_compress
}
"""

MEMCHECK = """#!/bin/sh
exec valgrind --log-file=memcheck.%p --soname-synonyms=somalloc='*jemalloc*' --track-origins=yes \\
  --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \\
  --suppressions='{known}' --num-callers=40 '{program}' "$@"
"""

# With fewer allocations than these memcheck has not seen those of the server.
ALLOCATIONS = 200_000

# Damaged payloads (damage.py), by RESTORE and by LB.LOAD.
DAMAGED = 2500

# Every command in its forms; what is refused leaves by other ways than what is done.
COMMANDS = """
    LB.ADD web a
    LB.ADD web a 5 b 3 c 2 d 1 e 0
    LB.ADD web a b c
    LB.ADD web a 1 b 65536
    LB.SET web a 4 b 3 f 9
    LB.SET web a
    LB.REM web f nobody
    LB.WEIGHT web a
    LB.WEIGHT web nobody
    LB.WEIGHT web a 7 b 2
    LB.WEIGHT web nobody 1
    LB.STATE web a
    LB.STATE web a drain
    LB.STATE web a sideways
    LB.STATE web nobody up
    LB.STATE web a up
    LB.POLICY web
    LB.POLICY web rr
    LB.POLICY web fastest
    LB.POLICY web wrr
    LB.HEALTH web
    LB.HEALTH web FAILS 2 FAILRATE 50 EJECT 1 SLOWSTART 10 ADAPT 1
    LB.HEALTH web FAILS x
    LB.REPORT web a OK LATENCY 900 LOAD 0.5
    LB.REPORT web a FAIL
    LB.REPORT web a FAIL
    LB.REPORT web b COOL 1
    LB.REPORT web nobody FAIL
    LB.REPORT web a LOAD x
    LB.PICK web ewma LEASE 1000
    LB.PICK web ewma COUNT 9 LEASE 1000
    LB.PEEK web ewma COUNT 9
    LB.LIMIT web BALANCE 125
    LB.PICK web hash item
    LB.PICK web hash item COUNT 40 DISTINCT LEASE 1000
    LB.PEEK web hash item COUNT 40
    LB.PICK web STICKY s 1000
    LB.FORGET web s
    LB.QUEUE web MAX 3 ORDER fair
    LB.QUEUE web MAX 0 ORDER fifo
    LB.HEALTH web FAILS 0 FAILRATE 0 SLOWSTART 0 ADAPT 0
    LB.LIST web
    LB.CARD web
    LB.PICK web
    LB.PICK web RR
    LB.PICK web random
    LB.PICK web fastest
    LB.PICK web COUNT 7
    LB.PICK web COUNT 10000
    LB.PICK web COUNT 0
    LB.PICK web COUNT 9 DISTINCT EXCLUDE 2 a nobody
    LB.PICK web wrandom COUNT 9 DISTINCT
    LB.PICK web DISTINCT
    LB.PICK web EXCLUDE 9 a
    LB.PEEK web COUNT 20 EXCLUDE 1 b
    LB.PEEK web random
    LB.INFO web
    LB.STATS web
    LB.STATS web a
    LB.PICK web lc COUNT 3 LEASE 1000 OWNER gateway
    LB.PICK web p2c LEASE 60000
    LB.PICK web LEASE 0
    LB.PICK web OWNER gateway
    LB.PICK web BLOCK 1 EXCLUDE 4 a b c d
    LB.PEEK web lc COUNT 3
    LB.LEASES web
    LB.LEASES web BACKEND a OWNER gateway COUNT 1
    LB.DONE web 1-1 FAIL LATENCY 5
    LB.DONE web nonsense
    LB.RENEW web 1-1 1000
    LB.LIMIT web BACKEND a MAX 1 RATE 5 1000 BURST 2 TIER 1
    LB.LIMIT web MAX 1
    LB.LIMIT web BACKEND a
    LB.LIMIT web BACKEND nobody MAX 1
    LB.PICK web COUNT 5 LEASE 10
    LB.PICK web LEASE 10
    LB.WHEN web
    LB.LIMIT web MAX 0
    LB.TICK web 1
    LB.TICK web 99999999999999
    LB.EPOCH web 7
    LB.RULES web 2
    LB.RELEASE web OWNER gateway
    LB.STATE web b down
    LB.STATE web b up
    LB.STATS web a b
    LB.SEED web 42
    LB.SEED web -1
    LB.LOAD web payload
    LB.LOAD new payload REPLACE
    LB.LOAD new payload OTHERWISE
    SET string 1
    LB.PICK string
    LB.ADD string a
    LB.LOAD string payload
    TYPE web
    OBJECT ENCODING web
    MEMORY USAGE web
    DEBUG DIGEST
    DEBUG DIGEST-VALUE web
    MULTI
    LB.PICK web
    LB.REM web nobody
    LB.PICK web rr COUNT 2
    EXEC
    LB.REM web a b c d e
    EXISTS web
"""


# What else the server asks of the module. Another thread frees `big`.
JOURNEYS = """
    INFO everything
    COMMAND INFO LB.PICK LB.ADD
    COMMAND DOCS LB.PICK LB.ADD
    COMMAND GETKEYS LB.PICK web rr
    COPY big copy
    COPY poisoned nowhere
    RENAME copy renamed
    OBJECT IDLETIME renamed
    MEMORY USAGE poisoned
    DEBUG DIGEST
    MOVE renamed 1
    SAVE
    DEBUG RELOAD
    BGREWRITEAOF
    BGSAVE
    DEBUG LOADAOF
    UNLINK big
    FLUSHDB ASYNC
    FLUSHALL SYNC
"""
CHILDREN = 2

BIG = 3000


@pytest.fixture
def server(binary, tmp_path):
    """A server under memcheck. What that has found is read when the server has ended."""
    if binary != installed():
        pytest.skip("memcheck watches the installed server, whose allocator is a library")
    if not shutil.which("valgrind"):
        pytest.skip("there is no valgrind here (Debian's package valgrind)")
    known = tmp_path / "known"
    known.write_text(KNOWN)
    program = tmp_path / "redis-server"
    program.write_text(MEMCHECK.format(program=binary.path, known=known))
    program.chmod(0o755)
    options = {"appendonly": "yes", "aof_use_rdb_preamble": "no"}
    server = Server(Binary(binary.name, program), module(), **options)
    OPEN.append(server)
    try:
        yield server.start()
        server.stop()
        # One of the server itself, and one of each child that saved for it.
        logs = [log.read_text() for log in server.folder.glob("memcheck.*")]
        assert len(logs) > CHILDREN
        # A child counts on from what the server had.
        found = [log for log in logs if "ERROR SUMMARY: 0 errors" not in log]
        assert not found, "\n".join(found)
        seen = [re.search(r"heap usage: ([\d,]+) allocs", log)[1].replace(",", "") for log in logs]
        assert max(map(int, seen)) > ALLOCATIONS
    finally:
        OPEN.remove(server)
        server.close()


def run(wire, commands):
    """Runs commands, one a line; children that save and threads that free are waited for."""
    busy = rb"(rewrite_in_progress|bgsave_in_progress|rewrite_scheduled|lazyfree_pending_objects):[^0]"
    for command in commands.split("\n"):
        if command := command.strip():
            wire.ask(command)
            if command.split()[0] in {"BGSAVE", "BGREWRITEAOF", "UNLINK", "FLUSHDB"}:
                eventually(lambda: not re.search(busy, wire.ask("INFO")))


def change(wire):
    """A pool grows, is picked from, and shrinks, so that each of its tables is made, and made anew."""
    names = [f"{n}:{'long' * (n % 40)}" for n in range(BIG)]
    for first in range(0, BIG, 500):
        pairs = " ".join(f"{name} {len(name)}" for name in names[first : first + 500])
        wire.ask(f"LB.ADD big {pairs}")
        for algorithm in BLIND:
            wire.ask(f"LB.PICK big {algorithm} COUNT 200 DISTINCT EXCLUDE 2 {names[0]} {names[first]}")
            wire.ask(f"LB.PEEK big {algorithm} COUNT 50")
    wire.ask(f"LB.REM big {' '.join(names[1::3])}")
    wire.ask(f"LB.SET big {' '.join(f'{name} 2' for name in names[::2])}")
    for command in "LB.LIST", "LB.STATS", "LB.PICK":
        answer = wire.ask(f"{command} big")
        assert answer and not isinstance(answer, Refused), f"{command}: {answer}"


def test_memcheck_finds_nothing(server, binary):
    with Wire(server.port) as wire:
        all_commands = {name.decode().upper() for name in wire.ask("COMMAND LIST FILTERBY MODULE lb")}
        assert all_commands <= set(COMMANDS.split())
        for protocol in 2, 3:
            wire.ask(f"HELLO {protocol}")
            run(wire, COMMANDS)
        wire.ask("HELLO 2")
        change(wire)
        wire.ask([b"LB.LOAD", b"poisoned", b"\0"])
        run(wire, JOURNEYS)
    limit(server)
    with Target(server, "memcheck") as target:
        for command in "RESTORE", "LB.LOAD":
            target.use(target.hit(command, DAMAGED))
        target.hit("RESTORE", DAMAGED)
        target.ask("FLUSHALL ASYNC")
