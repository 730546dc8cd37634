"""A load that costs the client little, so that the server is what is measured.

The client packs its commands beforehand and only counts the bytes of the replies, which are of one length for
each case. Four connections take turns, so the server always has commands waiting. What it does is told by the
time of a processor that its main thread has had (/proc, schedstat), so that neither other programs nor a slow
client change the figure; the share of the time that it was busy says whether the client kept up.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from wire import Refused, pack, read, words

from .cases import Case

CONNECTIONS = 4


@dataclass(frozen=True)
class Rate:
    """Turns, the seconds that they took, and the seconds of a processor that the server's main thread had."""

    turns: int
    wall: float
    cpu: float


class Counted:
    """A file that counts what is read from it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.bytes = 0

    def readline(self) -> bytes:
        """Reads a line."""
        return self._took(self._file.readline())

    def read(self, size: int) -> bytes:
        """Reads so many bytes."""
        return self._took(self._file.read(size))

    def _took(self, data: bytes) -> bytes:
        self.bytes += len(data)
        return data


class Stream:
    """A connection that sends batches of so many commands, packed, from the first one on and over again.

    All have replies of the same length.
    """

    def __init__(self, port: int, batches: list[bytes], commands: int, first: int = 0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.settimeout(None)  # With a timeout MSG_WAITALL would not wait for all.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._batches = cycle(batches[first:] + batches[:first])
        self._replies = memoryview(bytearray(self._length(commands)))

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _length(self, commands: int) -> int:
        """The length of the replies to a batch; they are read as what they are, this once."""
        self.send()
        with self._socket.makefile("rb") as file:
            counted = Counted(file)
            for _ in range(commands):
                if isinstance(reply := read(counted), Refused):
                    raise RuntimeError(reply)
        return counted.bytes

    def send(self) -> None:
        """Sends the next batch."""
        self._socket.sendall(next(self._batches))

    def receive(self) -> None:
        """Waits for its replies."""
        if self._socket.recv_into(self._replies, 0, socket.MSG_WAITALL) != len(self._replies):
            raise RuntimeError("the server has closed the connection")

    def close(self) -> None:
        """Makes sure that no reply was shorter or longer than the others."""
        self._socket.sendall(pack([b"ECHO", b"end"]))
        if self._socket.recv(64) != b"$3\r\nend\r\n":
            raise RuntimeError("the replies were not all of one length")


def batches(case: Case) -> list[list[str]]:
    """The commands of a case, as many at once as it says."""
    length = len(case.turns[0])
    turns = case.turns * max(1, case.pipeline // (length * len(case.turns)))
    a_batch = min(len(turns), max(1, case.pipeline // length))
    chunks = [turns[i : i + a_batch] for i in range(0, len(turns) - a_batch + 1, a_batch)]
    return [[command for turn in chunk for command in turn] for chunk in chunks]


def packed(commands: list[str]) -> bytes:
    """Commands as they are sent."""
    return b"".join(pack(words(command)) for command in commands)


def throughput(port: int, process: int, case: Case, seconds: float) -> Rate:
    """The case, pipelined, for so long.

    Each connection begins elsewhere, so that none finds in the processor's caches what another one asked for.
    """
    work = batches(case)
    sent, length = [packed(batch) for batch in work], len(work[0])
    with ExitStack() as stack:
        streams = [
            stack.enter_context(Stream(port, sent, length, i * len(work) // CONNECTIONS))
            for i in range(CONNECTIONS)
        ]
        start, cpu, done = time.perf_counter(), busy(process), CONNECTIONS
        for stream in streams:
            stream.send()
        while time.perf_counter() - start < seconds:
            for stream in streams:
                stream.receive()
                stream.send()
            done += CONNECTIONS
        for stream in streams:
            stream.receive()
        wall = time.perf_counter() - start
        # The server sleeps between these, and the kernel brings its figure up to date when a thread sleeps.
        for stream in streams:
            stream.close()
        cpu = busy(process) - cpu
    return Rate(done * length // len(case.turns[0]), wall, cpu)


def latencies(port: int, case: Case, turns: int, seconds: float) -> list[float]:
    """The microseconds of each of so many turns, or of those that so many seconds allow, one by one."""
    with ExitStack() as stack:
        steps = [
            stack.enter_context(Stream(port, [packed([turn[i]]) for turn in case.turns], 1))
            for i in range(len(case.turns[0]))
        ]
        took = []
        deadline = time.perf_counter_ns() + seconds * 1e9
        while len(took) < turns and (start := time.perf_counter_ns()) < deadline:
            for stream in steps:
                stream.send()
                stream.receive()
            took.append((time.perf_counter_ns() - start) / 1000)
    return took


@contextmanager
def apart(process: int) -> Iterator[None]:
    """Keeps that process and this one each on a processor of its own, where there are two.

    It would else be luck whether they share one, which halves or doubles a latency.
    """
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process, {allowed[0]})
    os.sched_setaffinity(0, {allowed[-1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def busy(process: int) -> float:
    """The seconds of a processor that the process' main thread has had."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9
