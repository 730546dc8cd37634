"""A server that is killed under load loses nothing that it has acknowledged, and does nothing twice."""

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from server import eventually
from wire import dict_of

KILLS = 50 if os.environ.get("REDIS_LB_LONG") == "1" else 3
CLIENTS = 8
# How many commands all clients together have had answered when the server is killed.
ACKNOWLEDGED = 1_500


class Client:
    """A client of its own pool and of the one that all share, which keeps a log of what was answered."""

    def __init__(self, server, kill: int, number: int) -> None:
        self.own = f"own:{kill}:{number}"
        self.shared = f"shared:{kill}"
        self.log: list[tuple] = []  # of its own pool: what was acknowledged, in order
        self.picked = 0  # from the shared pool
        self.added: list[str] = []  # to the shared pool
        self.in_flight: tuple | None = None
        self._client = server.client()
        self._random = random.Random(f"{kill} {number}")

    def work(self) -> None:
        """Sends commands until the server is gone."""
        try:
            while True:
                self._step()
        except (redis.ConnectionError, redis.TimeoutError):
            pass

    def _step(self) -> None:
        backend = f"b{self._random.randrange(20)}"
        weight = self._random.randint(1, 9)
        command = self._random.choice(
            [
                ("LB.ADD", self.own, backend, weight),
                ("LB.REM", self.own, backend),
                ("LB.SET", self.own, backend, weight, "b0", 3, "b1", 2),
                *[("LB.PICK", self.own, by, "COUNT", 3) for by in ["rr", "wrr"]] * 2,
                ("LB.PICK", self.shared),
                ("LB.PICK", self.shared),
                ("LB.ADD", self.shared, f"{self.own}:{len(self.added)}", 1),
                ("LB.WEIGHT", self.shared, "always", weight),
            ]
        )
        self.in_flight = command
        answer = self._client.execute_command(*command)
        self.in_flight = None
        if command[1] == self.own:
            self.log.append(command)
        elif command[0] == "LB.PICK":
            assert answer is not None
            self.picked += 1
        elif command[0] == "LB.ADD":
            self.added.append(command[2])

    def acknowledged(self) -> int:
        return len(self.log) + self.picked + len(self.added)


def digest(client, key: str) -> str:
    return str(client.execute_command("DEBUG", "DIGEST-VALUE", key))


def replayed(client, log: list[tuple]) -> str:
    """The digest of a pool to which exactly these commands came."""
    client.delete("replay")
    pipeline = client.pipeline(transaction=False)
    for name, _, *rest in log:
        pipeline.execute_command(name, "replay", *rest)
    pipeline.execute()
    return digest(client, "replay")


@pytest.mark.timeout(900)
def test_a_killed_server_keeps_what_it_acknowledged(new_server, binary):
    """Each own pool is what its client's log makes of it, with or without the one command that had no answer.

    The shared pool has all that was acknowledged, and no more than what was on its way.
    """
    server = new_server(appendonly="yes", appendfsync="always", aof_use_rdb_preamble="no")
    kept = {}
    for kill in range(KILLS):
        server.client().execute_command("LB.ADD", f"shared:{kill}", "always", 1)
        clients = [Client(server, kill, number) for number in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as threads:
            for client in clients:
                threads.submit(client.work)
            eventually(lambda all=clients: sum(c.acknowledged() for c in all) >= ACKNOWLEDGED)
            server.kill()
        server.start()

        client = server.client()
        for each in clients:
            possible = [each.log]
            if each.in_flight and each.in_flight[1] == each.own:
                possible.append([*each.log, each.in_flight])
            assert digest(client, each.own) in [replayed(client, log) for log in possible]
        shared = f"shared:{kill}"
        unanswered = [each.in_flight for each in clients if each.in_flight]
        on_its_way = sum(command[:2] == ("LB.PICK", shared) for command in unanswered)
        picked = sum(each.picked for each in clients)
        assert picked <= dict_of(client.execute_command("LB.INFO", shared))["picks"] <= picked + on_its_way
        there = set(client.execute_command("LB.LIST", shared))
        added = {name for each in clients for name in each.added}
        assert added <= there
        assert len(there - added) <= 1 + sum(command[0] == "LB.ADD" for command in unanswered)
        kept |= {key: digest(client, key) for key in [shared, *(each.own for each in clients)]}
    client.delete("replay")
    assert {key: digest(client, key) for key in kept} == kept, (
        "a later crash changed what an earlier one left"
    )
