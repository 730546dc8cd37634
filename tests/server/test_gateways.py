"""Counts that cannot leak: gateways are killed while they hold leases, and the primary as well."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server import eventually

GATEWAY = Path(__file__).with_name("gateway.py")
LONG = os.environ.get("REDIS_LB_LONG") == "1"
GATEWAYS, SECONDS, PAUSE = (50, 60, 1.0) if LONG else (12, 4, 0.5)
MAX = 3


class Fleet:
    """Gateways as processes."""

    def __init__(self):
        self.ports = []
        self.alive = {}
        self.dead = []

    def start(self):
        name = f"gateway-{len(self.alive) + len(self.dead)}"
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, str(GATEWAY), name, *self.ports]
        self.alive[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill_one(self):
        name = random.choice(list(self.alive))
        gateway = self.alive.pop(name)
        gateway.kill()
        gateway.communicate()
        self.dead.append(name)

    def ask_all(self):
        """Tells all, then hears all."""
        for gateway in self.alive.values():
            gateway.stdin.write("\n")
            gateway.stdin.flush()
        return {name: json.loads(gateway.stdout.readline()) for name, gateway in self.alive.items()}

    def close(self):
        for gateway in self.alive.values():
            gateway.kill()
            gateway.communicate()


@pytest.fixture
def fleet():
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.mark.heavy
def test_counts_do_not_leak_when_gateways_and_the_primary_die(new_server, fleet):
    primary = new_server()
    replica = new_server(replicaof=f"127.0.0.1 {primary.port}")
    client = primary.client()
    client.execute_command("LB.ADD pool", *[word for name in "abcdefgh" for word in (name, 1)])
    for name in "abcdefgh":
        client.execute_command("LB.LIMIT pool BACKEND", name, "MAX", MAX)
    eventually(lambda: replica.client().execute_command("LB.CARD pool") == 8)
    fleet.ports = [str(primary.port), str(replica.port)]
    for _ in range(GATEWAYS):
        fleet.start()

    looks = most = 0
    rounds = int(SECONDS / PAUSE)
    for round in range(rounds):
        end = time.monotonic() + PAUSE
        while time.monotonic() < end or looks < 10 * (round + 1):
            most = max([most, *in_flight(client)])
            looks += 1
            time.sleep(0.005)
        fleet.kill_one()
        fleet.start()
        if round == rounds // 2:
            before = {epoch(fields(lease)["lease"]) for lease in leases_of(client)}
            primary.kill()
            client = replica.client()
            client.execute_command("REPLICAOF NO ONE")
    assert most == MAX, "the limit was reached, or nothing was tried, and it was never exceeded"

    # The new primary knows just what the living hold, save what was granted in the tail that it never got: of
    # that a gateway whom this machine gave no time since may still hold some.
    held = fleet.ask_all()
    known = {name: [fields(lease)["lease"] for lease in leases_of(client, name)] for name in held}
    for name, leases in held.items():
        lost = {lease for lease in leases if epoch(lease) in before} - set(known[name])
        assert sorted(known[name]) == sorted(set(leases) - lost), name
    assert any(epoch(lease) not in before for leases in known.values() for lease in leases)
    assert fleet.ask_all() == {name: len(leases) for name, leases in known.items()}
    # What the dead held ends by its deadline, with nobody's help.
    eventually(lambda: sum(in_flight(client)) == 0)
    stats = client.execute_command("LB.STATS pool")
    assert sum(fields(of)["expired"] for of in values(stats)) > 0
    print(f"{GATEWAYS} gateways, {len(fleet.dead)} killed, {looks} looks, at most {most} of {MAX} in flight")


def leases_of(client, *owner):
    """All that are open, or those of an owner."""
    return client.execute_command("LB.LEASES pool COUNT 10000", *["OWNER", *owner][: 2 * len(owner)])


def epoch(lease):
    """The part of a lease's id that is a primary's own."""
    return lease.partition("-")[0]


def in_flight(client):
    """Of each backend."""
    return [fields(of)["leases"] for of in values(client.execute_command("LB.STATS pool"))]


def values(answer):
    """Of a map, which RESP2 has flat."""
    return list(answer.values()) if isinstance(answer, dict) else answer[1::2]


def fields(answer):
    """A map, which RESP2 has flat."""
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
