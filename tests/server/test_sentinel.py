"""A pool under Sentinel: gateways pick while primaries are killed, stopped, cut off or told to step down.

A pick is accountable: in one transaction a gateway picks, asks for the number of the pick and sets a bit of
its own for this attempt. A failover keeps or loses that as a whole, so the bits on the new primary tell which
of the picks that gateways were answered are lost. A gateway that waits counts a pick only when WAIT says that
enough replicas have it.
"""

import functools
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from conftest import module
from documents import blocks
from model import Pool, Request
from proxy import Proxy
from sentinel import NAME, NODES, Sentinels, follows, primary_of
from server import BOUND, Server, eventually, is_free
from servers import Binary
from standing import HOST, PIDFILE, ROOT, process
from wire import dict_of

LONG = os.environ.get("REDIS_LB_LONG") == "1"
FAILOVERS = 20
RESULTS = ROOT / "target/sentinel.json"
SECONDS = 90.0
WEIGHTS = {b"a": 7, b"b": 5, b"c": 3, b"d": 1}
PICKS_A_SECOND = 50.0  # of each gateway
ANSWER_SECONDS = 0.5
WAIT_MS = 200
LEASE_MS = 1000  # nobody ends a lease before
# For each gateway: how many replicas must have its picks.
REPLICAS = [0, 0, 1, 1, 2, 2, 0, 2]
LOSSLESS = {"prepared", "coordinated"}  # also for gateways that do not wait
BESIDE = {6, 7}  # reach a node also when it is cut off
SPLIT_PICKS = 20  # which each of them is answered by a primary that is cut off, unless that refuses
# In the short form, where the server can: sentinels look at the nodes more often, so that an old primary is a
# replica again after 2 s instead of 10. What gateways see of a failover does not depend on it.
HURRY = {"info-period": 1000, "publish-period": 500}


# What runs in the gateways' processes


class Answer(NamedTuple):
    """A pick that a gateway was answered."""

    time: float
    gateway: int
    attempt: int
    number: int  # of the pick, as the pool counts them
    backend: bytes
    lease: bytes
    port: int  # of the node
    confirmed: bool  # by as many replicas as this gateway waits for


class Beside(redis.sentinel.Sentinel):
    """Names the nodes' own ports instead of those of their proxies."""

    own: dict[int, int]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        host, port = super().discover_master(service_name)
        return host, self.own[port]


class Gateway:
    def __init__(self, number: int, sentinels: list[int], own: dict[int, int]) -> None:
        # Without its own retries, so that each attempt has a number.
        options = {"socket_timeout": ANSWER_SECONDS, "retry": Retry(NoBackoff(), 0), "protocol": 3}
        ask = (Beside if number in BESIDE else redis.sentinel.Sentinel)(
            [(HOST, port) for port in sentinels], sentinel_kwargs=options
        )
        ask.own = own
        self._client = ask.master_for(NAME, **options)
        self._number = number
        self._replicas = REPLICAS[number]
        self._attempt = 0
        self._told = ([], Counter())

    def turn(self) -> None:
        """An attempt to pick."""
        self._attempt += 1
        try:
            self._told[0].append(self._pick())
        except redis.RedisError as error:
            self._told[1][f"{type(error).__name__}: {error}"] += 1
            self._client.connection_pool.disconnect()  # so that the next attempt asks the sentinels

    def _pick(self) -> Answer:
        # One pipeline, because WAIT is about what was written on its own connection.
        pipeline = self._client.pipeline(transaction=False)
        for command in [
            ("CONFIG", "GET", "port"),
            ("MULTI",),
            ("LB.PICK", "web", "LEASE", LEASE_MS),
            ("LB.INFO", "web"),
            ("SETBIT", bits(self._number), self._attempt, 1),
            ("EXEC",),
            ("WAIT", self._replicas, WAIT_MS),
        ]:
            pipeline.execute_command(*command)
        config, *_, ((backend, lease), info, _), replicas = pipeline.execute()
        return Answer(
            time=time.monotonic(),
            gateway=self._number,
            attempt=self._attempt,
            number=dict_of(info)[b"picks"],
            backend=backend,
            lease=lease,
            port=int(config[b"port"]),
            confirmed=replicas >= self._replicas,
        )

    def tell(self) -> tuple[list[Answer], Counter]:
        """The answers and errors since it last told."""
        told, self._told = self._told, ([], Counter())
        return told


def run(pipe, *arguments: object) -> None:
    """A gateway's process: it picks until the test is gone, and stands still between `hold` and `go on`."""
    try:
        gateway = Gateway(*arguments)
        holds = True
        due = time.monotonic()
        while True:
            if pipe.poll(None if holds else max(0.0, due - time.monotonic())):
                order = pipe.recv()
                holds = {"hold": True, "go on": False}.get(order, holds)
                pipe.send(gateway.tell())
            else:
                due = max(due + 1 / PICKS_A_SECOND, time.monotonic())
                gateway.turn()
    except EOFError:
        pass
    except BaseException:
        pipe.send(traceback.format_exc())


# What runs in the test


class Gateways:
    """Their processes, and what they were answered. They stand still until they are told to go on."""

    def __init__(self, sentinels: list[int], own: dict[int, int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for number in range(len(REPLICAS)):
            ours, theirs = context.Pipe()
            gateway = context.Process(target=run, args=(theirs, number, sentinels, own), daemon=True)
            gateway.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(gateway)
        self.forget()

    def forget(self) -> None:
        """Begin a new record."""
        self.answers: list[Answer] = []
        self.errors: Counter = Counter()

    def tell(self, order: str = "tell") -> None:
        """Give them an order, and take in what they have seen."""
        for pipe in self._pipes:
            with suppress(BrokenPipeError):  # one that ended has said why
                pipe.send(order)
        for number, pipe in enumerate(self._pipes):
            assert pipe.poll(SECONDS), f"gateway {number} does not answer"
            told = pipe.recv()
            assert isinstance(told, tuple), f"gateway {number} ended:\n{told}"
            self.answers += told[0]
            self.errors += told[1]

    def wait(
        self,
        who: set[int],
        node: Callable[[], Server | None],
        since: float,
        times: int = 1,
        confirmed: bool = False,
    ) -> None:
        """Wait until each of these has had so many answers since then from what is that node at last."""

        def answered() -> bool:
            self.tell()
            there = node()
            recent = [a for a in self.answers if there and a.time >= since and a.port == there.port]
            counts = Counter(a.gateway for a in recent if a.confirmed or not confirmed)
            return all(counts[number] >= times for number in who)

        eventually(answered, SECONDS, pause=0.2)

    def close(self) -> None:
        for each in self._processes:
            each.kill()
            each.join()


class Apart(Sentinels):
    """Nodes that are reached through proxies."""

    def __init__(self, start, proxies: dict[Server, Proxy], **options: object) -> None:
        self.proxies = proxies
        super().__init__(start, **options)

    def _node(self, **options: object) -> Server:
        proxy = Proxy()
        try:
            node = super()._node(replica_announce_ip=HOST, replica_announce_port=proxy.port, **options)
        except BaseException:
            proxy.close()
            raise
        proxy.lead_to(node.port)
        self.proxies[node] = proxy
        return node

    def address(self, node: Server) -> int:
        return self.proxies[node].port

    def switches(self) -> int:
        """How often the primary was changed."""
        return self.sentinels[0].log().count("+switch-master")

    def strike(self, kind: str, primary: Server) -> Callable[[], object]:
        """Make a replica take over; what to call so that the old primary can come back."""
        match kind:
            case "killed":
                primary.kill()
                return primary.start
            case "stopped":
                primary.pause()
                return primary.go_on
            case "cut off":
                self.proxies[primary].cut()
                return self.proxies[primary].heal
            case "prepared":
                # It refuses to pick, and what it has picked the replicas have.
                operator = primary.client(single_connection_client=True)
                (usual,) = operator.config_get("min-replicas-to-write").values()
                operator.config_set("min-replicas-to-write", NODES)
                assert operator.execute_command("WAIT", NODES - 1, 30_000) == NODES - 1
                self._command("FAILOVER", NAME)
                return functools.partial(self._reset, primary, usual)
            case "by command":
                self._command("FAILOVER", NAME)
            case "coordinated":
                self._command("FAILOVER", NAME, "COORDINATED")
        return lambda: None

    def _command(self, *words: str) -> None:
        def is_taken() -> bool:
            # Not while it takes a replica, or all of them, for silent.
            with suppress(redis.ResponseError):
                return self.sentinels[0].client().execute_command("SENTINEL", *words)
            return False

        eventually(is_taken, SECONDS, pause=0.2)

    def _reset(self, node: Server, least_replicas: str) -> None:
        eventually(lambda: follows(node.port, self.address(self.primary())), SECONDS, pause=0.2)
        node.client().config_set("min-replicas-to-write", least_replicas)
        node.client().config_rewrite()  # when it was made a replica, it wrote down the other one


@dataclass
class Failover:
    """What one failover was like. Answers are counted by how many replicas the gateway waited for."""

    kind: str
    switches: int  # of the primary: more than one when the sentinels found another reason
    silence: float  # the longest time in which no gateway had a pick confirmed, in seconds
    answered: dict[int, int]
    lost: dict[int, int]
    lost_until: float  # when the last lost pick was answered, in seconds after it began
    whole_again: float  # seconds from when the old primary could come back until all is as before
    errors: dict[str, int]


class Trial:
    """Failovers of one set under the eyes of its gateways."""

    def __init__(self, servers: Apart, gateways: Gateways, guarded: bool) -> None:
        self._servers = servers
        self._gateways = gateways
        self._guarded = guarded
        self._model = Pool()
        for name, weight in WEIGHTS.items():
            self._model.add(name, weight)
        self._sequence: list[bytes] = []
        self._kept: set[int] = set()  # the numbers of picks that were answered and not lost
        self._leases: set[bytes] = set()  # all that were answered

    def fail_over(self, kind: str) -> Failover:
        """From a whole set to a whole set, with all that can be checked in between."""
        servers, gateways = self._servers, self._gateways
        everyone = set(range(len(REPLICAS)))
        old = servers.primary()
        before = servers.switches()
        gateways.forget()
        gateways.tell("go on")
        gateways.wait(everyone, servers.primary, since=0, times=5, confirmed=True)
        began = time.monotonic()
        mend = servers.strike(kind, old)
        eventually(lambda: servers.primary() not in (None, old), SECONDS, pause=0.2)
        named = time.monotonic()
        # A primary that is cut off goes on for those beside it, unless it misses its replicas.
        split = BESIDE if kind == "cut off" and not self._guarded else set()
        gateways.wait(everyone - split, servers.primary, named)
        gateways.wait(split, lambda: old, named, SPLIT_PICKS)
        mended = time.monotonic()
        mend()
        eventually(servers.whole, SECONDS, pause=0.2)
        whole_again = time.monotonic() - mended
        gateways.wait(everyone, servers.primary, mended, confirmed=True)
        gateways.tell("hold")
        lost = self._check()
        witnesses = everyone - (BESIDE if kind == "cut off" else set())
        times = sorted(a.time for a in gateways.answers if a.confirmed and a.gateway in witnesses)
        return Failover(
            kind=kind,
            switches=servers.switches() - before,
            silence=max(after - before for before, after in pairwise(times) if after > began),
            answered=by_replicas([a for a in gateways.answers if a.confirmed and a.time > began]),
            lost=by_replicas(lost),
            lost_until=max((a.time - began for a in lost), default=0.0),
            whole_again=whole_again,
            errors=dict(gateways.errors),
        )

    def _check(self) -> list[Answer]:
        """The nodes are equal, the order goes on, leases end and none comes again; which picks are lost."""
        primary = self._servers.primary()
        keys = ["web", *(bits(number) for number in range(len(REPLICAS)))]

        def digests(node: Server) -> object:
            return node.client().execute_command("DEBUG", "DIGEST-VALUE", *keys)

        def leases() -> int:
            return dict_of(primary.client().execute_command("LB.INFO", "web"))["leases"]

        eventually(lambda: leases() == 0, SECONDS)
        eventually(lambda: all(digests(node) == digests(primary) for node in self._servers.nodes), SECONDS)
        with primary.client(decode_responses=False, protocol=3).pipeline(transaction=True) as unit:
            for key in keys[1:]:
                unit.get(key)
            for command in ["LB.INFO", "LB.STATS"]:
                unit.execute_command(command, "web")
            unit.execute_command("LB.PEEK", "web", "COUNT", 50)
            *made, info, stats, next_picks = unit.execute()

        picks = dict_of(info)[b"picks"]
        assert sum(int.from_bytes(bitmap).bit_count() for bitmap in made) == picks
        self._foresee(max(picks + 50, *(answer.number for answer in self._gateways.answers)))
        assert next_picks == self._sequence[picks : picks + 50]
        counts = Counter(self._sequence[:picks])
        assert {name: dict_of(told)[b"picks"] for name, told in dict_of(stats).items()} == counts
        lost = []
        for answer in self._gateways.answers:
            assert answer.backend == self._sequence[answer.number - 1], f"out of order: {answer}"
            assert answer.lease not in self._leases, f"two had the same lease: {answer}"
            self._leases.add(answer.lease)
            if noted(made[answer.gateway], answer.attempt):
                assert answer.number not in self._kept, f"two had the same pick: {answer}"
                self._kept.add(answer.number)
            elif answer.confirmed:
                lost.append(answer)
        return lost

    def _foresee(self, picks: int) -> None:
        """Extend the sequence to so many picks, in the naive form of nginx's."""
        while len(self._sequence) < picks:
            self._sequence += self._model.pick(Request.of([b"COUNT", b"1000"]))


def bits(gateway: int) -> str:
    """Where this gateway notes its attempts."""
    return f"made:{gateway}"


def noted(bitmap: bytes, attempt: int) -> bool:
    """Whether that bit is set, as SETBIT counts them."""
    return attempt // 8 < len(bitmap) and bool(bitmap[attempt // 8] & 0x80 >> attempt % 8)


def by_replicas(answers: list[Answer]) -> dict[int, int]:
    """How many of them went to gateways that wait for none, one, two replicas."""
    counts = Counter(REPLICAS[answer.gateway] for answer in answers)
    return {number: counts[number] for number in sorted({*REPLICAS})}


def plan(binary: Binary) -> list[str]:
    """What happens to the primaries of that server, one after the other."""
    kinds = ["killed", "stopped", "cut off", "by command", "prepared"]
    kinds += ["coordinated"] * binary.satisfies("valkey 9.0")
    return [*islice(cycle(kinds), FAILOVERS)] if LONG else kinds


@pytest.fixture
def proxies():
    """Those of the test's nodes, gone when it ends."""
    proxies: dict[Server, Proxy] = {}
    yield proxies
    for proxy in proxies.values():
        proxy.close()


def report(name: str, failovers: list[Failover]) -> str:
    """A table of them, by kind."""
    replicas = sorted({*REPLICAS})
    head = f"{'':12}silence: median, largest  lost, until" + "".join(f"{f'WAIT {n}':>17}" for n in replicas)
    lines = ["", f"{name}: {len(failovers)} failovers", head]
    for kind in [*dict.fromkeys(f.kind for f in failovers), "all"]:
        some = [f for f in failovers if kind in (f.kind, "all")]
        silences = [f.silence for f in some]
        line = f"{kind:12}{statistics.median(silences):14.2f} s{max(silences):8.2f} s"
        line += f"{max(f.lost_until for f in some):11.2f} s"
        for number in replicas:
            lost, answered = (sum(f.lost[number] for f in some), sum(f.answered[number] for f in some))
            line += f"{f'{lost} of {answered}':>17}"
        lines.append(line)
    return "\n".join(lines)


def record(server: str, form: str, failovers: list[Failover]) -> None:
    """Put them into target/sentinel.json, in the place of those of an earlier run."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(server, {})[form] = [asdict(failover) for failover in failovers]
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "guarded", [True, pytest.param(False, marks=pytest.mark.long)], ids=["guarded", "open"]
)
def test_failovers(new_server, proxies, binary, guarded, capsys):
    """Nothing is lost that both replicas had; what the new primary had goes on.

    Guarded: `min-replicas-to-write 1`, with which a primary that is cut off refuses to pick.
    """
    servers = Apart(new_server, proxies, min_replicas_to_write=int(guarded))
    if not LONG and binary.satisfies("7.0"):
        for sentinel in servers.sentinels:
            for name, value in HURRY.items():
                sentinel.client().execute_command("SENTINEL", "DEBUG", name, value)
    weights = [word for name, weight in WEIGHTS.items() for word in (name, weight)]
    servers.primary().client().execute_command("LB.ADD", "web", *weights)
    own = {servers.address(node): node.port for node in servers.nodes}
    gateways = Gateways([sentinel.port for sentinel in servers.sentinels], own)
    trial = Trial(servers, gateways, guarded)
    failovers = []
    try:
        for kind in plan(binary):
            failovers.append(trial.fail_over(kind))
            assert failovers[-1].lost[NODES - 1] == 0, f"all replicas had it: {failovers[-1]}"
            if kind in LOSSLESS and failovers[-1].switches == 1:
                assert not any(failovers[-1].lost.values()), failovers[-1]
    finally:
        gateways.close()
    assert all(server.alive() for server in [*servers.nodes, *servers.sentinels])
    name = f"{'guarded' if guarded else 'open'}, {'long' if LONG else 'short'}"
    record(binary.name, name, failovers)
    with capsys.disabled():
        print(report(f"{binary.name}, {name}", failovers))


# What an operator does


@pytest.mark.parametrize("block", blocks("python", "sentinel"), ids=str)
@pytest.mark.once("the script is run once, on the installed server")
def test_the_readmes_script_outlives_a_primary(new_server, binary, block, tmp_path):
    """It is written for nodes at ports 7000 to 7002 and sentinels at 7003 to 7005."""
    servers = Sentinels(new_server)
    text = block.text
    for number, server in enumerate([*servers.nodes, *servers.sentinels]):
        text = text.replace(str(7000 + number), str(server.port))
    (tmp_path / "readme.py").write_text(text)
    command = [*BOUND, sys.executable, "-u", "readme.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as script:
        first = script.stdout.readline()
        servers.primary().kill()
        rest = script.stdout.readlines()
    assert first and rest and script.returncode == 0


def test_a_replica_without_the_module(new_server):
    """It confirms a pool that comes as commands, and has none; one that comes in a full copy ends it."""
    primary = new_server()
    bare = new_server(module=None, replicaof=f"{HOST} {primary.port}")
    eventually(lambda: follows(bare.port, primary.port), SECONDS)
    client = primary.client(single_connection_client=True)
    client.execute_command("LB.ADD", "web", "a", 1)
    assert client.execute_command("WAIT", 1, 30_000) == 1
    assert not bare.client().exists("web")
    assert bare.client().info("stats")["unexpected_error_replies"] == 1

    bare.client().replicaof("NO", "ONE")  # it leaves the history of the primary, whose replica it is
    bare.client().replicaof(HOST, primary.port)
    eventually(lambda: not bare.alive(), SECONDS)
    assert "no matching module type 'lbpool---'" in bare.log()


@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_a_primary_that_is_back_before_it_is_missed(new_server, appendonly):
    """It has its pools from its own AOF; without one it has nothing, and its replicas copy that."""
    primary = new_server(appendonly=appendonly, appendfsync="always")
    replica = new_server(replicaof=f"{HOST} {primary.port}", appendonly=appendonly)
    eventually(lambda: follows(replica.port, primary.port), SECONDS)
    client = primary.client(single_connection_client=True)
    client.execute_command("LB.ADD", "web", "a", 1)
    assert client.execute_command("WAIT", 1, 30_000) == 1
    history = replica.client().info("replication")["master_replid"]
    primary.kill()
    primary.start()
    eventually(lambda: replica.client().info("replication")["master_replid"] != history, SECONDS)
    eventually(lambda: follows(replica.port, primary.port), SECONDS)
    assert replica.client().execute_command("LB.LIST", "web") == (["a"] if appendonly == "yes" else [])


@pytest.mark.needs("7.2", "propagation-error-behavior")
def test_a_replica_without_the_module_can_be_told_to_end(new_server, binary):
    primary = new_server()
    # Not by new_server: the report that it leaves is no fault.
    with closing(Server(binary, None, propagation_error_behavior="panic-on-replicas").start()) as bare:
        bare.client().replicaof(HOST, primary.port)
        eventually(lambda: follows(bare.port, primary.port), SECONDS)
        primary.client().execute_command("LB.ADD", "web", "a", 1)
        eventually(lambda: not bare.alive(), SECONDS)
        assert "This replica panicked sending an error" in bare.log()


@pytest.mark.usual_ports
@pytest.mark.timeout(400)
def test_the_script_leaves_nodes_and_sentinels_running(tmp_path):
    folder = tmp_path / "sentinel"
    try:
        script("start", folder)
        ports = [int(home.name) for home in sorted(folder.iterdir())]
        eventually(lambda: subprocess.run(**call("status", folder)).returncode == 0)
        with redis.Redis(HOST, ports[0], decode_responses=True) as client:
            client.execute_command("LB.ADD", "web", "a", 1)
            assert client.execute_command("LB.PICK", "web") == "a"
        script("start", folder, ends_with=1)
        os.kill(process(folder / str(ports[0])), signal.SIGKILL)
        eventually(lambda: primary_of(ports[-1]) != ports[0], SECONDS)
        script("status", folder, ends_with=1)
        with redis.Redis(HOST, primary_of(ports[-1]), decode_responses=True) as client:
            eventually(lambda: picked(client) == "a", SECONDS)
    finally:
        script("stop", folder)
    assert not folder.exists() and all(map(is_free, ports))
    script("stop", folder, ends_with=1)


@pytest.mark.usual_ports
def test_a_start_that_fails_leaves_nothing(tmp_path):
    folder = tmp_path / "sentinel"
    script("start", folder, ends_with=1, REDIS_LB_MODULE="/dev/null")
    assert not folder.exists()

    with subprocess.Popen(**call("start", folder)) as starting:
        eventually(lambda: len(list(folder.glob(f"*/{PIDFILE}"))) > 1, SECONDS)
        numbers = [process(home) for home in folder.iterdir()]
        starting.terminate()
        starting.communicate()
    assert starting.returncode == 1
    assert not folder.exists() and not any(Path(f"/proc/{number}").exists() for number in numbers)


def call(verb: str, folder: Path, **environment: str) -> dict:
    """How scripts/sentinel is called."""
    return {
        "args": [ROOT / "scripts/sentinel", verb, "--folder", folder],
        "env": os.environ | {"REDIS_LB_MODULE": str(module())} | environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


def script(verb: str, folder: Path, ends_with: int = 0, **environment: str) -> None:
    """Run it."""
    done = subprocess.run(**call(verb, folder, **environment), timeout=SECONDS)
    assert done.returncode == ends_with, done.stdout


def picked(client: redis.Redis) -> str | None:
    """A pick, or None while there are too few replicas for one."""
    try:
        return client.execute_command("LB.PICK", "web")
    except redis.ResponseError as refusal:
        assert str(refusal).startswith("NOREPLICAS")
        return None
