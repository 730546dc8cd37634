"""What the module is for: eight Python processes share one pool by redis-py, and the shares are exact.

Who was served in which order only the server knows. So a worker that is asked for the order picks inside
MULTI/EXEC, together with INCR of a counter: the counter's value is the place of that pick among all picks and
changes.
"""

import multiprocessing
import random
from bisect import bisect
from collections import Counter
from contextlib import contextmanager

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from server import eventually, waiting

pytestmark = pytest.mark.heavy
PROCESSES = 8
PICKS = 30_000
SECONDS = 100.0

A, B, C = SERVERS = ["app1.example.com:8000", "app2.example.com:8000", "app3.example.com:8000"]
POOL, ORDER, STOP, FAILURE = "pool", "order", "stop", "failure"


# What runs in the worker processes


def stand_ready(barrier):
    """Each worker gets the barrier at which all of them meet before they begin."""
    global START
    START = barrier


def connected(port):
    """A worker's own client. It never retries: a retry would pick twice."""
    START.wait(SECONDS)
    return redis.Redis(port=port, decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=30)


def pick(port, times):
    """Pick by round robin as any user would; who was picked."""
    with connected(port) as client:
        return [client.execute_command("LB.PICK", POOL, "rr") for _ in range(times)]


def pick_in_order(port, times):
    """Pick by weight; who was picked, each with its place in the server's order."""
    with connected(port) as client:
        return [pick_once(client)[:2] for _ in range(times)]


def pick_until_stopped(port):
    """The same until the test says stop."""
    picks = []
    with connected(port) as client:
        while True:
            place, server, stop, _ = pick_once(client)
            picks.append((place, server))
            if stop:
                return picks


def serve_until_stopped(port):
    """The same, and report the time that each server took: `took` and `served` are sums over all."""
    picks = []
    with connected(port) as client:
        while True:
            place, server, stop, failure = pick_once(client)
            picks.append((place, server))
            # The simulation: so many milliseconds the servers take, the first one more when its disc fails.
            milliseconds = {A: 80 if failure else 10, B: 20, C: 40}[server]
            with client.pipeline(transaction=True) as unit:
                unit.hincrby("took", server, milliseconds).hincrby("served", server, 1).execute()
            if stop:
                return picks


def pick_once(client):
    with client.pipeline(transaction=True) as unit:
        unit.incr(ORDER).execute_command("LB.PICK", POOL, "wrr").exists(STOP).exists(FAILURE)
        return unit.execute()


# What runs in the test


class Workers:
    """Eight processes that do the same at the same time."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self.pool = context.Pool(PROCESSES, stand_ready, [context.Barrier(PROCESSES)])

    def begin(self, work, *arguments):
        """Let each process do that work. They meet before they begin, so each does it exactly once."""
        return self.pool.starmap_async(work, [arguments] * PROCESSES, chunksize=1)

    @contextmanager
    def until_stopped(self, work, server):
        """Let each do that work as long as the block lasts, which then has their result."""
        result = self.begin(work, server.port)
        try:
            yield result
        finally:
            server.client().set(STOP, "1")
            result.wait(SECONDS)


@pytest.fixture(scope="module")
def workers():
    workers = Workers()
    yield workers
    workers.pool.terminate()
    workers.pool.join()


def in_order(logs):
    """The picks of all workers in the order in which the server served them."""
    return sorted(entry for log in logs for entry in log)


def change(client, *command):
    """Change the pool, and note the place of that change in the server's order."""
    with client.pipeline(transaction=True) as unit:
        unit.incr(ORDER).execute_command(*command)
        return unit.execute()


def picks_go_on(client, more):
    """Wait until so many further picks were served."""
    goal = int(client.get(ORDER)) + more
    eventually(lambda: int(client.get(ORDER)) >= goal)


def test_round_robin_gives_each_of_three_servers_exactly_a_third(client, server, workers):
    for name in SERVERS:
        client.execute_command("LB.ADD", POOL, name)
    logs = workers.begin(pick, server.port, PICKS // PROCESSES).get(SECONDS)
    assert Counter(name for log in logs for name in log) == dict.fromkeys(SERVERS, 10_000)


def test_weights_are_kept_exactly_and_at_any_moment(client, server, workers):
    weights = {A: 5, B: 3, C: 2}
    client.execute_command("LB.ADD", POOL, *(word for pair in weights.items() for word in pair))
    logs = workers.begin(pick_in_order, server.port, PICKS // PROCESSES).get(SECONDS)

    served = in_order(logs)
    assert [place for place, _ in served] == list(range(1, PICKS + 1))
    assert Counter(name for _, name in served) == {A: 15_000, B: 9_000, C: 6_000}
    assert max(log[0] for log in logs) < min(log[-1] for log in logs), "the processes took turns"

    so_far = dict.fromkeys(weights, 0)
    for place, name in served:
        so_far[name] += 1
        # In tenths of a pick, so that all is whole numbers.
        off = {name: 10 * so_far[name] - place * weight for name, weight in weights.items()}
        assert all(-10 <= tenths <= 10 for tenths in off.values()), f"after {place} picks: {so_far}"


def test_servers_come_and_go_and_change_weight_while_all_pick(client, server, workers):
    """No error, and in the server's order nobody is picked who is not there, or whose weight is 0."""
    chance = random.Random(3)
    visitors = [f"10.0.0.{i}:80" for i in range(5)]
    weights = {"10.0.1.1:80": 1}  # this one always stays, so that every pick finds someone
    place, _ = change(client, "LB.ADD", POOL, "10.0.1.1:80", 1)
    changes = [(place, dict(weights))]

    with workers.until_stopped(pick_until_stopped, server) as picking:
        for _ in range(300):
            name, weight = chance.choice(visitors), chance.randrange(10)
            if name not in weights:
                weights[name] = weight
                command, expected = ["LB.ADD", POOL, name, weight], 1
            elif chance.random() < 0.5:
                weights[name] = weight
                command, expected = ["LB.WEIGHT", POOL, name, weight], "OK"
            else:
                del weights[name]
                command, expected = ["LB.REM", POOL, name], 1
            place, answer = change(client, *command)
            assert answer == expected, command
            changes.append((place, dict(weights)))
            picks_go_on(client, chance.randrange(20))
    served = in_order(picking.get())

    change_places = [place for place, _ in changes]
    places = sorted(change_places + [place for place, _ in served])
    assert places == list(range(1, len(places) + 1))
    assert len(served) > 2_000
    for place, name in served:
        since, there = changes[bisect(change_places, place) - 1]
        assert there.get(name), f"pick {place} went to {name}, but since {since} there are {there}"


def test_shares_follow_how_fast_the_servers_are(client, server, workers):
    """A process that sets weights by what the workers measure; then a server gets eight times slower."""
    client.execute_command("LB.ADD", POOL, *(word for name in SERVERS for word in (name, 20)))
    settings = [(0, dict.fromkeys(SERVERS, 20))]

    def adjust():
        """Set each server's weight to its speed, as soon as all have served often enough to tell."""
        served = client.hgetall("served")
        if min(int(served.get(name, 0)) for name in SERVERS) < 20:
            return
        with client.pipeline(transaction=True) as unit:
            unit.hgetall("took").hgetall("served").delete("took", "served")
            took, served, _ = unit.execute()
        weights = {name: round(800 * int(served[name]) / int(took[name])) for name in SERVERS}
        if weights != settings[-1][1]:
            pairs = [word for pair in weights.items() for word in pair]
            place, _ = change(client, "LB.WEIGHT", POOL, *pairs)
            settings.append((place, weights))

    def adjust_until(goal):
        """Adjust until those are the weights, and have been for 2,000 picks."""
        for _ in waiting(60, pause=0):
            adjust()
            place, weights = settings[-1]
            if weights == goal and int(client.get(ORDER)) >= place + 2_000:
                return
        raise AssertionError(f"the weights do not become {goal}: {settings}")

    with workers.until_stopped(serve_until_stopped, server) as serving:
        adjust_until({A: 80, B: 40, C: 20})
        client.set(FAILURE, "1")
        adjust_until({A: 10, B: 40, C: 20})
    served = in_order(serving.get())

    # From one setting to the next, each server's share is its weight's.
    ends = [place for place, _ in settings[1:]] + [served[-1][0] + 1]
    for (begin, weights), end in zip(settings, ends, strict=True):
        shares = Counter(name for place, name in served if begin < place < end)
        for name, weight in weights.items():
            exact = shares.total() * weight / sum(weights.values())
            assert abs(shares[name] - exact) <= 5, f"{shares} under {weights}"
