"""What a request costs that is balanced, counted and limited over a fleet: a command begins it, one ends it.

Each way is proven to keep what it claims before it is timed. Then `gateways.c` sends the load, as the second
command needs the reply to the first: for throughput and instructions in pieces of 64 commands, which end and
begin requests in turn; one by one from 1, 8 and 64 connections, over loopback and a Unix socket, for
latencies. The measure is the request, so INCR and DECR of one counter stand beside it.
"""

import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import callgrind
from server import Server, waiting
from wire import Refused, Wire, pack

from .compiled import compiled
from .load import apart, busy
from .members import ask, few, fill, mixed, name, pipelined
from .rivals import digest, text
from .values import number

Figures = dict[str, Any]
PIPELINE, CONNECTIONS = callgrind.PIPELINE // 2, 4  # Requests that a connection has open, two commands each.
SOCKET = "socket"
# Sorted sets that are no packed lists are what the rivals are fastest with.
SETTINGS = {"unixsocket": SOCKET, "zset_max_listpack_entries": 0}
MS, MOST = 60_000, 1000  # How long a lease lasts, and how many a backend may have: more than there will be.
FLEETS = 1, 8, 64
BALANCED, LIMITED, EXPIRES, ONCE, SURVIVES, WEIGHTED = PROMISES = (
    "the least busy backend is picked",
    "never more than the limit",
    "what a dead gateway holds comes back",
    "an end counts once",
    "goes on after a restart, or without its last requests",
    "by weight",
)
CHOICES = BALANCED, WEIGHTED


@dataclass(frozen=True)
class Terms:
    """Of which backends, how many requests each of them may have at once, and for how long one counts."""

    key: str
    weights: tuple[int, ...]
    most: int = MOST
    ms: int = MS

    @property
    def backends(self) -> list[str]:
        """Their names."""
        return [name(i).decode() for i in range(len(self.weights))]


@dataclass(frozen=True)
class Way:
    """How to do it. The commands are as gateways.c takes them."""

    title: str
    make: Callable[[Wire, Terms], None]
    begin: Callable[[Terms], list[str]]
    end: Callable[[Terms], list[str]]
    in_flight: Callable[[Wire, Terms], int]
    claims: frozenset[str] = frozenset()
    sizes: tuple[int, ...] = (3, 100)
    counted: int = 640  # Requests to count instructions of.
    has_latencies: bool = True
    is_rival: bool = True
    is_floor: bool = False

    @property
    def chooses(self) -> bool:
        """Whether it has backends at all."""
        return self.sizes != (1,)


def words(command: str) -> Callable[[Terms], list[str]]:
    """A command of the key, and what else the terms say."""

    def filled(terms: Terms) -> list[str]:
        known = {"key": terms.key, "most": terms.most, "ms": terms.ms}
        return [word.format(**known) for word in command.split()]

    return filled


# The ways


def module_way(title: str, policy: str, claims: set[str], **more: Any) -> Way:
    """A pool of that policy."""

    def make(wire: Wire, terms: Terms) -> None:
        pairs = zip(terms.backends, terms.weights, strict=True)
        fill(wire, "LB.ADD", terms.key, (part for pair in pairs for part in pair))
        ask(wire, "LB.POLICY", terms.key, policy)
        if LIMITED in claims:
            limit = f"LB.LIMIT {terms.key} BACKEND {{}} MAX {terms.most}"
            pipelined(wire, (limit.format(backend).encode().split() for backend in terms.backends))
        # In the middle of its life: the first picks look at all of it.
        for _ in range(max(3, len(terms.weights) // 10_000)):
            ask(wire, "LB.PICK", terms.key, "COUNT", min(10_000, 100 * len(terms.weights)))

    def in_flight(wire: Wire, terms: Terms) -> int:
        info = ask(wire, "LB.INFO", terms.key)
        return dict(zip(info[::2], info[1::2], strict=True))[b"leases"]

    begin, end = words("LB.PICK {key} LEASE {ms}"), words("LB.DONE {key} %2")
    return Way(title, make, begin, end, in_flight, frozenset(claims), is_rival=False, **more)


def counter() -> Way:
    """What the others are compared to. It counts, and chooses nothing."""

    def in_flight(wire: Wire, terms: Terms) -> int:
        return int(ask(wire, "GET", terms.key)) - 100_000_000

    def make(wire: Wire, terms: Terms) -> None:
        ask(wire, "SET", terms.key, 100_000_000)

    return Way(
        "INCR + DECR", make, words("INCR {key}"), words("DECR {key}"), in_flight, sizes=(1,), is_rival=False
    )


def floor(title: str, begin: str, end: str) -> Way:
    """What no module can be below: see floor.c."""

    def make(wire: Wire, terms: Terms) -> None:
        ask(wire, "LB.ADD", terms.key, "any")

    return Way(
        title,
        make,
        words(begin),
        words(end),
        lambda wire, terms: 0,
        sizes=(1,),
        has_latencies=False,
        is_rival=False,
        is_floor=True,
    )


def script(title: str, script: str, **more: Any) -> Way:
    """Counts in a hash or in a sorted set, that a plain command lowers."""
    is_hash = script == "minimum"

    def make(wire: Wire, terms: Terms) -> None:
        ask(wire, "SCRIPT", "LOAD", text(script))
        pairs = ((backend, 0) if is_hash else (0, backend) for backend in terms.backends)
        fill(wire, "HSET" if is_hash else "ZADD", terms.key, (part for pair in pairs for part in pair))

    def in_flight(wire: Wire, terms: Terms) -> int:
        counts = ask(wire, "HVALS", terms.key) if is_hash else scores(wire, terms.key).values()
        return sum(map(int, counts))

    begin = words(f"EVALSHA {digest(text(script))} 1 {{key}} {{most}}")
    end = words("HINCRBY {key} %1 -1" if is_hash else "ZINCRBY {key} -1 %1")
    return Way(title, make, begin, end, in_flight, frozenset({BALANCED, LIMITED, SURVIVES}), **more)


def leases(form: str, make: Callable, in_flight: Callable, begin: str, end: str) -> Way:
    """Leases with deadlines."""
    keys = "2 {key} {key}:leases"
    begins, ends = words(f"{begin} {keys} {{most}} {{ms}} %n"), words(f"{end} {keys} %1")
    claims = frozenset({BALANCED, LIMITED, EXPIRES, ONCE, SURVIVES})
    return Way(f"{form} + {form.split()[1]}_end", make, begins, ends, in_flight, claims)


def leases_by_script() -> Way:
    """In two sorted sets."""

    def make(wire: Wire, terms: Terms) -> None:
        for part in "leases", "leases_end":
            ask(wire, "SCRIPT", "LOAD", text(part))
        fill(wire, "ZADD", terms.key, (part for backend in terms.backends for part in (0, backend)))

    def in_flight(wire: Wire, terms: Terms) -> int:
        return sum(int(score) >> 42 for score in scores(wire, terms.key).values())

    begin, end = (f"EVALSHA {digest(text(part))}" for part in ("leases", "leases_end"))
    return leases("EVALSHA leases", make, in_flight, begin, end)


def leases_by_function() -> Way:
    """In a hash, and in Lua's memory."""

    def make(wire: Wire, terms: Terms) -> None:
        ask(wire, "FUNCTION", "LOAD", "REPLACE", text("held"))
        fill(wire, "HSET", f"{terms.key}:leases", (part for b in terms.backends for part in (b, "")))

    def in_flight(wire: Wire, terms: Terms) -> int:
        return sum(1 for value in ask(wire, "HVALS", f"{terms.key}:leases") if value)

    return leases("FCALL held", make, in_flight, "FCALL held", "FCALL held_end")


def higress() -> Way:
    """As the plugin does it: hosts that are all healthy, and all of its defaults."""

    def begin(terms: Terms) -> list[str]:
        hosts = terms.backends
        keys = ["%u", terms.key, f"{terms.key}:cleaned", "3600", hosts[0], str(len(hosts)), "1", *hosts]
        return ["EVAL", text("higress"), str(len(keys)), *keys]

    def in_flight(wire: Wire, terms: Terms) -> int:
        return sum(map(int, ask(wire, "HVALS", terms.key)))

    make, end = lambda wire, terms: None, words("HINCRBY {key} %1 -1")
    title = "Higress's global_least_request"
    return Way(title, make, begin, end, in_flight, frozenset({BALANCED}), counted=64)


def semaphore() -> Way:
    """One resource, of as many places as three backends."""

    def make(wire: Wire, terms: Terms) -> None:
        ask(wire, "SCRIPT", "LOAD", text("semaphore"))

    begin = words(f"EVALSHA {digest(text('semaphore'))} 1 {{key}} {{most}} %n {{ms}} %t")

    def in_flight(wire: Wire, terms: Terms) -> int:
        return ask(wire, "ZCARD", terms.key)

    claims = frozenset({LIMITED, EXPIRES, ONCE, SURVIVES})
    return Way("redis-semaphore", make, begin, words("ZREM {key} %n"), in_flight, claims, sizes=(1,))


def scores(wire: Wire, key: str) -> dict[bytes, float]:
    """A sorted set."""
    flat = ask(wire, "ZRANGE", key, 0, -1, "WITHSCORES")
    return {member: float(score) for member, score in zip(flat[::2], flat[1::2], strict=True)}


def ways() -> list[Way]:
    """All of them. The first is what the others are compared to."""
    ours = {EXPIRES, ONCE, SURVIVES}
    least = ours | {BALANCED, WEIGHTED}
    sizes = 3, 100, 100_000
    return [
        counter(),
        floor("a module's two writes that do nothing", "FLOOR.LEASE {key} LEASE {ms}", "FLOOR.DONE {key} %2"),
        module_way("LB.PICK + LB.DONE, wrr", "wrr", ours | {WEIGHTED}, sizes=sizes, has_latencies=False),
        module_way("LB.PICK + LB.DONE, lc", "lc", least, sizes=sizes, has_latencies=False),
        module_way("LB.PICK + LB.DONE, wrr, MAX", "wrr", ours | {LIMITED, WEIGHTED}),
        module_way("LB.PICK + LB.DONE, lc, MAX", "lc", least | {LIMITED}, sizes=sizes),
        script("EVALSHA minimum + HINCRBY", "minimum", counted=128, has_latencies=False),
        script("EVALSHA counts + ZINCRBY", "counts", has_latencies=False),
        leases_by_script(),
        leases_by_function(),
        higress(),
        semaphore(),
    ]


# What they keep


class Requests:
    """Requests one by one, as gateways.c does them."""

    def __init__(self, wire: Wire, way: Way, terms: Terms) -> None:
        self._wire, self._way, self._terms = wire, way, terms
        self._numbers = iter(range(1, 1000))
        ask(wire, "FLUSHALL", "SYNC")
        way.make(wire, terms)

    def begin(self) -> dict[str, bytes] | None:
        """What END needs of it, by the words of gateways.c; nothing where it was refused."""
        known = {"%n": b"%012d" % next(self._numbers)}
        seconds, micros = map(int, ask(self._wire, "TIME"))
        known |= {"%t": b"%d" % (seconds * 1000 + micros // 1000), "%u": b"%d%06d" % (seconds, micros)}
        reply = self._send(self._way.begin(self._terms), known)
        if reply in (None, 0):
            return None
        values = reply if isinstance(reply, list) else [reply]
        return known | {
            f"%{i}": str(v).encode() if isinstance(v, int) else v for i, v in enumerate(values, 1)
        }

    def end(self, known: dict[str, bytes]) -> None:
        """Ends that one."""
        self._send(self._way.end(self._terms), known)

    def in_flight(self) -> int:
        """How many there are."""
        return self._way.in_flight(self._wire, self._terms)

    def is_full(self) -> bool:
        """Whether it refuses another one."""
        if (another := self.begin()) is None:
            return True
        self.end(another)
        return False

    def restart(self) -> None:
        """The server loads what it has saved."""
        ask(self._wire, "DEBUG", "RELOAD")

    def snapshot(self) -> dict[bytes, bytes]:
        """All keys, dumped."""
        return {key: ask(self._wire, "DUMP", key) for key in ask(self._wire, "KEYS", "*")}

    def go_back(self, before: dict[bytes, bytes]) -> None:
        """To that: as a failover does that has lost the last commands."""
        for key in ask(self._wire, "KEYS", "*"):
            ask(self._wire, "DEL", key)
        for key, payload in before.items():
            ask(self._wire, "RESTORE", key, 0, payload)

    def _send(self, command: list[str], known: dict[str, Any]) -> Any:
        self._wire.send(pack([known.get(word) or word.encode() for word in command]))
        if isinstance(reply := self._wire.read(), Refused):
            raise RuntimeError(f"{self._way.title}: {reply}")
        return reply


def backend_of(known: dict[str, bytes]) -> str:
    """Where a request went: our scripts answer it behind their own number."""
    return known["%1"][-len(name(0)) :].decode()


def is_balanced(start: Callable[..., Requests]) -> bool:
    """Each backend gets one, and then the one that is free again, whichever it is."""
    for freed in range(3):
        requests = start((1, 1, 1))
        some = [requests.begin() for _ in range(3)]
        if len({backend_of(known) for known in some}) < 3:
            return False
        requests.end(some[freed])
        if backend_of(requests.begin()) != backend_of(some[freed]):
            return False
    return True


def is_limited(start: Callable[..., Requests]) -> bool:
    """Two of two each are admitted, no third; and one more when one has ended."""
    requests = start((1,), most=2)
    some = [requests.begin() for _ in range(3)]
    if some[2] is not None or None in some[:2] or requests.in_flight() != 2:
        return False
    requests.end(some[0])
    return requests.begin() is not None and requests.begin() is None


def expires(start: Callable[..., Requests]) -> bool:
    """What nobody ends is no longer in flight when its time is over and somebody asks."""
    requests = start((1,), most=2, ms=100)
    held = [requests.begin() for _ in range(2)]
    for _ in waiting(1):
        if (known := requests.begin()) is None:
            continue
        requests.end(known)
        if requests.in_flight() == 0:
            return None not in held
    return False


def ends_once(start: Callable[..., Requests]) -> bool:
    """To end one twice does not end another one."""
    requests = start((1,))
    first, _ = requests.begin(), requests.begin()
    requests.end(first), requests.end(first)
    return requests.in_flight() == 1


def survives(start: Callable[..., Requests]) -> bool:
    """What is in flight counts after a restart, and where an older state comes back it counts as of then."""
    requests = start((1,), most=3)
    first, before = requests.begin(), requests.snapshot()
    requests.begin(), requests.begin()
    right = requests.in_flight(), requests.is_full()
    requests.restart()
    found = [(requests.in_flight(), requests.is_full())]
    requests.go_back(before)
    requests.begin(), requests.begin()
    found.append((requests.in_flight(), requests.is_full()))
    requests.end(first)
    return found == [right, right] and right[0] == 3 and requests.in_flight() == 2 and not requests.is_full()


def is_weighted(start: Callable[..., Requests]) -> bool:
    """A backend of thrice the weight gets thrice as many."""
    requests = start((3, 1))
    return sorted(Counter(backend_of(requests.begin()) for _ in range(8)).values()) == [2, 6]


PROOFS = dict(
    zip(PROMISES, (is_balanced, is_limited, expires, ends_once, survives, is_weighted), strict=True)
)


def kept(wire: Wire, way: Way) -> dict[str, bool]:
    """What it keeps. What it claims it must."""

    def start(weights: tuple[int, ...], most: int = MOST, ms: int = MS) -> Requests:
        return Requests(wire, way, Terms("proof", weights, most, ms))

    tried = {title: proof(start) for title, proof in PROOFS.items() if way.chooses or title not in CHOICES}
    if missing := way.claims - {title for title, holds in tried.items() if holds}:
        raise RuntimeError(f"{way.title} does not keep what it claims: {', '.join(missing)}")
    return {title: tried.get(title, False) for title in PROMISES}


def promises(port: int) -> dict[str, dict[str, bool]]:
    """What all keep, by title."""
    with Wire(port) as wire:
        return {way.title: kept(wire, way) for way in ways() if not way.is_floor}


# What they cost

Case = tuple[str, Way, Terms]


def cases(is_first: bool, is_quick: bool) -> list[Case]:
    """Each way over its sizes, with a title. The rivals run on the first server only."""
    found = []
    for i, way in enumerate(ways()):
        for n in way.sizes if is_first or not way.is_rival else ():
            if n <= 1000 or not is_quick:
                title = f"{way.title}, {n:,}" if way.chooses else way.title
                weights = tuple(map(few if n <= 3 else mixed, range(n)))
                found.append((title, way, Terms(f"request:{i:02}:{n:06}", weights)))
    return found


def send(address: object, connections: int, pipeline: int, case: Case, **until: float) -> list[float]:
    """How many requests were done in how many seconds, and their p50 and p99 in µs."""
    _, way, terms = case
    effort = address, connections, pipeline, until.get("requests", 10**12), until.get("seconds", 600)
    command = [compiled("gateways.c"), *map(str, effort), ",", *way.begin(terms), ",", *way.end(terms)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way.title}: {done.stderr.strip()}")
    return [float(figure) for figure in done.stdout.split()]


def made(wire: Wire, all_of_them: list[Case]) -> None:
    """Makes what they need."""
    ask(wire, "FLUSHALL", "SYNC")
    for _, way, terms in all_of_them:
        way.make(wire, terms)


def nothing_is_left(wire: Wire, all_of_them: list[Case]) -> None:
    """Makes sure that every request has ended."""
    for title, way, terms in all_of_them:
        if left := way.in_flight(wire, terms):
            raise RuntimeError(f"{title}: {left} requests are in flight after all have ended")


def instructions(server: callgrind.Callgrind, all_of_them: list[Case], share: float) -> dict[str, float]:
    """The instructions of a request of each case."""
    costs = {}
    with Wire(server.port) as wire:
        made(wire, all_of_them)
        for case in all_of_them:
            pieces = max(1, int(case[1].counted * share) // PIPELINE)
            costs[case[0]] = server.each(
                lambda n, case=case: send(server.port, 1, PIPELINE, case, requests=n), pieces * PIPELINE
            )
        nothing_is_left(wire, all_of_them)
    return costs


def timed(server: Server, all_of_them: list[Case], effort: Figures, say: Callable[[str], None]) -> Figures:
    """Throughput and latency of every case, in interleaved rounds. The others are compared to the first."""
    rates: dict[str, list[float]] = {title: [] for title, _, _ in all_of_them}
    shares: dict[str, list[float]] = {title: [] for title in rates}
    waits: dict[str, dict[str, list[list[float]]]] = {title: {} for title in rates}
    seconds, addresses = effort["seconds"], {"loopback": server.port, "socket": server.folder / SOCKET}
    with Wire(server.port) as wire:
        made(wire, all_of_them)
        process = number(wire, "server", "process_id")
        for i in range(effort["rounds"]):
            say(f"{server.binary.name}: requests, round {i + 1} of {effort['rounds']}")
            for case in all_of_them:
                title, way, _ = case
                with apart(process):
                    cpu = busy(process)
                    done, wall, *_ = send(server.port, CONNECTIONS, PIPELINE, case, seconds=seconds)
                    ask(wire, "PING")  # The kernel brings its figure up to date when a thread sleeps.
                    cpu = busy(process) - cpu
                    rates[title].append(done / cpu)
                    shares[title].append(cpu / wall)
                    for place, n in ((p, n) for p in addresses for n in FLEETS if way.has_latencies):
                        *_, p50, p99 = send(addresses[place], n, 0, case, seconds=seconds / 2)
                        waits[title].setdefault(f"{place}, {n}", []).append([p50, p99])
        nothing_is_left(wire, all_of_them)
    base = rates[all_of_them[0][0]]
    return {
        title: {
            "requests a second": median(rates[title]),
            "time ratio": median(b / a for a, b in zip(rates[title], base, strict=True)),
            "busy": median(shares[title]),
            "latencies": {
                place: {"p50": median(p50 for p50, _ in all), "p99": median(p99 for _, p99 in all)}
                for place, all in waits[title].items()
            },
        }
        for title in rates
    }
