"""What is measured: commands, and the keys that they need."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import repeat

from wire import Wire, words

from .members import Weight, ask, different, few, fill, mixed, name, pipelined, pool
from .rivals import RIVALS, Rival, digest, rotation

Setup = Callable[[Wire], None]
LIGHT = 5  # Starts of a case that takes little time.
MANY = {"picks": 100, "counted": 640}


@dataclass(frozen=True)
class Case:
    """A way to get a backend, or what stands beside it."""

    title: str
    turns: list[list[str]]  # Done one by one. A turn is a command, or several in a row.
    keys: dict[str, Setup] = field(default_factory=dict)  # Made once, for all cases that name the same key.
    picks: int = 1  # Backends that a turn gives.
    pipeline: int = 64  # Commands at once; fewer of those that take long.
    counted: int = 2560  # Commands to count instructions of; 0 = not in this run.
    starts: int = 1  # Servers to do that in, of which the cheapest counts: see callgrind.py.


def made(title: str, key: str, setup: Setup, *commands: str, **more) -> Case:
    """A case of one key and one turn."""
    more.setdefault("starts", LIGHT)
    return Case(title, [[command.format(key=key) for command in commands]], {key: setup}, **more)


def baseline() -> Case:
    """INCR of a counter of nine digits, of which no run makes ten."""
    return made(
        "INCR", "counter:001", lambda wire: ask(wire, "SET", "counter:001", 100_000_000), "INCR {key}"
    )


def pools(n: int, weight: Weight, *commands: str, title: str = "", **more) -> Case:
    """A case of a pool of that size."""
    key = f"pool:{weight.__name__[0]}{n:06}"
    title = f"{title or ' + '.join(commands).format(key='key')}, {size(n, weight)}"
    if n >= 1000:
        more = {"counted": 12_800, "starts": 1} | more
    return made(title, key, lambda wire: warm(wire, key, n, weight), *commands, **more)


def warm(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """A pool in the middle of its life: not the first lap, where the heaviest take turns alone."""
    pool(wire, key, n, weight)
    for _ in range(n // 10_000):
        ask(wire, "LB.PICK", key, "COUNT", 10_000)


def size(n: int, weight: Weight) -> str:
    """As the titles say it."""
    return f"{n:,}" + (" different weights" if weight is different else "")


def reweighted(n: int, weight: Weight, *then: str) -> Case:
    """LB.WEIGHT with another weight each time, on backends all over the pool."""
    case = pools(n, weight, title=" + ".join(["LB.WEIGHT", *then]).format(key="key"))
    (key,) = case.keys
    some = [name(i).decode() for i in range(0, n, -(-n // 1024))]
    weights = [[f"LB.WEIGHT {key} {member} {w}"] for w in (7, 8) for member in some]
    turns = [[*weight, *(command.format(key=key) for command in then)] for weight in weights]
    return Case(case.title, turns, case.keys, counted=2560, starts=case.starts)


def client_side(n: int, weight: Weight) -> Case:
    """Each gateway for itself: a shared counter and the set of members, in two round trips."""

    def members(wire: Wire) -> None:
        fill(wire, "SADD", f"members:{n:06}", iter(map(name, range(n))))

    count, read = "INCR counter:001", f"SMEMBERS members:{n:06}"
    few_at_once = {"pipeline": 4, "counted": 8} if n >= 1000 else {"starts": LIGHT}
    keys = baseline().keys | {f"members:{n:06}": members}
    return Case(f"INCR + SMEMBERS, {n:,}", [[count, read]], keys, **few_at_once)


def listed(title: str, command: str) -> Case:
    """A case of the smooth list for three backends."""
    return made(title, "list:000003", lambda wire: rotation(wire, "list:000003", 3, few), command)


def scripted(rival: Rival, n: int, weight: Weight, is_quick: bool) -> Iterator[Case]:
    """A rival, as a script and as a Function. Under callgrind a lap of a thousand takes half a minute."""
    remembers = rival.remembers and n <= 1000
    for form in rival.commands(""):
        key = f"{form.partition(' ')[0].lower()}:{rival.script}:{n}"
        command = rival.commands(key)[form]

        def setup(wire: Wire, key: str = key, command: str = command) -> None:
            rival.load(wire)
            rival.setup(wire, key, n, weight)
            rival.check(wire, command, n, weight)
            if remembers:
                pipelined(wire, repeat(words(command), max(2000, sum(map(weight, range(n))))))

        more = {"pipeline": 4, "counted": 8} if rival.is_linear and n >= 1000 else {"counted": 640}
        if remembers and n >= 1000 and is_quick:
            more = {"counted": 0}
        yield Case(f"{form}, {n:,}", [[command]], {key: setup}, **more)


def natives() -> list[Case]:
    """Commands of the server itself."""
    value = made("GET", "string:0001", lambda wire: ask(wire, "SET", "string:0001", name(1)), "GET {key}")
    return [
        baseline(),
        value,
        listed("LINDEX", "LINDEX {key} 2"),
        listed("LMOVE", "LMOVE {key} {key} LEFT RIGHT"),
        listed("RPOPLPUSH", "RPOPLPUSH {key} {key}"),
        Case("PING", [["PING"]], starts=LIGHT),
    ]


def floors() -> list[Case]:
    """What no module and no script can be below: see floor.c."""
    nothing = "return 1"

    def script(wire: Wire) -> None:
        ask(wire, "SCRIPT", "LOAD", nothing)
        library = f"redis.register_function('nothing', function()\n{nothing}\nend)"
        ask(wire, "FUNCTION", "LOAD", "REPLACE", f"#!lua name=nothing\n{library}")

    scripts = {"EVALSHA": f"EVALSHA {digest(nothing)} 1 any", "FCALL": "FCALL nothing 1 any"}
    return [
        pools(3, few, "FLOOR.REPLY {key}"),
        pools(3, few, "FLOOR.WRITE {key}"),
        pools(3, few, "FLOOR.WRITE {key} any"),
        pools(3, few, "FLOOR.HUNDRED {key} COUNT 100", **MANY),
        *(made(f"{form} return 1", "nothing", script, command) for form, command in scripts.items()),
    ]


def of_the_module() -> list[Case]:
    """The module over sizes."""
    rr = "rotor:00003"

    def round_robin(wire: Wire) -> None:
        pool(wire, rr, 3, few)
        ask(wire, "LB.POLICY", rr, "rr")

    one, by_name, hundred = "LB.PICK {key}", "LB.PICK {key} wrr", "LB.PICK {key} COUNT 100"
    return [
        pools(3, few, one),
        made("LB.PICK key (policy rr), 3", rr, round_robin, one),
        *(pools(n, mixed, one) for n in (100, 1_000, 10_000, 100_000)),
        pools(1_000, different, one),
        pools(3, few, by_name),
        pools(100_000, mixed, by_name),
        pools(3, few, hundred, **MANY),
        pools(100_000, mixed, hundred, **MANY),
        reweighted(3, few),
        reweighted(100_000, mixed),
        reweighted(3, few, one),
        reweighted(100_000, mixed, one),
    ]


def without_the_module(is_quick: bool) -> Iterator[Case]:
    """The rivals."""
    for n in (3, 1_000) if is_quick else (3, 100, 1_000, 10_000, 100_000):
        weight = few if n == 3 else mixed
        for rival in RIVALS:
            if n <= rival.most:
                yield from scripted(rival, n, weight, is_quick)
        yield client_side(n, weight)


def plain(is_quick: bool, is_first: bool) -> list[Case]:
    """All of them. The first is what the others are compared to. The rivals run on the first server only."""
    rivals = without_the_module(is_quick) if is_first else []
    return natives() + floors() + of_the_module() + list(rivals)


def with_aof() -> list[Case]:
    """Those whose share of the AOF is of interest."""
    return [baseline(), *of_the_module()[:2], listed("LMOVE", "LMOVE {key} {key} LEFT RIGHT")]
