"""No command becomes dearer unnoticed: its instructions beside those of INCR, held to a baseline.

The baseline is tests/data/instructions.json. After a change that is worth its cost, this writes it anew:

    REDIS_LB_UPDATE=1 REDIS_LB_SERVERS=redis-7.0.15,redis-8.2.3 scripts/test -k dearer
"""

import json
import os
import warnings
from pathlib import Path

import pytest

import callgrind
from conftest import module
from wire import Refused, Wire

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


@pytest.mark.skipif(callgrind.missing() is not None, reason=callgrind.missing() or "")
@pytest.mark.timeout(300)
def test_no_command_is_dearer_than_it_was(binary):
    baselines = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    update = os.environ.get("REDIS_LB_UPDATE") == "1"
    if binary.name not in baselines and not update:
        pytest.skip(f"{BASELINE.name} says nothing of {binary.name}")
    now = ratios(binary)
    if update:
        baselines[binary.name] = now
        BASELINE.write_text(json.dumps(baselines, indent=2, sort_keys=True) + "\n")
        return
    before = baselines[binary.name]
    assert before.keys() == now.keys(), "REDIS_LB_UPDATE=1 writes the baseline anew"
    changed = {title: f"{before[title]} -> {now[title]}" for title in now}
    dearer = {title: changed[title] for title in now if now[title] > before[title] * TOLERATED}
    cheaper = {title: changed[title] for title in now if now[title] < before[title] / TOLERATED}
    if cheaper:
        warnings.warn(f"cheaper than the baseline, which can be lowered: {cheaper}", stacklevel=1)
    assert not dearer, "dearer, as multiples of INCR"


def ratios(binary):
    """What the commands cost, as multiples of INCR."""
    costs = {title: [] for title in CASES}
    for _ in range(SERVERS):
        with callgrind.Callgrind(binary, module()) as server:
            for title, (setup, commands) in CASES.items():
                with Wire(server.port) as wire:
                    for command in ["FLUSHALL", *setup]:
                        assert not isinstance(wire.ask(command), Refused), command
                costs[title].append(server.cost(commands, COUNTED))
    base = min(costs["INCR"])
    return {title: round(min(all) / base, 3) for title, all in costs.items()}
