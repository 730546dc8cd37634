"""What one can do without the module: rotation of a list, and scripts, each as EVALSHA and as FCALL.

A rival counts if it promises what the module promises: a pick is atomic, the sequence goes on where it was
after a failover and after a restart, and weights change in place. `promises` makes sure of that, by doing it.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from server import Server, eventually
from servers import Binary
from wire import Wire

from .members import Weight, ask, few, fill, name, pool

FOLDER = Path(__file__).parent / "rivals"
Setup = Callable[[Wire, str, int, Weight], None]


@dataclass(frozen=True)
class Rival:
    """A script and how its keys are laid out."""

    script: str
    setup: Setup
    keys: tuple[str, ...] = ("",)  # What is appended to the key for each.
    changed: tuple[
        str, ...
    ] = ()  # The same of the script that changes weights; none where that means a new list.
    is_smooth: bool = True  # Whether it gives the sequence of LB.PICK … wrr.
    is_linear: bool = False  # Whether a pick looks at every backend.
    remembers: bool = False  # Whether it is faster after a lap: as many picks as the sum of the weights.
    most: int = 100_000  # The largest pool to measure it with: larger ones take too long, to pick or to make.

    @property
    def text(self) -> str:
        """The script."""
        return text(self.script)

    def load(self, wire: Wire) -> None:
        """Gives the script to the server, in each form that it has."""
        self.load_scripts(wire)
        if self.is_library:
            ask(wire, "FUNCTION", "LOAD", "REPLACE", self.text)
            return
        register = f"redis.register_function('{self.script}', function(KEYS, ARGV)\n{self.text}\nend)"
        ask(wire, "FUNCTION", "LOAD", "REPLACE", f"#!lua name={self.script}\n{register}")

    def load_scripts(self, wire: Wire) -> None:
        """The same without Functions, which servers keep and replicate."""
        if not self.is_library:
            ask(wire, "SCRIPT", "LOAD", self.text)

    def check(self, wire: Wire, command: str, n: int, weight: Weight) -> None:
        """Makes sure that it gives the same sequence as the module, if it should."""
        if not self.is_smooth:
            return
        pool(wire, "check", n, weight)
        right = ask(wire, "LB.PICK", "check", "COUNT", 30)
        ask(wire, "DEL", "check")
        if (given := [ask(wire, *command.split()) for _ in right]) != right:
            raise RuntimeError(f"{command} gives {given}, not {right}")

    @property
    def is_library(self) -> bool:
        """Whether it is a library of Functions, rather than the body of a script."""
        return self.text.startswith("#!")

    def commands(self, key: str) -> dict[str, str]:
        """The commands that pick, by their names."""
        call = f"{len(self.keys)} " + " ".join(key + suffix for suffix in self.keys)
        function = {f"FCALL {self.script}": f"FCALL {self.script} {call}"}
        if self.is_library:
            return function
        return {f"EVALSHA {self.script}": f"EVALSHA {digest(self.text)} {call}"} | function

    def reweight(self, wire: Wire, key: str, backend: bytes, weight: int) -> None:
        """Changes a weight in place."""
        keys = [key + suffix for suffix in self.changed]
        change = f"{self.script}_weight"
        how = ["FCALL", change] if self.is_library else ["EVAL", text(change)]
        ask(wire, *how, len(keys), *keys, backend, weight)


def text(script: str) -> str:
    """A script."""
    return (FOLDER / f"{script}.lua").read_text()


def digest(script: str) -> str:
    """What EVALSHA calls it by."""
    return hashlib.sha1(script.encode()).hexdigest()


def rotation(wire: Wire, key: str, n: int, weight: Weight, push: str = "RPUSH") -> None:
    """A list of one whole period of the smooth order, as the module gives it."""
    pool(wire, "period", n, weight)
    left = sum(map(weight, range(n)))
    while left:
        order = ask(wire, "LB.PICK", "period", "COUNT", min(left, 10_000))
        fill(wire, push, key, iter(order))
        left -= len(order)
    ask(wire, "DEL", "period")


def backward_rotation(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """The same for who takes from the end."""
    rotation(wire, key, n, weight, "LPUSH")


def structs(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For short.lua."""
    numbers = struct.pack("<dd", 0, sum(map(weight, range(n))))
    packed = (struct.pack("<dHB", 0, weight(i), len(name(i))) + name(i) for i in range(n))
    ask(wire, "SET", key, numbers + b"".join(packed))


def classes(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For classes.lua."""
    heads: dict[int, int] = {}
    for i in range(n):
        heads.setdefault(weight(i), i)
    total = sum(map(weight, range(n)))
    packed = (struct.pack("<dHI", 0, w, i) for w, i in heads.items())
    ask(wire, "SET", key, struct.pack("<dd", 0, total) + b"".join(packed))
    for w in heads:
        same = (i for i in range(n) if weight(i) == w)
        fill(wire, "ZADD", f"{key}:{w}", (part for i in same for part in (0, b"%08x%b" % (i, name(i)))))
    orders = ((name(i), b"%08x" % i + struct.pack("<H", weight(i))) for i in range(n))
    fill(wire, "HSET", f"{key}:members", (part for pair in orders for part in pair))


def deadlines(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For edf.lua."""
    steps = [b"%.12f" % (1 / weight(i)) for i in range(n)]
    fill(wire, "ZADD", key, (part for i in range(n) for part in (steps[i], steps[i] + name(i))))
    fill(wire, "HSET", f"{key}:members", (part for i in range(n) for part in (name(i), steps[i])))


def credits(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For cached.lua."""
    ask(wire, "HSET", f"{key}:members", "", 0)
    members = ((name(i), b"%d %d 0" % (i, weight(i))) for i in range(n))
    fill(wire, "HSET", f"{key}:members", (part for pair in members for part in pair))


BOTH = ("", ":members")
RIVALS = [
    # The list is as long as the sum of the weights.
    Rival("rotate", rotation, most=1000),
    Rival("rotate_short", backward_rotation, most=1000),
    Rival("short", structs, changed=("",), is_linear=True, most=10_000),
    Rival("classes", classes, changed=BOTH),
    Rival("edf", deadlines, changed=BOTH, is_smooth=False),
    Rival("cached", credits, keys=BOTH, changed=BOTH, remembers=True),
]
BOUND = (
    1200  # Picks until the first disturbance: more than cached.lua makes between two times that it writes.
)


def promises(binary: Binary, module: Path) -> dict[str, dict[str, bool]]:
    """What each rival keeps.

    Its sequence, with a failover, a change of weights, a failover back and a restart in between, is to be the
    same as one without, and as the module's.
    """
    kept = {}
    settings = {"appendonly": "yes", "appendfsync": "no", "repl_diskless_sync_delay": 0}
    a, b = Server(binary, module, **settings), Server(binary, module, **settings)
    try:
        a.start(), b.start()
        for rival in RIVALS:
            kept[rival.script] = promise(rival, a, b)
    finally:
        a.close(), b.close()
    return kept


def promise(rival: Rival, a: Server, b: Server) -> dict[str, bool]:
    """The same of one."""
    changes = bool(rival.changed)

    def change(wire: Wire, key: str) -> None:
        if changes:
            rival.reweight(wire, key, name(2), 4)

    def picks(wire: Wire, key: str, n: int) -> list[bytes]:
        command = list(rival.commands(key).values())[0].split()
        return [ask(wire, *command) for _ in range(n)]

    def follow(server: Server, primary: Server) -> None:
        with Wire(server.port) as replica, Wire(primary.port) as wire:
            ask(wire, "REPLICAOF", "NO", "ONE")
            ask(replica, "REPLICAOF", "127.0.0.1", primary.port)
            eventually(lambda: ask(wire, "SET", "marker", 1) and ask(wire, "WAIT", 1, 1000) == 1, 30)
            rival.load_scripts(wire)

    follow(b, a)
    with Wire(a.port) as wire:
        ask(wire, "FLUSHALL")
        rival.load(wire)
        for key in "kept", "undisturbed":
            rival.setup(wire, key, 3, few)
        pool(wire, "right", 3, few)
        right = ask(wire, "LB.PICK", "right", "COUNT", BOUND + 100)
        if changes:
            ask(wire, "LB.WEIGHT", "right", name(2), 4)
        right += ask(wire, "LB.PICK", "right", "COUNT", 200)
        expected = picks(wire, "undisturbed", BOUND + 100)
        change(wire, "undisturbed")
        expected += picks(wire, "undisturbed", 200)
        given = picks(wire, "kept", BOUND)
        ask(wire, "WAIT", 1, 10_000)
    follow(a, b)
    with Wire(b.port) as wire:
        given += picks(wire, "kept", 100)
        change(wire, "kept")
        ask(wire, "WAIT", 1, 10_000)
    follow(b, a)
    with Wire(a.port) as wire:
        given += picks(wire, "kept", 100)
    a.restart()
    with Wire(a.port) as wire:
        rival.load_scripts(wire)
        given += picks(wire, "kept", 100)
    return {
        "goes on after failovers and a restart": given == expected,
        "nginx's order": expected == right,
        "weights change in place": changes,
    }
