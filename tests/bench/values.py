"""What a pool costs as a value, beside a sorted set of the same members: memory, and the ways in and out."""

import time
from statistics import median

from server import Server
from wire import Wire

from .load import busy
from .members import ask, mixed, pool, sorted_set

KINDS = {"pool": pool, "sorted set": sorted_set}
LARGE = 100_000


def memory(wire: Wire) -> dict[str, dict[str, float]]:
    """By kind: bytes of a key with 3 members, bytes a member in larger ones; by MEMORY USAGE, by the heap."""
    return {kind: memory_of(wire, make) for kind, make in KINDS.items()}


def memory_of(wire: Wire, make) -> dict[str, float]:
    """The same of one kind. What the heap gave is what used_memory grew by."""
    answer = {}
    # Twice: the buffers of the connection, 24 KB, come with its first commands, and are not what a key takes.
    for _ in range(2):
        ask(wire, "FLUSHALL", "SYNC")
        before = used(wire)
        for i in range(1000):
            make(wire, f"k{i:03}", 3, mixed)
        answer["3 members, heap of a key"] = (used(wire) - before) / 1000
    answer["3 members, MEMORY USAGE"] = ask(wire, "MEMORY", "USAGE", "k000", "SAMPLES", 0)
    for n in (1000, LARGE):
        ask(wire, "FLUSHALL", "SYNC")
        before = used(wire)
        make(wire, "k", n, mixed)
        answer[f"{n:,} members, heap a member"] = (used(wire) - before) / n
        answer[f"{n:,} members, MEMORY USAGE a member"] = ask(wire, "MEMORY", "USAGE", "k", "SAMPLES", 0) / n
    ask(wire, "FLUSHALL", "SYNC")
    return answer


def used(wire: Wire) -> int:
    """The bytes that the server has allocated."""
    ask(wire, "MEMORY", "PURGE")
    return number(wire, "memory", "used_memory")


def number(wire: Wire, section: str, field: str) -> int:
    """A number out of INFO."""
    lines = ask(wire, "INFO", section).decode().splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith(f"{field}:")))


def travel(server: Server, wire: Wire, rounds: int) -> dict[str, dict[str, float]]:
    """By kind: the milliseconds of a processor that DUMP, RESTORE, SAVE and a load of 100,000 members take,
    and the bytes of the dump. The kinds take turns; medians."""
    process = number(wire, "server", "process_id")
    payloads = {}
    for kind, make in KINDS.items():
        ask(wire, "FLUSHALL", "SYNC")
        make(wire, "k", LARGE, mixed)
        payloads[kind] = ask(wire, "DUMP", "k")
    took: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}

    def timed(kind: str, title: str, *command) -> None:
        cpu = busy(process)
        ask(wire, *command)
        time.sleep(0.01)  # The kernel brings its figure up to date when the thread sleeps.
        took[kind].setdefault(title, []).append((busy(process) - cpu) * 1000)

    for _ in range(rounds):
        for kind, payload in payloads.items():
            ask(wire, "FLUSHALL", "SYNC")
            timed(kind, "RESTORE, ms", "RESTORE", "k", 0, payload)
            timed(kind, "DUMP, ms", "DUMP", "k")
            timed(kind, "RDB save, ms", "SAVE")
            ask(wire, "FLUSHALL", "SYNC")
            timed(kind, "RDB load, ms", "DEBUG", "RELOAD", "NOSAVE", "NOFLUSH")
    answers = {kind: {title: median(all) for title, all in titles.items()} for kind, titles in took.items()}
    for kind, payload in payloads.items():
        answers[kind]["DUMP, bytes a member"] = len(payload) / LARGE
    ask(wire, "FLUSHALL", "SYNC")
    return answers


def values(server: Server, rounds: int) -> dict[str, dict[str, float]]:
    """All of it, by kind."""
    with Wire(server.port) as wire:
        sizes, times = memory(wire), travel(server, wire, rounds)
    return {kind: sizes[kind] | times[kind] for kind in KINDS}
