"""Many pools in one server, beside as many sorted sets; and what it costs to pick from all of them."""

import random
import time
from pathlib import Path
from statistics import median

from server import Server, waiting
from servers import Binary
from wire import Wire

from .cases import Case
from .load import busy, throughput
from .members import ask, mixed, name, pipelined
from .values import number

Figures = dict[str, dict[str, float]]
HOT, MOST = 64, 400_000  # Keys to pick from; more than are reached in one measurement.
NEXT = {"pool": "LB.PICK {key}", "zset": "ZRANGE {key} 0 0"}


def keyspace(server: Server, kind: str, keys: int, members: int) -> dict[str, float]:
    """Fills the server with keys of that kind, and says what they take."""
    with Wire(server.port) as wire:
        before = number(wire, "memory", "used_memory")
        pipelined(wire, (adding(kind, i, members) for i in range(keys)))
        answer = {
            "memory, MB": (number(wire, "memory", "used_memory") - before) / 1e6,
            "resident, MB": number(wire, "memory", "used_memory_rss") / 1e6,
        }
        process = number(wire, "server", "process_id")
        forks = []
        for _ in range(3):
            ask(wire, "BGSAVE")
            for _ in waiting(120, 0.1):
                if not number(wire, "persistence", "rdb_bgsave_in_progress"):
                    break
            forks.append(number(wire, "stats", "latest_fork_usec") / 1000)
        cpu = busy(process)
        ask(wire, "SAVE")
        answer |= {"fork, ms": median(forks), "RDB save, s": since(process, cpu)}
        answer["RDB, MB"] = (Path(server.folder) / "dump.rdb").stat().st_size / 1e6
        loads = []
        for _ in range(5):
            ask(wire, "FLUSHALL", "SYNC")
            cpu = busy(process)
            ask(wire, "DEBUG", "RELOAD", "NOSAVE", "NOFLUSH")
            loads.append(since(process, cpu))
        answer["RDB load, s"] = median(loads)
    return answer


def since(process: int, before: float) -> float:
    """The seconds of a processor that the process has had since then."""
    time.sleep(0.01)  # The kernel brings its figure up to date when the thread sleeps.
    return busy(process) - before


def key(kind: str, i: int) -> str:
    """A key. All are of one length."""
    return f"{kind}:{i:07}"


def adding(kind: str, i: int, members: int) -> list[bytes]:
    """The command that makes a key. Member names are its own: servers do not share them."""
    pairs = [(name(i * members + m), b"%d" % mixed(m)) for m in range(members)]
    command, arguments = {
        "pool": (b"LB.ADD", [part for pair in pairs for part in pair]),
        "zset": (b"ZADD", [part for member, weight in pairs for part in (weight, member)]),
        "text": (b"SET", [name(i)]),
    }[kind]
    return [command, key(kind, i).encode(), *arguments]


def spread(server: Server, kind: str, keys: int, seconds: float, rounds: int) -> dict[str, float]:
    """Commands a second on a few keys (hot) and on all of them at random (cold): GET on as many strings, and
    the next member of the keys of that kind, which are there."""
    with Wire(server.port) as wire:
        pipelined(wire, (adding("text", i, 1) for i in range(keys)))
        process = number(wire, "server", "process_id")
    ways = {"GET": ("text", "GET {key}"), NEXT[kind].partition(" ")[0]: (kind, NEXT[kind])}
    if kind == "pool":
        ways |= {floor: (kind, f"{floor} {{key}}") for floor in ("FLOOR.WRITE", "FLOOR.TOUCH")}
    rates: dict[str, list[float]] = {}
    for i in range(rounds):
        everywhere = random.Random(i).sample(range(keys), min(keys, MOST))
        orders = {"hot": everywhere[:HOT], "cold": everywhere}
        for warmth, order in orders.items():
            for way, (of, command) in ways.items():
                case = Case(way, [[command.format(key=key(of, i))] for i in order])
                rate = throughput(server.port, process, case, seconds)
                rates.setdefault(f"{way}, {warmth}, a second", []).append(rate.turns / rate.cpu)
    answer = {title: median(all) for title, all in rates.items()}
    for way in ways:
        hot, cold = (answer[f"{way}, {warmth}, a second"] for warmth in orders)
        answer[f"{way}, cold / hot"] = cold / hot
        answer[f"{way}, ns lost to cache misses"] = (1 / cold - 1 / hot) * 1e9
    return answer


def scale(binary: Binary, module: Path, floor: str, keys: int, members: int, is_quick: bool) -> Figures:
    """One server for each kind, one after the other."""
    answers = {}
    for kind in "zset", "pool":
        with Server(binary, module, loadmodule=floor) as server:
            answers[kind] = keyspace(server, kind, keys, members)
            effort = (0.3, 3) if is_quick else (0.2, 15)
            answers[f"{kind}, spread"] = spread(server, kind, keys, *effort)
    return answers
