"""What one can do without the module: rotation of a list, and scripts, each as EVALSHA and as FCALL."""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wire import Wire

from .members import CHUNK, Weight, ask, fill, name, pool

FOLDER = Path(__file__).parent / "rivals"
Setup = Callable[[Wire, str, int, Weight], None]


@dataclass(frozen=True)
class Rival:
    """A script and how its keys are laid out."""

    script: str
    setup: Setup
    keys: tuple[str, ...] = ("",)  # What is appended to the key for each.
    is_smooth: bool = True  # Whether it gives the sequence of LB.PICK … wrr.
    is_fixed: bool = False  # Whether a change of weights builds everything anew.
    is_linear: bool = False  # Whether a pick looks at every backend.
    is_outrun: bool = False  # Whether another one is always faster at 1,000 backends.

    @property
    def text(self) -> str:
        """The script."""
        return (FOLDER / f"{self.script}.lua").read_text()

    def load(self, wire: Wire) -> None:
        """Gives the script to the server, in each form that it has."""
        if self.is_library:
            ask(wire, "FUNCTION", "LOAD", "REPLACE", self.text)
            return
        ask(wire, "SCRIPT", "LOAD", self.text)
        register = f"redis.register_function('{self.script}', function(KEYS, ARGV)\n{self.text}\nend)"
        ask(wire, "FUNCTION", "LOAD", "REPLACE", f"#!lua name={self.script}\n{register}")

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

    def commands(self) -> dict[str, str]:
        """The commands that pick, by their names. `{key}` is to be filled in, and `{length}` of the list."""
        keys = " ".join(f"{{key}}{suffix}" for suffix in self.keys)
        call = f"{len(self.keys)} {keys} {{length}}".rstrip()
        function = {f"FCALL {self.script}": f"FCALL {self.script} {call}"}
        if self.is_library:
            return function
        digest = hashlib.sha1(self.text.encode()).hexdigest()
        return {f"EVALSHA {self.script}": f"EVALSHA {digest} {call}"} | function


def smooth(wire: Wire, n: int, weight: Weight) -> list[bytes]:
    """One whole period of the smooth order, as the module gives it."""
    pool(wire, "period", n, weight)
    left = sum(map(weight, range(n)))
    order = []
    while left:
        order += ask(wire, "LB.PICK", "period", "COUNT", min(left, 10_000))
        left -= min(left, 10_000)
    ask(wire, "DEL", "period")
    return order


def rotation(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """A list in smooth order."""
    fill(wire, "RPUSH", key, iter(smooth(wire, n, weight)))


def backward_rotation(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """The same for who takes from the end."""
    fill(wire, "LPUSH", key, iter(smooth(wire, n, weight)))


def counted_rotation(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For rotate_index.lua."""
    rotation(wire, key, n, weight)
    ask(wire, "SET", f"{key}:turn", -1)


def credits(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For hash.lua."""
    fill(wire, "HSET", key, (p for i in range(n) for p in (name(i), struct.pack("<dHI", 0, weight(i), i))))


def message_pack(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For packed.lua. The server packs it."""
    append = (FOLDER / "packed_add.lua").read_text()
    for first in range(0, n, CHUNK):
        some = range(first, min(n, first + CHUNK))
        ask(wire, "EVAL", append, 1, key, *(part for i in some for part in (name(i), weight(i))))


def structs(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For short.lua."""
    numbers = struct.pack("<dd", 0, sum(map(weight, range(n))))
    packed = (struct.pack("<dHB", 0, weight(i), len(name(i))) + name(i) for i in range(n))
    ask(wire, "SET", key, numbers + b"".join(packed))


def records(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For records.lua."""
    total = sum(map(weight, range(n)))
    packed = b"".join(struct.pack("<dH", 0, weight(i)) for i in range(n))
    ask(wire, "SET", key, struct.pack("<dd", 0, total) + packed)
    fill(wire, "HSET", f"{key}:names", (part for i in range(n) for part in (i, name(i))))


def negative_credits(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For zunion.lua."""
    fill(wire, "ZADD", key, (part for i in range(n) for part in (0, name(i))))
    fill(wire, "ZADD", f"{key}:weights", (part for i in range(n) for part in (-weight(i), name(i))))
    ask(wire, "SET", f"{key}:total", sum(map(weight, range(n))))


def deadlines(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For edf.lua."""
    steps = [1 / weight(i) for i in range(n)]
    fill(wire, "ZADD", key, (p for i in range(n) for p in (steps[i], b"%.12f%b" % (steps[i], name(i)))))


def starts(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """For cached.lua."""
    ask(wire, "HSET", key, "", 0)
    fill(wire, "HSET", key, (part for i in range(n) for part in (name(i), 0)))
    fill(wire, "HSET", f"{key}:weights", (p for i in range(n) for p in (name(i), b"%d %d" % (i, weight(i)))))


ROTATE = Rival("rotate", rotation, is_fixed=True)
RIVALS = [
    ROTATE,
    Rival("rotate_short", backward_rotation, is_fixed=True),
    Rival("rotate_index", counted_rotation, ("", ":turn"), is_fixed=True),
    Rival("hash", credits, is_linear=True, is_outrun=True),
    Rival("short", structs, is_linear=True, is_outrun=True),
    Rival("packed", message_pack, is_linear=True, is_outrun=True),
    Rival("records", records, ("", ":names"), is_linear=True),
    Rival("zunion", negative_credits, ("", ":weights", ":total"), is_linear=True, is_outrun=True),
    Rival("edf", deadlines, is_smooth=False),
    Rival("cached", starts, ("", ":weights")),
]
