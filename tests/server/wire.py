"""RESP as it is on the wire: what a client library would hide or repair.

A simple string is read as `str`, a bulk string as `bytes`, an error as `Refused`, the null as None, a map as
`dict`, an array as `list`. RESP2's null array, which no command of the module sends, is an error.
"""

import socket
from typing import Any

# How long a reply may take, under valgrind on a busy machine too.
SECONDS = 100


class Refused(str):
    """An error that a server answered: its whole line."""

    @property
    def code(self) -> str:
        """Its first word."""
        return self.partition(" ")[0]


def pack(arguments: list[bytes]) -> bytes:
    """A command."""
    bulks = b"".join(b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments)
    return b"*%d\r\n%b" % (len(arguments), bulks)


def words(command: str | list[bytes]) -> list[bytes]:
    """The arguments of a command that is written as one line, or as a list of them already."""
    return command.encode().split() if isinstance(command, str) else command


def dict_of(told: dict | list) -> dict:
    """A map, as RESP3 or as RESP2 sends it."""
    return told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))


class Wire:
    """A connection that speaks that protocol (2 or 3) and hides nothing."""

    def __init__(self, port: int, protocol: int = 2) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._file = self._socket.makefile("rb")
        self.ask(f"HELLO {protocol}")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def send(self, packed: bytes) -> None:
        """Sends commands that are packed already."""
        self._socket.sendall(packed)

    def ask(self, command: str | list[bytes]) -> Any:
        """Sends a command and reads its reply."""
        self.send(pack(words(command)))
        return self.read()

    def ask_all(self, *commands: str | list[bytes]) -> list[Any]:
        """Sends commands in one piece, so that hardly any time passes between them; their replies."""
        self.send(b"".join(pack(words(command)) for command in commands))
        return [self.read() for _ in commands]

    def read(self) -> Any:
        """Reads the next reply."""
        return read(self._file)

    def line(self) -> bytes:
        """Reads a line, with its end."""
        return self._file.readline()


def read(file: Any) -> Any:
    """Reads one value: a reply, or a command out of an AOF."""
    line = file.readline()
    assert line.endswith(b"\r\n"), f"not the end of a line: {line!r}"
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest.decode()
        case b"-":
            return Refused(rest.decode())
        case b":":
            return int(rest)
        case b"_":
            return None
        case b"$" if rest == b"-1":
            return None
        case b"$":
            bulk = file.read(int(rest) + 2)
            assert bulk.endswith(b"\r\n"), f"not the end of a bulk string: {bulk!r}"
            return bulk[:-2]
        case b"*" if rest != b"-1":
            return [read(file) for _ in range(int(rest))]
        case b"%":
            return {read(file): read(file) for _ in range(int(rest))}
    raise AssertionError(f"neither RESP2 nor RESP3 as we use them: {line!r}")
