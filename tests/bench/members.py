"""Members to measure with, the same for pools and for what stands beside them."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from wire import Refused, Wire, pack

Weight = Callable[[int], int]
CHUNK = 1000


def few(i: int) -> int:
    """5, 1, 1."""
    return 5 if i == 0 else 1


def mixed(i: int) -> int:
    """1 to 100, in no order."""
    return 1 + i * 7919 % 100


def different(i: int) -> int:
    """Each another one."""
    return 1 + i


def name(i: int) -> bytes:
    """A name of 22 bytes."""
    mixed_up = i * 0x9E3779B97F4A7C15 % 2**56  # Names of pods hardly compress.
    return b"web-%09x-%05x:80" % divmod(mixed_up, 2**20)


def ask(wire: Wire, *arguments: bytes | str | int | float) -> object:
    """Sends a command that must not fail."""
    packed = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
    wire.send(pack(packed))
    reply = wire.read()
    if isinstance(reply, Refused):
        raise RuntimeError(f"{packed[0].decode()}: {reply}")
    return reply


def fill(wire: Wire, command: str, key: str, arguments: Iterator[bytes | int]) -> None:
    """Sends the command until all arguments are sent."""
    while chunk := list(islice(arguments, 2 * CHUNK)):
        ask(wire, command, key, *chunk)


def pipelined(wire: Wire, commands: Iterable[list[bytes]]) -> None:
    """Sends commands that must not fail, many at once."""
    commands = iter(commands)
    while some := list(islice(commands, CHUNK)):
        wire.send(b"".join(map(pack, some)))
        for command in some:
            if isinstance(reply := wire.read(), Refused):
                raise RuntimeError(f"{command[0].decode()}: {reply}")


def pool(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """A pool."""
    fill(wire, "LB.ADD", key, (part for i in range(n) for part in (name(i), weight(i))))


def sorted_set(wire: Wire, key: str, n: int, weight: Weight) -> None:
    """A sorted set with the weights as scores."""
    fill(wire, "ZADD", key, (part for i in range(n) for part in (weight(i), name(i))))
