"""A primary that is cut off grants nothing while its successor does.

It refuses writes when too few replicas follow it, when it is paused, and when its disk fails. Clients wait
there, and what they wait for comes by itself: leases run out and buckets fill. If time went on at the old
primary, it would give them what the new one gives to others.

Five times as often: REDIS_LB_LONG=1.
"""

import heapq
import itertools
import os
import random
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from proxy import Proxy
from replication import is_linked
from server import SECONDS, Server, eventually, waiting
from standing import HOST
from wire import Refused, Wire, pack, words

ROUNDS = 5 if os.environ.get("REDIS_LB_LONG") == "1" else 1
# What `web` lets be in flight, in all and at each of its backends.
MAX, MAX_EACH = 4, 2
POOLS = [
    "LB.ADD web a 3 b 2 c 1",
    f"LB.LIMIT web MAX {MAX}",
    *(f"LB.LIMIT web BACKEND {backend} MAX {MAX_EACH}" for backend in "abc"),
    "LB.ADD rated a 1 b 1",
    "LB.LIMIT rated RATE 1 500",
]
LEASE_SECONDS = 0.6
WEB = [
    "LB.PICK web LEASE 600 BLOCK 0",
    "LB.PICK web lc LEASE 600 OWNER me BLOCK 60000",
    "LB.PICK web p2c EXCLUDE 1 a LEASE 600 BLOCK 0",
    "LB.PICK web rr COUNT 2 LEASE 600 BLOCK 0",
]
# Those who wait at each pool.
WAITERS = [*itertools.islice(itertools.cycle(WEB), 50), *["LB.PICK rated BLOCK 0"] * 12]
STOPPED_SECONDS = 3.2  # longer than the lag that is allowed
HEARD_WITHIN_SECONDS = 0.1  # by a client here, of what it was granted
SERVED_WITHIN_MS = 200


@dataclass
class Grant:
    """What a client was given, in seconds: from when until when it surely had it.

    That is until it sent LB.DONE, where the answer was 1. On a busy machine it may hear of a lease when that
    has nearly run out.
    """

    key: str
    backend: bytes
    lease: bytes | None
    start: float
    until: float


class Client(Wire):
    """Asks for the same again and again."""

    def __init__(self, port: int, command: str) -> None:
        super().__init__(port)
        self.command = command
        self.key = command.split()[1]
        self.held: list[Grant] = []
        self.ends: Grant | None = None  # by what it has sent
        self.awaits = ""  # the reply to that command
        self.said = 0.0  # when it was sent

    def say(self, command: str) -> None:
        self.awaits = command
        self.said = time.monotonic()
        self.send(pack(words(command)))


class Crowd(threading.Thread):
    """Clients that wait, hold for a moment what they get, end it and wait again; and what they got."""

    def __init__(self, commands: list[str], ports: list[int]) -> None:
        super().__init__(daemon=True)
        self.grants: list[Grant] = []
        self.errors: list[str] = []
        self._clients = [Client(port, command) for port, command in zip(ports, commands, strict=False)]
        self._is_closed = self._is_quiet = False
        self._idle = 0  # how often nobody had an answer
        self._random = random.Random(len(commands))
        self._later: list[tuple[float, int, Callable]] = []
        self._selector = selectors.DefaultSelector()
        for client in self._clients:
            self._selector.register(client._socket, selectors.EVENT_READ, client)
            client.say(client.command)

    def run(self) -> None:
        while not self._is_closed:
            answered = self._selector.select(0.005)
            self._idle += not answered
            for ready, _ in answered:
                self._hear(ready.data, ready.data.read())
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, do = heapq.heappop(self._later)
                if not self._is_quiet:
                    do()

    def _hear(self, client: Client, reply: object) -> None:
        now = time.monotonic()
        awaited, client.awaits = client.awaits, ""
        if isinstance(reply, Refused):
            self.errors.append(reply)
            self._at(now + 0.05, lambda: client.say(client.command))
        elif awaited == client.command and reply:
            leased = "LEASE" in awaited
            pairs = reply if "COUNT" in awaited else [reply]
            for backend, lease in pairs if leased else [(each, None) for each in pairs]:
                grant = Grant(client.key, backend, lease, now, now)
                self.grants.append(grant)
                client.held += [grant] * leased
            self._at(now + self._random.uniform(0.01, 0.1), lambda: self._go_on(client))
        else:
            if client.ends and reply == 1:
                client.ends.until = client.said
            client.ends = None
            self._go_on(client)

    def _go_on(self, client: Client) -> None:
        if client.held:
            client.ends = client.held.pop()
            client.say(f"LB.DONE {client.key} {client.ends.lease.decode()}")
        elif not self._is_quiet:
            client.say(client.command)

    def _at(self, when: float, do: Callable) -> None:
        heapq.heappush(self._later, (when, id(do), do))

    def be_quiet(self) -> None:
        """From now on nobody sends anything: who holds a lease hangs until it is over. The others wait."""
        self._is_quiet = True
        eventually(lambda: not any(client.awaits.startswith("LB.DONE") for client in self._clients))

    def hear(self) -> None:
        """Until they have heard all that was said to them so far."""
        before = self._idle
        eventually(lambda: self._idle > before + 1, pause=0.005)

    def waiting(self, key: str) -> int:
        """How many of them wait for something of that pool."""
        return sum(client.key == key and client.awaits == client.command for client in self._clients)

    def since(self, start: float) -> list[Grant]:
        """What they have got since then."""
        return [grant for grant in self.grants if grant.start >= start]

    def close(self) -> None:
        self._is_closed = True
        self.join()
        for client in self._clients:
            client.__exit__()


class Scene:
    """A primary, and the replica that succeeds it, whose link can be cut."""

    def __init__(self, new_server: Callable[..., Server], stack: ExitStack, replicas: int) -> None:
        self._stack = stack
        self._replicas = replicas
        options = {"min_replicas_to_write": 1, "min_replicas_max_lag": 2, "save": "3600 1000000"}
        self.primary = new_server(**options)
        self.link = Proxy()
        stack.callback(self.link.close)
        self.link.lead_to(self.primary.port)
        self.heir = new_server(replicaof=f"{HOST} {self.link.port}")
        direct = f"{HOST} {self.primary.port}"
        staying = [new_server(replicaof=direct) for _ in range(replicas - 1)]
        eventually(lambda: all(map(is_linked, [self.heir, *staying])))
        self._look, self._probe = (stack.enter_context(Wire(self.primary.port)) for _ in range(2))
        self._is_asked = False
        eventually(lambda: self.write() == "taken")
        for command in POOLS:
            assert not isinstance(answer := self._look.ask(command), Refused), answer
        assert self._look.ask(f"WAIT {replicas} 10000") == replicas

    def ask(self, command: str) -> object:
        return self._look.ask(command)

    def ask_all(self, *commands: str) -> list:
        return self._look.ask_all(*commands)

    def state(self, *keys: str) -> list:
        """What changes when somebody is given something, or time passes."""
        told = []
        for key in keys:
            info = self.ask(f"LB.INFO {key}")
            told.append([info[info.index(field) + 1] for field in (b"picks", b"leases", b"clock")])
        return told

    def write(self) -> str:
        """What becomes of a client's write now: `taken`, `refused` or `held`."""
        if not self._is_asked:
            self._probe.send(pack(words("LB.PICK missing LEASE 600")))
        self._is_asked = True
        with selectors.DefaultSelector() as selector:
            selector.register(self._probe._socket, selectors.EVENT_READ)
            if not selector.select(0.05):
                return "held"
        self._is_asked = False
        return "refused" if isinstance(self._probe.read(), Refused) else "taken"

    def succeed(self) -> Crowd:
        """The replica takes over, and others pick there."""
        self.heir.client().replicaof("NO", "ONE")
        return self.crowd([self.heir.port])

    def crowd(self, ports: list[int]) -> Crowd:
        """Clients who reach it there in turn."""
        crowd = Crowd(WAITERS, [*itertools.islice(itertools.cycle(ports), len(WAITERS))])
        self._stack.callback(crowd.close)
        crowd.start()
        return crowd

    def heal(self) -> None:
        """All hear of each other again: it that its replica has left, its clients of what they got."""
        self.link.heal()
        remaining = self._replicas - 1
        eventually(lambda: self.primary.client().info("replication")["connected_slaves"] == remaining)
        # What its replica had said before it left may have come so late that it took writes for a moment.
        time.sleep(LEASE_SECONDS + HEARD_WITHIN_SECONDS)

    def follow_again(self) -> None:
        """The replica becomes that of the old primary again."""
        self.heir.client().replicaof(HOST, self.primary.port)


# The ways. Up to `yield` the primary is cut off; behind it, it is brought back.


def lag(scene: Scene) -> Iterator[None]:
    """Its replica does not hear of it any more, nor it of its replica."""
    scene.link.cut()
    yield
    scene.follow_again()


def pause(scene: Scene) -> Iterator[None]:
    """Its operator holds all writes."""
    assert scene.ask("CLIENT PAUSE 60000 WRITE") == "OK"
    yield
    assert scene.ask("CLIENT UNPAUSE") == "OK"


def disk(scene: Scene) -> Iterator[None]:
    """It cannot save: a folder lies where its file belongs."""

    def save(status: str) -> None:
        client = scene.primary.client()
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == status)

    file = scene.primary.folder / "dump.rdb"
    file.unlink(missing_ok=True)
    file.mkdir()
    save("err")
    yield
    file.rmdir()
    save("ok")


def partition(scene: Scene) -> Iterator[None]:
    """Neither its replica nor most of its clients hear of it."""
    yield from lag(scene)


# Where it shall refuse for no other reason, it keeps one replica beside the heir.
REPLICAS = {pause: 2, disk: 2}


@pytest.fixture
def scene_of(new_server):
    """Makes a scene for that way, and a crowd at its primary: some hold leases and hang, the others wait."""
    with ExitStack() as stack:

        def build(way: Callable) -> tuple[Scene, Crowd]:
            scene = Scene(new_server, stack, REPLICAS.get(way, 1))
            # Of three clients one is on the primary's side of the partition.
            beyond = [scene.link.port] * 2 if way is partition else []
            crowd = scene.crowd([scene.primary.port, *beyond])
            eventually(lambda: len(crowd.grants) > 20)
            crowd.be_quiet()
            return scene, crowd

        yield build


@pytest.mark.parametrize("way", [lag, pause, disk, partition], ids=lambda way: way.__name__)
@pytest.mark.timeout(240 + 60 * ROUNDS)
def test_a_primary_that_refuses_writes_grants_nothing(scene_of, way):
    refusal = "held" if way is pause else "refused"
    for _ in range(ROUNDS):
        scene, crowd = scene_of(way)
        cut = way(scene)
        next(cut)
        eventually(lambda scene=scene: scene.write() == refusal)
        still = scene.state("web", "rated")
        crowd.hear()
        refused = time.monotonic()
        assert crowd.waiting("web") > MAX and crowd.waiting("rated") > 1
        others = scene.succeed()
        for _ in waiting(LEASE_SECONDS + 0.4):
            assert scene.state("web", "rated") == still
            assert scene.write() != "taken"
        crowd.hear()
        assert crowd.since(refused) == []
        eventually(lambda others=others: sum(grant.until > grant.start for grant in others.grants) > MAX)
        others.close()
        assert_nobody_has_too_much(others.grants)
        scene.heal()
        assert_served_again(scene, crowd, cut)


@pytest.mark.parametrize("cuts_link", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.timeout(240 + 60 * ROUNDS)
def test_nor_does_one_that_stood_still(scene_of, cuts_link):
    """Nobody writes. The server itself would take it for up to a second: so often it counts its replicas."""
    for _ in range(ROUNDS):
        scene, crowd = scene_of(lag)
        for _ in waiting(SECONDS):
            looked = time.monotonic()
            still = scene.state("web")
            scene.primary.pause()
            crowd.hear()
            if not crowd.since(looked):
                break
            # Somebody was served between the look and the pause.
            scene.primary.go_on()
        if cuts_link:
            scene.link.cut()
        others = scene.succeed()
        time.sleep(STOPPED_SECONDS)
        assert crowd.waiting("web") > MAX and crowd.waiting("rated") > 1
        stood = time.monotonic()
        scene.primary.go_on()
        for _ in waiting(1.5):
            assert scene.state("web") == still
            assert crowd.since(stood) == []
        scene.heal()
        assert scene.write() != "taken"
        eventually(lambda others=others: sum(grant.until > grant.start for grant in others.grants) > MAX)
        others.close()
        assert_nobody_has_too_much(others.grants)
        assert_served_again(scene, crowd, iter([scene.follow_again()]))


def assert_nobody_has_too_much(grants: list[Grant]) -> None:
    """Neither the pool nor a backend has had more leases at once than it lets."""
    changes = sorted(
        change
        for grant in grants
        if grant.lease
        for change in [(grant.start, 1, grant.backend), (grant.until, -1, grant.backend)]
    )
    have = Counter()
    for _, change, backend in changes:
        have[backend] += change
        assert have[backend] <= MAX_EACH and have.total() <= MAX


def assert_served_again(scene: Scene, crowd: Crowd, brings_back: Iterator[None]) -> None:
    """Who waits there is served by the clock alone as soon as it takes writes again."""
    before, before_ms = time.monotonic(), 1000 * time.time()
    next(brings_back, None)
    eventually(lambda: scene.write() == "taken", pause=0.002)
    accepted_ms = 1000 * time.time()
    # A busy machine does not let the server go on at once. It is asked all the time how long that may be.
    answered, excused = time.monotonic(), 0.0
    granted: list[int] = []
    for _ in waiting(SECONDS, pause=0.001):
        # By the pool's clock, because on such a machine clients hear of it late.
        listed, info = scene.ask_all("LB.LEASES web", "LB.INFO web")
        clock = info[info.index(b"clock") + 1]
        granted += [clock - lease[lease.index(b"age") + 1] for lease in listed]
        took, answered = time.monotonic() - answered, time.monotonic()
        excused += took if took > 0.01 else 0
        since = [at for at in granted if at > before_ms]
        if since and {grant.key for grant in crowd.since(before)} == {"web", "rated"}:
            break
    else:
        raise AssertionError("nobody is served")
    assert min(since) - accepted_ms < SERVED_WITHIN_MS + 1000 * excused
