"""The slowest single execution of each command, in the worst situations that we could think of.

Each situation is made anew, with a million open leases and a hundred thousand backends. SLOWLOG tells how
long each command then held the server up. So that no other program is counted, the server has priority over
them, where that is allowed, and a situation is repeated: of its rounds the best counts. The timer of
the module is no command: a PING beside it shows how long it holds the server up,.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from server import Server, eventually
from servers import Binary
from wire import Wire, pack, read

from .members import ask, mixed, name, pool
from .values import number

KEY, OWNER = "pool", "gateway-1"
LONG = 10**9
ALGORITHMS = "wrr", "lc", "rr", "random", "wrandom", "p2c"
PLAIN, AS_LARGE, FIRST = "", "its argument or its reply is as large", "the first use of an algorithm"
TIMER = "PING beside the timer"


@dataclass(frozen=True)
class Size:
    """How large it is."""

    leases: int
    backends: int
    waiters: int

    def __str__(self) -> str:
        return f"{self.leases:,} leases, {self.backends:,} backends"


@dataclass(frozen=True)
class Situation:
    """How a pool comes into it, and what is then sent in one piece."""

    title: str
    make: Callable[[Wire, Size], None]
    commands: Callable[[Wire, Size], Iterable[list[bytes]]]
    why: str = PLAIN  # It may take longer.
    is_long: bool = False  # Whether only what took long is noted, of very many commands.
    has_timer: bool = False  # Whether the timer has work afterwards.


FULL, QUICK = Size(1_000_000, 100_000, 2_000), Size(50_000, 5_000, 100)


def command(*words: object) -> list[bytes]:
    """One as it is sent."""
    return [word if isinstance(word, bytes) else str(word).encode() for word in words]


def unheard(wire: Wire, commands: Iterable[list[bytes]]) -> None:
    """Sends commands whose replies nobody wants."""
    wire.send(pack(command("CLIENT", "REPLY", "OFF")))
    some: list[bytes] = []
    for one in commands:
        some.append(pack(one))
        if len(some) == 1000:
            wire.send(b"".join(some))
            some = []
    wire.send(b"".join(some) + pack(command("CLIENT", "REPLY", "ON")))
    if (reply := wire.read()) != "OK":
        raise RuntimeError(reply)


# Pools


def backends(wire: Wire, size: Size) -> None:
    """Nothing but backends."""
    pool(wire, KEY, size.backends, mixed)


def leased(wire: Wire, size: Size, ms: int = LONG) -> None:
    """All leases, over all backends, of one owner."""
    backends(wire, size)
    grant(wire, size, ms)


def grant(wire: Wire, size: Size, ms: int) -> None:
    """The leases."""
    batch = command("LB.PICK", KEY, "COUNT", 10_000, "LEASE", ms, "OWNER", OWNER)
    unheard(wire, [batch] * (size.leases // 10_000))
    if (found := info(wire)[b"leases"]) != size.leases:
        raise RuntimeError(f"{found} leases are open, not {size.leases}: some have ended already")


def soon_over(wire: Wire, size: Size) -> None:
    """The same for as long as it takes to grant them."""
    leased(wire, size, 1000 + size.leases // 200)


def narrow(wire: Wire, size: Size) -> None:
    """Half of the leases on each of two backends."""
    pool(wire, KEY, 2, lambda i: 1)
    grant(wire, size, LONG)


def closed(wire: Wire, size: Size) -> None:
    """Every backend has as many leases as it may."""
    pool(wire, KEY, size.backends, lambda i: 1)
    grant(wire, size, LONG)
    limit = partial(command, "LB.LIMIT", KEY, "BACKEND")
    unheard(wire, (limit(name(i), "MAX", size.leases // size.backends) for i in range(size.backends)))
    if (picked := ask(wire, "LB.PICK", KEY)) is not None:
        raise RuntimeError(f"{picked} is not at its MAX")


def closed_whole(wire: Wire, size: Size) -> None:
    """The pool has as many leases as it may."""
    leased(wire, size)
    ask(wire, "LB.LIMIT", KEY, "MAX", size.leases)


def upper(wire: Wire, size: Size) -> None:
    """All backends are in tier 1."""
    backends(wire, size)
    limit = partial(command, "LB.LIMIT", KEY, "BACKEND")
    unheard(wire, (limit(name(i), "TIER", 1) for i in range(size.backends)))
    ask(wire, "LB.PICK", KEY)


def info(wire: Wire) -> dict[bytes, object]:
    """LB.INFO."""
    return mapped(ask(wire, "LB.INFO", KEY))


def mapped(flat: list) -> dict[bytes, object]:
    """A map as RESP2 has it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


# What is sent


def every(wire: Wire, size: Size) -> Iterator[list[bytes]]:
    """Each command that names one backend, lease or owner, or nothing."""
    oldest = ask(wire, "LB.LEASES", KEY, "COUNT", 1)
    lease = mapped(oldest[0])[b"lease"] if oldest else b"1-1"
    middle = name(ask(wire, "LB.CARD", KEY) // 2)
    for algorithm in [], *([a] for a in ALGORITHMS):
        yield command("LB.PICK", KEY, *algorithm)
        yield command("LB.PICK", KEY, *algorithm, "LEASE", LONG, "OWNER", "other")
    yield command("LB.PICK", KEY, "EXCLUDE", 1, middle)
    yield command("LB.PICK", KEY, "lc", "EXCLUDE", 1, middle)
    for words in (
        ("LB.PEEK", KEY),
        ("LB.PEEK", KEY, "lc"),
        ("LB.DONE", KEY, lease),
        ("LB.DONE", KEY, lease),
        ("LB.RENEW", KEY, lease, 1000),
        ("LB.LEASES", KEY, "COUNT", 10),
        ("LB.LEASES", KEY, "BACKEND", middle, "COUNT", 10),
        ("LB.LEASES", KEY, "OWNER", "other", "COUNT", 10),
        ("LB.RELEASE", KEY, "OWNER", "other"),
        ("LB.WHEN", KEY),
        ("LB.INFO", KEY),
        ("LB.STATS", KEY, middle),
        ("LB.CARD", KEY),
        ("LB.POLICY", KEY),
        ("LB.POLICY", KEY, "lc"),
        ("LB.LIMIT", KEY),
        ("LB.LIMIT", KEY, "BACKEND", middle, "MAX", 5),
        ("LB.LIMIT", KEY, "BACKEND", middle, "RATE", 5, 1000),
        ("LB.LIMIT", KEY, "MAX", LONG),
        ("LB.WEIGHT", KEY, middle),
        ("LB.WEIGHT", KEY, middle, 77),
        ("LB.STATE", KEY, middle),
        ("LB.STATE", KEY, middle, "drain"),
        ("LB.STATE", KEY, middle, "down"),
        ("LB.STATE", KEY, middle, "up"),
        ("LB.ADD", KEY, "newcomer", 1),
        ("LB.REM", KEY, "newcomer"),
        ("LB.REM", KEY, middle),
        ("LB.ADD", KEY, middle, 1),
        ("LB.SEED", KEY, 1),
        ("LB.EPOCH", KEY, 1),
        ("LB.RULES", KEY, 1),
        ("LB.TICK", KEY, 1),
    ):
        yield command(*words)


def ids(wire: Wire, size: Size) -> list[bytes]:
    """Some of the leases, from all over the pool."""
    picked = ask(wire, "LB.PICK", KEY, "COUNT", 10_000, "LEASE", LONG)
    return [lease for _, lease in picked]


def ends(wire: Wire, size: Size) -> Iterator[list[bytes]]:
    """Leases are renewed and ended one by one."""
    for lease in ids(wire, size):
        yield command("LB.RENEW", KEY, lease, 500_000)
        yield command("LB.DONE", KEY, lease)


def after(*words: object) -> Callable[[Wire, Size], Iterable[list[bytes]]]:
    """That, and at once every other command."""
    return lambda wire, size: [command(*words), *every(wire, size)]


def only(*of: tuple) -> Callable[[Wire, Size], Iterable[list[bytes]]]:
    """These."""
    return lambda wire, size: [command(*words) for words in of]


lower = only(
    ("LB.ADD", KEY, "new", 1), ("LB.PICK", KEY), ("LB.STATE", KEY, "new", "down"), ("LB.PICK", KEY, "lc")
)


def after_pause(wire: Wire, size: Size) -> Iterator[list[bytes]]:
    """The server stands still until all leases are over; then every command."""
    left = mapped(ask(wire, "LB.LEASES", KEY, "COUNT", 10_000)[-1])[b"remaining"]
    return [command("DEBUG", "SLEEP", (left + 500) / 1000), *every(wire, size)]


def large(wire: Wire, size: Size) -> Iterator[list[bytes]]:
    """Commands of many backends at once."""
    for words in (
        ("LB.LIST", KEY),
        ("LB.STATS", KEY),
        ("LB.LEASES", KEY, "COUNT", 10_000),
        ("LB.LEASES", KEY, "BACKEND", name(size.backends - 1)),
        ("LB.LEASES", KEY, "OWNER", OWNER, "COUNT", 10_000),
        ("LB.PICK", KEY, "COUNT", 10_000),
        ("LB.PICK", KEY, "lc", "COUNT", 10_000, "DISTINCT"),
        ("LB.PEEK", KEY, "COUNT", 10_000),
        ("LB.PICK", KEY, "lc", "EXCLUDE", 1000, *map(name, range(1000))),
        ("DUMP", KEY),
        ("LB.SET", KEY, *(word for i in range(1000, size.backends) for word in (name(i), 3))),
        ("LB.ADD", KEY, *(word for i in range(1000) for word in (name(i), 3))),
        ("LB.REM", KEY, *map(name, range(1000))),
        ("DEL", KEY),
    ):
        yield command(*words)


def loaded(wire: Wire, size: Size) -> list[list[bytes]]:
    """The pool as a rewritten AOF has it."""
    ask(wire, "CONFIG", "SET", "aof-use-rdb-preamble", "no")
    ask(wire, "BGREWRITEAOF")
    eventually(lambda: not number(wire, "persistence", "aof_rewrite_in_progress"), 120)
    files = Path(ask(wire, "CONFIG", "GET", "dir")[1].decode()).glob("appendonlydir/*.base.aof")
    with max(files, key=lambda file: file.stat().st_mtime).open("rb") as file:
        while (one := read(file))[0] != b"LB.LOAD":
            pass
    return [[*one[:3], b"REPLACE"]]


def grants(wire: Wire, size: Size) -> Iterator[list[bytes]]:
    """One lease after the other."""
    one = command("LB.PICK", KEY, "LEASE", LONG, "OWNER", OWNER)
    return (one for _ in range(size.leases))


def removals(wire: Wire, size: Size) -> Iterator[list[bytes]]:
    """All backends but one leave one by one."""
    return (command("LB.REM", KEY, name(i)) for i in range(size.backends - 1))


def arrivals(wire: Wire, size: Size) -> Iterator[list[bytes]]:
    """They come one by one."""
    return (command("LB.ADD", KEY, name(i), mixed(i)) for i in range(size.backends))


def situations() -> list[Situation]:
    """All of them."""
    released = after("LB.RELEASE", KEY, "OWNER", OWNER)
    down, removed = after("LB.STATE", KEY, name(0), "down"), after("LB.REM", KEY, name(0))
    return [
        Situation("among open leases", leased, every),
        Situation("10,000 leases end among the open ones", leased, ends),
        Situation("after a pause in which all leases ended", soon_over, after_pause, has_timer=True),
        Situation("the owner of all is released", leased, released, has_timer=True),
        Situation("a backend with half of all leases goes down", narrow, down, has_timer=True),
        Situation("a backend with half of all leases is removed", narrow, removed, has_timer=True),
        Situation("every backend is at its MAX", closed, after("LB.WHEN", KEY)),
        Situation("the pool is at its MAX", closed_whole, after("LB.WHEN", KEY)),
        Situation("all backends are in tier 1", upper, every),
        Situation("leases come one by one", backends, grants, is_long=True),
        Situation("backends come one by one", lambda wire, size: None, arrivals, is_long=True),
        Situation("backends leave one by one", leased, removals, is_long=True, has_timer=True),
        *(
            Situation(f"the first pick by {a}", backends, only(("LB.PICK", KEY, a)), FIRST)
            for a in ALGORITHMS
        ),
        Situation("a tier is opened", leased, only(("LB.LIMIT", KEY, "BACKEND", name(7), "TIER", 1))),
        Situation("a backend in tier 0 joins those in tier 1", upper, lower),
        Situation("of many backends at once", leased, large, AS_LARGE),
        Situation("a rewritten AOF is loaded", leased, loaded, AS_LARGE),
    ]


# Measuring


def noted(wire: Wire) -> dict[str, float]:
    """By command: the milliseconds of its slowest execution that SLOWLOG has noted."""
    slowest: dict[str, float] = {}
    for _, _, micros, words, *_ in ask(wire, "SLOWLOG", "GET", -1):
        title = words[0].decode().upper()
        slowest[title] = max(slowest.get(title, 0), micros / 1000)
    return {title: ms for title, ms in slowest.items() if title.startswith("LB.") or title in ("DUMP", "DEL")}


def listen(wire: Wire, above: int) -> None:
    """Has SLOWLOG note what takes more microseconds than that."""
    ask(wire, "CONFIG", "SET", "slowlog-log-slower-than", above)
    ask(wire, "SLOWLOG", "RESET")


def executed(wire: Wire, situation: Situation, size: Size) -> dict[str, float]:
    """By command: the milliseconds of its slowest execution."""
    listen(wire, -1)
    ask(wire, "FLUSHALL", "SYNC")
    situation.make(wire, size)
    commands = situation.commands(wire, size)
    if not situation.is_long:
        commands = [*commands]
    listen(wire, 200 if situation.is_long else 0)
    errors = number(wire, "stats", "total_error_replies")
    unheard(wire, commands)
    found = noted(wire)
    if number(wire, "stats", "total_error_replies") > errors:
        raise RuntimeError(f"{situation.title}: the server refused some of it")
    if situation.has_timer:
        listen(wire, -1)
        found[TIMER] = longest_ping(wire, size.leases / 1e6)
    return found


def longest_ping(wire: Wire, seconds: float) -> float:
    """The milliseconds of the longest PING in that time, one after the other."""
    longest, end = 0.0, time.perf_counter() + seconds
    with before_others(os.getpid()):
        while (start := time.perf_counter()) < end:
            ask(wire, "PING")
            longest = max(longest, time.perf_counter() - start)
    return longest * 1000


def with_waiters(wire: Wire, server: Server, size: Size) -> dict[str, float]:
    """Many wait, and each has a list of its own of what it excludes. Only the last one can use what comes."""
    listen(wire, -1)
    ask(wire, "FLUSHALL", "SYNC")
    ask(wire, "LB.ADD", KEY, "busy", 0)
    with ExitStack() as stack:
        for i in range(size.waiters):
            waiter = stack.enter_context(Wire(server.port))
            excluded = [] if i == size.waiters - 1 else ["newcomer", *(f"w{i}-{j}" for j in range(999))]
            exclude = ["EXCLUDE", len(excluded), *excluded] if excluded else []
            waiter.send(pack(command("LB.PICK", KEY, *exclude, "BLOCK", 0)))
        eventually(lambda: number(wire, "clients", "blocked_clients") == size.waiters, 60)
        listen(wire, 0)
        ask(wire, "LB.ADD", KEY, "newcomer", 1)
        if waiter.read() != b"newcomer":
            raise RuntimeError("the last one who waits was not served")
        found = noted(wire)
        ask(wire, "DEL", KEY)
    return {"LB.ADD": found["LB.ADD"]}


@contextmanager
def before_others(process: int) -> Iterator[None]:
    """The main thread of that process waits for no other program, where that is allowed."""
    with suppress(PermissionError):
        os.sched_setscheduler(process, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.sched_setscheduler(process, os.SCHED_OTHER, os.sched_param(0))


def slowest(binary: Binary, module: Path, is_quick: bool, say: Callable[[str], None]) -> dict:
    """By situation: why it may take long, and the milliseconds of the slowest execution of each command."""
    size, rounds = (QUICK, 1) if is_quick else (FULL, 2)
    found: dict[str, dict] = {}
    with ExitStack() as stack:
        server = stack.enter_context(Server(binary, module, slowlog_max_len=100_000))
        wire = stack.enter_context(Wire(server.port))
        stack.enter_context(before_others(number(wire, "server", "process_id")))
        waiters = f"{size.waiters:,} wait for others"
        for situation in situations():
            say(f"{binary.name}: {situation.title}")
            runs = [executed(wire, situation, size) for _ in range(rounds)]
            found[situation.title] = {"why": situation.why, "ms": least(runs)}
        say(f"{binary.name}: {waiters}")
        runs = [with_waiters(wire, server, size) for _ in range(rounds)]
        found[waiters] = {"why": PLAIN, "ms": least(runs)}
        seen = {title for of in found.values() for title in of["ms"]}
        unseen = {
            c.decode().upper() for c in ask(wire, "COMMAND", "LIST", "FILTERBY", "PATTERN", "lb.*")
        } - seen
    if unseen:
        say(f"no situation has {', '.join(sorted(unseen))}")
    return {"size": str(size), "situations": found}


def least(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each command the best round. What a round has not noted was short."""
    return {
        title: min(run.get(title, 0) for run in runs)
        for title in dict.fromkeys(t for run in runs for t in run)
    }


def of_commands(situations: dict[str, dict]) -> list[tuple[str, float, str, str]]:
    """Of each command the slowest execution: its milliseconds, where, and why it may take long."""
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    for title, of in situations.items():
        for command, ms in of["ms"].items():
            at = command, of["why"]
            worst[at] = max(worst.get(at, (0, "")), (ms, title))
    found = [(command, ms, title, why) for (command, why), (ms, title) in worst.items()]
    return sorted(found, key=lambda of: (of[3], -of[1]))


def unbounded(of: dict) -> float:
    """The milliseconds of the slowest of those that must not take long, at full size."""
    found = of_commands(of["situations"]) if of["size"] == str(FULL) else []
    return max(ms for command, ms, _, why in found if why == PLAIN and command != TIMER)
