"""No command becomes dearer unnoticed: its instructions beside those of INCR, held to a baseline.

What a request costs is held to its floor: commands of floor.c with the same arguments and replies of the same
shape, which do only what the server asks of every module.

The baseline is tests/data/instructions.json. After a change that is worth its cost, this writes it anew:

    REDIS_LB_UPDATE=1 REDIS_LB_SERVERS=redis-7.0.15,redis-8.2.3 scripts/test -k dearer
"""

import json
import os
import sys
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

import pytest

import callgrind
from conftest import module
from server import eventually
from waiter import blocked
from wire import Refused, Wire, pack, words

sys.path.append(str(Path(__file__).parents[1]))
from bench.floor import floor  # noqa: E402
from bench.members import mixed, name  # noqa: E402

BASELINE = Path(__file__).parents[1] / "data" / "instructions.json"
SERVERS = 3  # See callgrind.py.
TOLERATED = 1.05
COUNTED = 640
POOL = "LB.ADD pool a 5 b 1 c 1"
DIFFERENT = "LB.ADD pool " + " ".join(f"{i} {i}" for i in range(1, 1001))
RELEASE = "LB.RELEASE pool OWNER o"
LARGE = "LB.ADD pool " + " ".join(f"{i} {1 + i * 7919 % 100}" for i in range(10_000))
IN_MIDDLE = "LB.PICK pool COUNT 10000"  # Of its life: at first the heaviest take turns alone.
# By title: what makes the key, and the commands.
CASES = {
    "INCR": (["SET pool 1000000"], ["INCR pool"]),
    "LB.PICK key": ([POOL], ["LB.PICK pool"]),
    "LB.PICK key, policy rr": ([POOL, "LB.POLICY pool rr"], ["LB.PICK pool"]),
    "LB.PICK key, 1,000 different weights": ([DIFFERENT], ["LB.PICK pool"]),
    "LB.PICK key, 10,000 backends": ([LARGE, IN_MIDDLE], ["LB.PICK pool"]),
    "LB.PICK key wrr": ([POOL], ["LB.PICK pool wrr"]),
    "LB.PICK key lc": ([POOL], ["LB.PICK pool lc"]),
    "LB.PICK key LEASE ms OWNER o, LB.RELEASE": ([POOL], ["LB.PICK pool LEASE 100000 OWNER o", RELEASE]),
    "LB.PICK key COUNT 100": ([POOL], ["LB.PICK pool COUNT 100"]),
    "LB.PICK key EXCLUDE 1 b": ([POOL], ["LB.PICK pool EXCLUDE 1 b"]),
    "LB.PEEK key": ([POOL], ["LB.PEEK pool"]),
    "LB.WEIGHT key a w": ([POOL], ["LB.WEIGHT pool a 5", "LB.WEIGHT pool a 6"]),
    "LB.WEIGHT key a w, 10,000 backends": ([LARGE], ["LB.WEIGHT pool 5000 5", "LB.WEIGHT pool 5000 6"]),
    "LB.STATS key a": ([POOL], ["LB.STATS pool a"]),
}


@dataclass(frozen=True)
class Request:
    """What a client sends for a request."""

    setup: list[str]
    pick: str
    most: float  # A multiple of what it is compared to.
    done: str = ""  # Ends the oldest lease.
    than: str = ""  # The title of another one, which it is compared to; else it is its own floor.
    servers: int = SERVERS


def pool(members: int) -> list[str]:
    """The commands that make a pool. Names are as long as the answers of the floor."""
    pairs = [f"{name(i).decode()} {mixed(i)}" for i in range(members)]
    return ["LB.ADD pool " + " ".join(pairs[i : i + 10_000]) for i in range(0, members, 10_000)]


FLOOR = {"LB.PICK pool COUNT": "FLOOR.HUNDRED pool COUNT", "LB.PICK": "FLOOR.LEASE", "LB.DONE": "FLOOR.DONE"}
SPAN = "LEASE 600000"
TEN = f"LB.PICK pool COUNT 10 {SPAN}"
MILLION = [f"LB.PICK pool COUNT 10000 {SPAN}"] * 100
PICK, DONE = f"LB.PICK pool {SPAN}", "LB.DONE pool {id}"
LEAST = f"LB.PICK pool lc {SPAN}"
REQUESTS = {
    "a request": Request([*pool(3), TEN], PICK, 1.18, DONE),
    "a request, OWNER": Request([*pool(3), f"{TEN} OWNER gateway-1"], f"{PICK} OWNER gateway-1", 1.22, DONE),
    "a request, OK, LATENCY": Request([*pool(3), TEN], PICK, 1.21, f"{DONE} OK LATENCY 12345"),
    "a request, lc": Request([*pool(3), TEN], LEAST, 1.24, DONE),
    "a request, lc, 100 backends": Request([*pool(100), TEN], LEAST, 1.36, DONE),
    "a request, lc, 100,000 backends": Request([*pool(100_000), TEN], LEAST, 1.52, DONE, servers=1),
    "a request, a million open": Request([*pool(3), *MILLION], PICK, 1.1, DONE, than="a request", servers=1),
    "a hundred picks": Request(pool(3), "LB.PICK pool COUNT 100", 1.28),
}


@pytest.mark.skipif(callgrind.missing() is not None, reason=callgrind.missing() or "")
@pytest.mark.timeout(900)
def test_no_command_is_dearer_than_it_was(binary):
    baselines = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    update = os.environ.get("REDIS_LB_UPDATE") == "1"
    if binary.name not in baselines and not update:
        pytest.skip(f"{BASELINE.name} says nothing of {binary.name}")
    now = ratios(binary)
    too_dear = {title: now[title] for title, request in REQUESTS.items() if now[title] > request.most}
    if update:
        baselines[binary.name] = now
        BASELINE.write_text(json.dumps(baselines, indent=2, sort_keys=True) + "\n")
    assert not too_dear, "as multiples of the floor"
    before = baselines[binary.name]
    assert before.keys() == now.keys(), "REDIS_LB_UPDATE=1 writes the baseline anew"
    changed = {title: f"{before[title]} -> {now[title]}" for title in now}
    dearer = {title: changed[title] for title in now if now[title] > before[title] * TOLERATED}
    cheaper = {title: changed[title] for title in now if now[title] < before[title] / TOLERATED}
    if cheaper:
        warnings.warn(f"cheaper than the baseline, which can be lowered: {cheaper}", stacklevel=1)
    assert not dearer, "dearer, as multiples of INCR, or a request's of its floor"


@pytest.mark.once("the waiters are the module's own")
@pytest.mark.skipif(callgrind.missing() is not None, reason=callgrind.missing() or "")
@pytest.mark.timeout(300)
def test_an_end_of_a_lease_costs_the_same_however_many_wait(binary):
    """2,000 clients of 1,000 tenants that take turns. (10,000: test_blocking.py, with --long.)"""
    costs = {}
    with callgrind.Callgrind(binary, module()) as server, Wire(server.port) as wire, ExitStack() as waiters:
        for command in ["LB.ADD pool a", "LB.QUEUE pool ORDER fair", "LB.LIMIT pool MAX 1"]:
            assert not isinstance(wire.ask(command), Refused)
        _, held = wire.ask(PICK)
        for before, number in (0, 10), (10, 2_000):
            waiting = [waiters.enter_context(Wire(server.port)) for _ in range(before, number)]
            for place, waiter in enumerate(waiting):
                waiter.send(pack(words(f"{PICK} BLOCK 0 FOR tenant-{place % 1000}")))
            eventually(lambda: blocked(wire) >= len(waiting), 60)  # noqa: B023
            counts = []
            for _ in range(7):
                counts.append(server._instructions(wire, lambda: wire.ask(DONE.format(id=held.decode()))))  # noqa: B023
                held = wire.ask("LB.LEASES pool")[0][1]
            costs[number] = median(counts)
    print(costs)
    assert costs[2_000] < 2 * costs[10]


@pytest.mark.once("it counts what the module alone does")
@pytest.mark.skipif(callgrind.missing() is not None, reason=callgrind.missing() or "")
def test_a_pick_by_hash_takes_up_to_eight_instructions_for_each_backend(binary):
    """Above a constant, alike or not. A backend that holds nearly all weight costs some more."""
    picks = [f"LB.PICK pool hash item:{i}" for i in range(64)]
    most = {"alike": 8, "mixed": 8, "one heavy": 20}
    took = {}
    with callgrind.Callgrind(binary, module()) as server:
        for title, weight in {"alike": lambda i: 1, "mixed": mixed, "one heavy": heavy}.items():
            costs = []
            for members in (1_000, 2_000):
                pairs = " ".join(f"{name(i).decode()} {weight(i)}" for i in range(members))
                with Wire(server.port) as wire:
                    prepare(wire, [f"LB.ADD pool {pairs}"])
                costs.append(server.cost(picks, COUNTED))
            took[title] = (costs[1] - costs[0]) / 1_000
    assert all(took[title] <= most[title] for title in most), took


def heavy(i):
    """One of weight 65535 among those of weight 1."""
    return 65535 if i == 500 else 1


def ratios(binary):
    """What the commands cost, as multiples of INCR, and requests, as multiples of their floors."""
    costs = {title: [] for title in [*CASES, *REQUESTS]}
    floors = {title: [] for title in REQUESTS}
    for start in range(SERVERS):
        with callgrind.Callgrind(binary, module(), loadmodule=floor()) as server:
            for title, (setup, commands) in CASES.items():
                with Wire(server.port) as wire:
                    prepare(wire, setup)
                costs[title].append(server.cost(commands, COUNTED))
            for title, request in REQUESTS.items():
                if start < request.servers:
                    with Wire(server.port) as wire:
                        oldest = prepare(wire, request.setup)
                        for costs_of, replaced in (floors, FLOOR), (costs, {}):
                            run = sender(wire, request, oldest, replaced)
                            costs_of[title].append(server.each(run, COUNTED // 2))
    base = min(costs["INCR"])
    multiples = {title: round(min(costs[title]) / base, 3) for title in CASES}
    for title, request in REQUESTS.items():
        least = min(costs[request.than] if request.than else floors[title])
        multiples[title] = round(min(costs[title]) / least, 3)
    return multiples


def prepare(wire, setup):
    """Makes the key. Answers the id of its oldest lease, if it has one."""
    wire.ask("FLUSHALL")
    oldest = None
    for command in setup:
        reply = wire.ask(command)
        assert not isinstance(reply, Refused), command
        if SPAN in command and oldest is None:
            oldest = reply[0][1].decode()
    return oldest


def sender(wire, request, oldest, replaced):
    """Sends requests, as often as it is told, in pipelines."""

    def packed(command):
        for word, instead in replaced.items():
            command = command.replace(word, instead)
        return pack(words(command))

    epoch, first = (oldest or "0-0").split("-")
    ids = (f"{epoch}-{number}" for number in count(int(first)))

    def run(times):
        while times > 0:
            some = min(times, callgrind.PIPELINE // 2)
            times -= some
            commands = [request.pick, *([request.done] if request.done else [])] * some
            wire.send(b"".join(packed(c.format(id=next(ids)) if "{id}" in c else c) for c in commands))
            replies = [wire.read() for _ in commands]
            assert all(replies), replies  # No nil, and no lease that was over.
            assert not any(isinstance(reply, Refused) for reply in replies), replies

    return run
