"""Picks go on exactly where they were while a Redis Cluster moves slots, changes primaries and loses nodes.

300 pools lie all over the hash slots. Each is picked from by one gateway alone, so that every answer can be
held against the naive form in model.py, and LB.INFO says how many picks were made where an answer was lost.
Half of the gateways use redis-py, half valkey-glide, whose core is written in Rust.
"""

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

import glide_sync as glide
import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from cluster import HOST, PRIMARIES, Cluster, members, slot
from conftest import OPEN, module
from documents import blocks
from model import Model
from server import Server, eventually, waiting
from standing import PIDFILE, ROOT

TENANTS = 20
FAMILIES = [[f"{{tenant-{tenant}}}:{pool}" for pool in "abc"] for tenant in range(TENANTS)]
# What is used together: the pools of a tenant, or one alone.
GROUPS = [*FAMILIES, *([f"pool-{number}"] for number in range(300 - 3 * TENANTS))]
KEYS = [key for group in GROUPS for key in group]
PICKS_A_SECOND = 100.0  # of each gateway
ANSWER_SECONDS = 15.0
GATEWAY_SECONDS = 60.0
ROUNDS = 4
AT_ONCE = 8  # groups whose slots move together
WAIT_MS = 100
SCRIPT = "local told = {} for i, key in ipairs(KEYS) do told[i] = redis.call(ARGV[1], key) end return told"
NEW_NODE = "unknown node"


def weights(key: str) -> dict[bytes, int]:
    """The backends of that pool."""
    chance = random.Random(key)
    return {b"%d.example.com" % number: chance.randint(1, 9) for number in range(chance.randint(2, 6))}


# What runs in the gateways' processes


class Refused(Exception):
    """The server did not do it."""


class Lost(Exception):
    """Nobody knows whether the server did it."""


class RedisPy:
    """redis-py's client of a cluster."""

    def __init__(self, ports: list[int]) -> None:
        nodes = [ClusterNode(HOST, port) for port in ports]
        # A retry after a lost answer would pick twice.
        self._client = RedisCluster(
            startup_nodes=nodes, retry=Retry(NoBackoff(), 0), socket_timeout=ANSWER_SECONDS
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise Lost(repr(error)) from error
        except redis.RedisError as error:
            raise Refused(type(error).__name__) from error
        except AttributeError as error:
            # It knows only nodes that have slots, so it cannot follow ASK to one that is to get its first.
            raise Refused(NEW_NODE) from error

    def ask(self, *command: object) -> object:
        with self._errors():
            return self._client.execute_command(*command)

    def transaction(self, commands: list[tuple]) -> list:
        with self._errors(), self._client.pipeline(transaction=True) as unit:
            for command in commands:
                unit.execute_command(*command)
            return unit.execute()

    def replicas(self, key: str) -> int:
        with self._errors():
            # The connection that has picked: there is one for each node as long as there is one thread.
            return self._client.execute_command(
                "WAIT", 1, WAIT_MS, target_nodes=self._client.get_node_from_key(key)
            )


class Glide:
    """valkey-glide's client of a cluster. It never sends a command again whose answer was lost."""

    def __init__(self, ports: list[int]) -> None:
        glide.Logger.set_logger_config(glide.LogLevel.OFF)
        nodes = [glide.NodeAddress(HOST, port) for port in ports]
        self._client = glide.GlideClusterClient.create(
            glide.GlideClusterClientConfiguration(nodes, request_timeout=int(1000 * ANSWER_SECONDS))
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (glide.ConnectionError, glide.TimeoutError, glide.ClosingError) as error:
            raise Lost(repr(error)) from error
        except glide.RequestError as error:
            raise Refused(str(error)) from error

    def ask(self, *command: object) -> object:
        with self._errors():
            return self._client.custom_command([*map(str, command)])

    def transaction(self, commands: list[tuple]) -> list:
        batch = glide.ClusterBatch(is_atomic=True)
        for command in commands:
            batch.custom_command([*map(str, command)])
        with self._errors():
            return self._client.exec(batch, raise_on_error=True)

    def replicas(self, key: str) -> int:
        route = glide.SlotKeyRoute(glide.SlotType.PRIMARY, key)
        with self._errors():
            return self._client.custom_command(["WAIT", "1", str(WAIT_MS)], route)


CLIENTS = {"redis-py": RedisPy, "valkey-glide": Glide}


@dataclass
class Tally:
    """What a gateway has seen in one phase of the test."""

    picks: int = 0
    refused: Counter = field(default_factory=Counter)  # by how it was asked, and the error
    lost: int = 0  # answers, or connections
    skipped: int = 0  # picks that were made though their answer was lost
    repeated: Counter = field(default_factory=Counter)  # by pool: answered picks that a failover undid
    confirmed: int = 0  # picks that a replica had got when they were answered
    outage: float = 0.0  # the longest time until an attempt on some pool succeeded, in seconds

    def add(self, other: "Tally") -> None:
        for each in fields(self):
            ours, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, max(ours, theirs) if each.type is float else ours + theirs)

    def __str__(self) -> str:
        repeated, refused = self.repeated.total(), dict(self.refused)
        return (
            f"picks {self.picks}, lost {self.lost}, skipped {self.skipped}, repeated {repeated}, "
            f"confirmed {self.confirmed}, longest outage {self.outage:.2f} s, refused {refused or 0}"
        )


class Sequence:
    """A pool as the one gateway knows it that picks from it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.made = 0  # picks
        self.confirmed = 0  # picks that a replica had
        self._model = Model()
        self._names: list[bytes] = []
        for name, weight in weights(key).items():
            self._model.run([b"LB.ADD", b"pool", name, b"%d" % weight])

    def pick(self, number: int) -> bytes:
        """What that pick has to answer, counted from 0."""
        while len(self._names) <= number:
            self._names.append(self._model.run([b"LB.PICK", b"pool"]))
        return self._names[number]


class Group:
    """Pools that are picked from together."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.sequences = [Sequence(key) for key in keys]
        # How many picks may have been made without an answer; None: where the pools are is known.
        self.open: int | None = None
        self._ways = itertools.cycle(["transaction", "script"] if len(keys) > 1 else ["pick"])

    def way(self) -> str:
        return next(self._ways)


class Gateway:
    """Picks from its groups in turn, and checks all that is answered.

    In a strict phase every answer has to be the next one of its pool. In a careful phase, in which a primary
    may be lost, a pool may go back to what its replica had; LB.INFO after each pick says where it is.
    """

    def __init__(self, client: RedisPy | Glide, groups: list[list[str]], waits: bool) -> None:
        self._client = client
        self._waits = waits  # in careful phases, by WAIT 1 for the replica
        self._groups = [Group(keys) for keys in groups]
        self._turns = itertools.cycle(self._groups)
        self._failing: dict[Group, float] = {}  # since when
        self._strict = True
        self.tally = Tally()

    def turn(self) -> None:
        """One pick, or an attempt. Of the groups that fail only the first is tried, until it succeeds."""
        group = next(self._turns)
        if group in self._failing:
            group = next(iter(self._failing))
        started = time.monotonic()
        way = group.way()
        try:
            if group.open is not None:
                self._settle(group)
            group.open = 0
            answers = self._pick(group, way)
            since = self._failing.get(group, started)
            self.tally.outage = max(self.tally.outage, time.monotonic() - since)
            if group in self._failing:
                self._failing.clear()
            self._check(group, answers)
            if not self._strict:
                self._confirm(group)
        except Lost:
            self.tally.lost += 1
            self._failing.setdefault(group, started)
        except Refused as error:
            self.tally.refused[f"{way}: {error}"] += 1
            self._failing.setdefault(group, started)

    def _pick(self, group: Group, way: str) -> list[bytes]:
        try:
            if way == "transaction":
                answers = self._client.transaction([("LB.PICK", key) for key in group.keys])
            elif way == "script":
                answers = self._client.ask("EVAL", SCRIPT, len(group.keys), *group.keys, "LB.PICK")
            else:
                answers = [self._client.ask("LB.PICK", *group.keys)]
        except Lost:
            group.open = 1
            raise
        group.open = None
        self.tally.picks += len(answers)
        return answers

    def _check(self, group: Group, answers: list[bytes]) -> None:
        expected = [each.pick(each.made) for each in group.sequences]
        if answers == expected:
            for each in group.sequences:
                each.made += 1
            return
        assert not self._strict, f"{group.keys} answer {answers} instead of {expected}"
        # A failover in between: these picks had been answered before. One more, should _settle fail now.
        group.open = 1
        before = [each.made for each in group.sequences]
        self._settle(group)
        for each, answer, was in zip(group.sequences, answers, before, strict=True):
            assert each.made <= was and each.pick(each.made - 1) == answer, (
                f"{each.key}: after {was} picks came {answer}; now {each.made} were made"
            )
            self.tally.repeated[each.key] += 1

    def _confirm(self, group: Group) -> None:
        """Find out whether a failover would keep that pick."""
        replicas = self._client.replicas(group.keys[0]) if self._waits else 0
        before = [each.made for each in group.sequences]
        group.open = 0
        self._settle(group)
        if replicas and before == [each.made for each in group.sequences]:
            self.tally.confirmed += len(group.keys)
            for each in group.sequences:
                each.confirmed = each.made

    def _settle(self, group: Group) -> None:
        """Ask how many picks were made. Of pools that are used together, all or none was."""
        told = self._client.ask("EVAL", SCRIPT, len(group.keys), *group.keys, "LB.INFO")
        assert len(told) == len(group.keys) and None not in told, f"of {group.keys} there are {told}"
        more = [
            info[info.index(b"picks") + 1] - each.made
            for info, each in zip(told, group.sequences, strict=True)
        ]
        assert len(set(more)) == 1, f"{group.keys} were picked from together, but made {more} picks more"
        assert more[0] <= group.open, f"{group.keys} made {more[0]} picks that nobody asked for"
        assert more[0] >= 0 or not self._strict, f"{group.keys} forgot {-more[0]} picks"
        for each in group.sequences:
            each.made += more[0]
            assert each.made >= each.confirmed, f"{each.key} forgot picks that a replica had confirmed"
            self.tally.skipped += max(0, more[0])
            self.tally.repeated += Counter({each.key: -min(0, more[0])})
        group.open = None

    def begin(self, phase: str) -> Tally:
        """Make sure of every pool, and begin another phase; what was seen in the one that ends."""
        for group in self._groups:
            group.open = group.open or 0
            for _ in waiting(ANSWER_SECONDS, pause=0.1):
                try:
                    self._settle(group)
                    break
                except (Lost, Refused):
                    pass
            assert group.open is None, f"{group.keys} do not answer"
        self._failing.clear()
        tally, self.tally = self.tally, Tally()
        self._strict = phase == "strict"
        return tally


def run(pipe, client: str, ports: list[int], groups: list[list[str]], waits: bool) -> None:
    """A gateway's process: it picks until the test says stop, or is gone."""
    try:
        gateway = Gateway(CLIENTS[client](ports), groups, waits)
        next_turn = time.monotonic()
        while True:
            if pipe.poll(max(0.0, next_turn - time.monotonic())):
                phase = pipe.recv()
                pipe.send(gateway.begin(phase))
                if phase == "stop":
                    return
            else:
                next_turn = max(next_turn + 1 / PICKS_A_SECOND, time.monotonic())
                gateway.turn()
    except EOFError:
        pass
    except BaseException:
        pipe.send(traceback.format_exc())


# What runs in the test


class Gateways:
    """The processes: of each client two, of which the second one waits for the replica in careful phases."""

    def __init__(self, ports: list[int]) -> None:
        context = multiprocessing.get_context("spawn")
        kinds = [(client, waits) for waits in (False, True) for client in CLIENTS]
        self.groups: dict[str, list[list[str]]] = {client: [] for client in CLIENTS}
        self.total = {client: Tally() for client in CLIENTS}
        self._processes = []
        self._pipes = []
        for number, (client, waits) in enumerate(kinds):
            groups = GROUPS[number :: len(kinds)]
            self.groups[client] += groups
            ours, theirs = context.Pipe()
            process = context.Process(target=run, args=(theirs, client, ports, groups, waits), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append((client, ours))

    def begin(self, phase: str) -> dict[str, Tally]:
        """Begin a phase in all of them; what they have seen in the one that ends, by client."""
        for _, pipe in self._pipes:
            pipe.send(phase)
        tallies = {client: Tally() for client in CLIENTS}
        for client, pipe in self._pipes:
            assert pipe.poll(GATEWAY_SECONDS), f"a gateway with {client} does not answer"
            told = pipe.recv()
            assert isinstance(told, Tally), f"a gateway with {client} says:\n{told}"
            tallies[client].add(told)
        for client, tally in tallies.items():
            self.total[client].add(tally)
        return tallies

    def check(self) -> None:
        """None of them has found anything wrong so far: else it would have spoken unasked."""
        for client, pipe in self._pipes:
            assert not pipe.poll(), f"a gateway with {client} says:\n{pipe.recv()}"

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def errors(*nodes: Server) -> Counter:
    """The errors that these nodes have answered since they run, by their first word."""
    counts = Counter()
    for node in nodes:
        for name, told in node.client().info("errorstats").items():
            counts[name.removeprefix("errorstat_")] += told["count"]
    return counts


def picks(node: Server) -> int:
    """How many commands that pick this node has run since it runs."""
    return node.client().info("commandstats").get("cmdstat_LB.PICK", {}).get("calls", 0)


def groups_of(node: Server, groups: list[list[str]]) -> list[list[str]]:
    """Those of the groups that this node has."""
    (mine,) = [member for member in members(node.client()) if member.port == node.port]
    return [keys for keys in groups if any(first <= slot(keys[0]) <= last for first, last in mine.slots)]


def fill(cluster: Cluster) -> None:
    """Make all the pools, and nothing else."""
    for primary in cluster.primaries():
        primary.client().flushall()
    with RedisCluster(host=HOST, port=cluster.nodes[0].port) as client:
        for key in KEYS:
            client.execute_command("LB.SET", key, *(word for pair in weights(key).items() for word in pair))


class Operator:
    """Who changes a cluster while gateways pick from it, and sees what comes of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.redirections = Counter()
        self.asks = dict.fromkeys(CLIENTS, 0)
        self._random = random.Random(len(KEYS))
        fill(cluster)
        self.gateways = Gateways(cluster.ports())

    def wait(self, holds: Callable[[], bool]) -> None:
        """Wait until that holds, unless a gateway complains."""

        def well() -> bool:
            self.gateways.check()
            return holds()

        eventually(well)

    def picks_go_on(self, *nodes: Server) -> None:
        """Wait until each of these nodes has run some more picks."""
        goals = {node: picks(node) + 50 for node in nodes}
        self.wait(lambda: all(picks(node) >= goal for node, goal in goals.items()))

    @contextmanager
    def strictly(self, what: str) -> Iterator[None]:
        """Within the block no answer may be lost, and each has to be the next one of its pool."""
        self.gateways.begin("strict")
        before, started = errors(*self.cluster.alive()), time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.cluster.wait_until_up()
        seen = errors(*self.cluster.alive()) - before
        seen = Counter({kind: seen[kind] for kind in ("MOVED", "ASK", "TRYAGAIN")})
        self.redirections += seen
        print(f"{what}, {seconds:.1f} s: {dict(seen)}")
        for client, tally in self.gateways.begin("strict").items():
            print(f"    {client}: {tally}")
            assert tally.picks > 0
            assert (tally.skipped, tally.repeated) == (0, {})
            # A node that has left closes its connections, whoever is just asking.
            assert tally.lost == 0 or "leaves" in what
            # Under way to another node, pools may not be used together; but each can be picked from.
            for refusal in tally.refused:
                assert not refusal.startswith("pick: ") or refusal.endswith(NEW_NODE), refusal

    @contextmanager
    def carefully(self, what: str, victim: Server) -> Iterator[Tally]:
        """Within the block that primary is lost, and its replica may not have all that was answered."""
        theirs = {key for keys in groups_of(victim, GROUPS) for key in keys}
        self.gateways.begin("careful")
        self.picks_go_on(*self.cluster.primaries())
        total = Tally()
        yield total
        self.cluster.wait_until_up()
        self.picks_go_on(*self.cluster.primaries())
        print(f"{what}:")
        for client, tally in self.gateways.begin("strict").items():
            print(f"    {client}: {tally}")
            assert tally.confirmed > 0
            assert set(tally.repeated) <= theirs, "pools that were elsewhere went back"
            total.add(tally)

    # Changes that lose nothing

    def move(self, client: str, source: Server, target: Server) -> None:
        """Move slots of this client's pools, and wait until it was redirected by ASK once for each."""
        groups = groups_of(source, self.gateways.groups[client])[:AT_ONCE]
        numbers = sorted({slot(keys[0]) for keys in groups})
        before = errors(source)["ASK"]
        with self.cluster.moving(numbers, source, target):
            self.wait(lambda: errors(source)["ASK"] >= before + len(numbers))
        self.asks[client] += errors(source)["ASK"] - before

    def split(self, client: str) -> None:
        """Move pools of a tenant one by one: in between, what uses them together has to try again."""
        keys = self._random.choice([keys for keys in self.gateways.groups[client] if len(keys) > 1])
        source = self.cluster.owner(slot(keys[0]))
        target = self._random.choice([node for node in self.cluster.primaries() if node is not source])
        self.cluster.begin_move(slot(keys[0]), source, target)
        self.cluster.carry(keys[:1], source, target)
        before = errors(source, target)["TRYAGAIN"]
        self.wait(lambda: errors(source, target)["TRYAGAIN"] > before)
        self.cluster.carry(keys[1:], source, target)
        self.cluster.end_move(slot(keys[0]), target)
        self.picks_go_on(target)

    def move_atomically(self, source: Server, target: Server) -> None:
        """Move slots of all clients' pools there and back, each time as one."""
        numbers = sorted({slot(keys[0]) for keys in groups_of(source, GROUPS)})
        for here, there in [(source, target), (target, source)]:
            self.cluster.move_atomically(numbers, here, there)
            self.picks_go_on(there)

    def fail_over(self, primary: Server) -> None:
        """The replica takes over as planned, and gives back."""
        heir = self.cluster.fail_over(primary)
        self.picks_go_on(heir)
        # Redis 6.2 holds back what comes to the old primary for some seconds, and is not to be hurried.
        if primary.binary.satisfies("7.0"):
            self.cluster.fail_over(heir)
            self.picks_go_on(primary)

    def join(self, weight: float) -> Server:
        """A fourth primary joins, gets slots by this weight beside the others' 1, and gives them back."""
        node = self.cluster.add()
        for client, source in zip(CLIENTS, self.cluster.primaries(), strict=False):
            self.move(client, source, node)
        self.cluster.rebalance(node, weight)
        assert groups_of(node, GROUPS)
        self.picks_go_on(node)
        self.cluster.drain(node)
        return node

    def leave(self, node: Server) -> None:
        """It leaves. Every gateway has asked for each pool since it was drained, so none looks for it."""
        self.cluster.drop(node)
        self.picks_go_on(*self.cluster.primaries())

    def restart_replicas(self) -> None:
        """They forget what they have heard of slots that were on their way."""
        for primary in self.cluster.primaries():
            self.cluster.replica(primary).restart()
            self.cluster.wait_until_up()

    # Losses

    def kill(self, victim: Server) -> None:
        """A primary dies under load, and comes back as the replica of its replica."""
        heir = self.cluster.replica(victim)
        victim.kill()
        self.picks_go_on(*(node for node in self.cluster.primaries() if node is not victim))
        self.taken_over_by(heir)
        victim.start()

    def restart(self, victim: Server) -> None:
        """A primary dies, and is back before it is replaced, however long the machine takes for that."""
        heir = self.cluster.replica(victim).client()
        heir.config_set("cluster-replica-no-failover", "yes")
        victim.kill()
        victim.start()
        # With this setting the replica is not as it should be, so the cluster is not up.
        eventually(lambda: victim.port in {member.port for member in members(heir) if not member.is_missed})
        heir.config_set("cluster-replica-no-failover", "no")
        assert victim.client().role()[0] == "master"

    def kill_unreplicated(self, victim: Server) -> int:
        """The same when its replica has been out of touch; how many picks that replica lacks at most."""
        heir = self.cluster.replica(victim)
        heir.pause()
        before = picks(victim)
        victim.client().client_kill_filter(_type="replica")
        self.wait(lambda: picks(victim) >= before + 50)
        # Nothing is answered any more, so that the count is exact.
        victim.client().execute_command("CLIENT PAUSE 10000 WRITE")
        lacking = picks(victim) - before
        victim.kill()
        heir.go_on()
        self.taken_over_by(heir)
        victim.start()
        return lacking

    def hang(self, victim: Server) -> None:
        """A primary stands still until it is replaced, and goes on as if nothing had been."""
        heir = self.cluster.replica(victim)
        victim.pause()
        self.taken_over_by(heir)
        victim.go_on()

    def taken_over_by(self, heir: Server) -> None:
        self.wait(lambda: heir.client().role()[0] == "master")
        self.picks_go_on(heir)

    def end(self) -> None:
        """Every pool is there, made just the picks that its gateway knows of, and its replica is alike."""
        self.gateways.begin("stop")
        keys = []
        for primary in self.cluster.primaries():
            client, replica = primary.client(), self.cluster.replica(primary).client()
            eventually(lambda pair=(client, replica): len({offset(each) for each in pair}) == 1)
            mine = client.keys()
            keys += mine
            digests = [each.execute_command("DEBUG", "DIGEST-VALUE", *mine) for each in (client, replica)]
            assert digests[0] == digests[1]
        assert sorted(keys) == sorted(KEYS)
        print(f"in all: {dict(self.redirections)}, ASK by client: {self.asks}")
        for client, tally in self.gateways.total.items():
            print(f"    {client}: {tally}")


def offset(client: redis.Redis) -> int:
    """How far replication has come there."""
    return client.info("replication")["master_repl_offset"]


@pytest.fixture(scope="module")
def cluster(binary):
    servers: list[Server] = []

    def start(**options) -> Server:
        server = Server(binary, **({"module": module()} | options))
        servers.append(server)
        OPEN.append(server)
        return server.start()

    try:
        yield Cluster(start)
        assert not [f"{server} crashed:\n{server.log_tail()}" for server in servers if server.crashed()]
    finally:
        for server in servers:
            OPEN.remove(server)
            server.close()


@pytest.fixture
def operator(cluster):
    operator = Operator(cluster)
    yield operator
    operator.gateways.close()


# While nothing happens


def test_clients_find_the_node_of_every_key(cluster):
    """No command is redirected: both clients know which argument is the key."""
    fill(cluster)
    before = errors(*cluster.nodes)["MOVED"]
    for client in (kind(cluster.ports()) for kind in CLIENTS.values()):
        for key in KEYS:
            name = next(iter(weights(key)))
            client.ask("LB.ADD", key, name)
            client.ask("LB.PICK", key, "rr", "COUNT", 2)
            client.ask("LB.PEEK", key, "EXCLUDE", 1, name)
            client.ask("LB.STATS", key)
        for keys in FAMILIES:
            client.ask("EVAL", SCRIPT, len(keys), *keys, "LB.PICK")
            client.transaction([("LB.PICK", key) for key in keys])
    assert errors(*cluster.nodes)["MOVED"] == before


def test_the_first_argument_of_every_command_is_its_key(cluster):
    client = cluster.nodes[0].client()
    commands = [command for name, command in client.command().items() if name.lower().startswith("lb.")]
    assert len(commands) >= 14
    for command in commands:
        assert [command[each] for each in ("first_key_pos", "last_key_pos", "step_count")] == [1, 1, 1]
        assert "movablekeys" not in command["flags"]
        rest = ["b"] * (abs(command["arity"]) - 2)
        assert client.execute_command("COMMAND GETKEYS", command["name"], "pool", *rest) == ["pool"]


def test_a_replica_reads_and_sends_picks_to_its_primary(cluster):
    fill(cluster)
    (key, *_) = KEYS
    primary = cluster.owner(slot(key))
    backend = next(iter(weights(key))).decode()
    reads = [("LB.PEEK", key, "COUNT", 10), ("LB.STATS", key), ("LB.STATS", key, backend), ("LB.INFO", key)]
    reads += [("LB.LIST", key), ("LB.CARD", key)]
    writes = [("LB.PICK", key), ("LB.ADD", key, "b"), ("LB.WEIGHT", key, backend), ("LB.POLICY", key)]
    client, replica = primary.client(), cluster.replica(primary).client(single_connection_client=True)
    client.execute_command("LB.PICK", key, "COUNT", 5)
    eventually(lambda: offset(client) == offset(replica))

    def moved(command: tuple) -> bool:
        with pytest.raises(redis.exceptions.MovedError) as error:
            replica.execute_command(*command)
        return (error.value.slot_id, error.value.port) == (slot(key), primary.port)

    assert all(map(moved, reads + writes))
    replica.execute_command("READONLY")
    assert all(map(moved, writes))
    for command in reads:
        assert replica.execute_command(*command) == client.execute_command(*command)


def test_pools_without_a_common_tag_are_not_used_together(cluster):
    client = cluster.owner(slot("a")).client()
    with pytest.raises(redis.ResponseError, match="CROSSSLOT|Keys in request don't hash to the same slot"):
        client.eval(SCRIPT, 2, "a", "b", "LB.PICK")


def test_a_node_without_the_module_gets_no_pool(cluster, binary):
    """A pool that cannot move stays, and goes on."""
    fill(cluster)
    (key, *_) = KEYS
    primary = cluster.owner(slot(key))
    client = primary.client()
    goes_on = client.execute_command("LB.PEEK", key, "COUNT", 4)
    bare = cluster.add(module=None, cluster_allow_replica_migration="no")
    cluster.begin_move(slot(key), primary, bare)
    assert client.execute_command("LB.PICK", key) == goes_on[0]
    with pytest.raises(redis.ResponseError, match="Bad data format"):
        cluster.carry([key], primary, bare)
    assert client.execute_command("LB.PICK", key) == goes_on[1]
    for node in (primary, bare):
        node.client().execute_command("CLUSTER SETSLOT", slot(key), "STABLE")
    if binary.satisfies("valkey 9.0"):
        with pytest.raises(RuntimeError, match="failed"):
            cluster.move_atomically([slot(key)], primary, bare)
    assert client.execute_command("LB.PICK", key, "COUNT", 2) == goes_on[2:]
    assert bare.client().dbsize() == 0

    # An empty slot does move there, and stays empty of pools.
    with cluster.moving([slot("new")], cluster.owner(slot("new")), bare):
        pass
    with pytest.raises(redis.ResponseError, match="unknown command"):
        bare.client().execute_command("LB.ADD", "new", "b")
    cluster.drain(bare)
    cluster.drop(bare)


def test_a_replica_without_the_module_ends_itself(cluster, new_server):
    fill(cluster)
    bare = new_server(module=None)
    bare.client().replicaof(HOST, cluster.primaries()[0].port)
    eventually(lambda: not bare.alive())
    assert "no matching module type" in bare.log()


@pytest.mark.parametrize("block", blocks("python", "cluster"), ids=str)
def test_the_readmes_scripts_run(cluster, block, tmp_path):
    """Twice; they are written for a cluster whose first node is at port 7000."""
    text = block.text
    for number, node in enumerate(cluster.nodes):
        text = text.replace(str(7000 + number), str(node.port))
    (tmp_path / "readme.py").write_text(text)
    for _ in range(2):
        done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.usual_ports
def test_the_script_leaves_a_cluster_running(tmp_path):
    folder = tmp_path / "cluster"
    try:
        script("start", folder)
        homes = sorted(folder.iterdir())
        assert len(running(folder)) == len(homes)
        script("status", folder)
        with RedisCluster(host=HOST, port=int(homes[0].name), decode_responses=True) as client:
            client.execute_command("LB.ADD", "web", "a", 1)
            assert client.execute_command("LB.PICK", "web") == "a"
        script("start", folder, ends_with=1)
        os.kill(int((homes[0] / PIDFILE).read_text()), signal.SIGKILL)
        eventually(lambda: len(running(folder)) == len(homes) - 1)
        script("status", folder, ends_with=1)
    finally:
        script("stop", folder)
    assert not running(folder)
    assert not folder.exists()
    script("stop", folder, ends_with=1)


@pytest.mark.usual_ports
def test_a_start_that_fails_leaves_nothing(tmp_path):
    folder = tmp_path / "cluster"
    script("start", folder, ends_with=1, REDIS_LB_MODULE="/dev/null")
    assert not folder.exists() and not running(tmp_path)

    # All nodes run when this is called.
    (tmp_path / "redis-cli").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "redis-cli").chmod(0o755)
    script("start", folder, ends_with=1, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert not folder.exists() and not running(tmp_path)


def script(verb: str, folder: Path, ends_with: int = 0, **environment: str) -> None:
    """Run scripts/cluster."""
    done = subprocess.run(
        [ROOT / "scripts/cluster", verb, "--folder", folder],
        env=os.environ | {"REDIS_LB_MODULE": str(module())} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert done.returncode == ends_with, done.stdout


def running(folder: Path) -> list[str]:
    """The processes whose working directory is in that folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # Processes come and go, and those of others are not ours to see.
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(process.name)
    return found


# While it changes


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_no_pick_is_wrong_while_the_cluster_changes(operator, binary):
    a, b, c = operator.cluster.primaries()
    with operator.strictly("slots move"):
        for client, (source, target) in zip(CLIENTS, [(a, b), (b, c)], strict=True):
            operator.move(client, source, target)
            operator.move(client, target, source)
    with operator.strictly("a replica takes over as planned"):
        operator.fail_over(c)
    with operator.strictly("slots move pool by pool"):
        for client in CLIENTS:
            operator.split(client)
    nodes_come_and_go(operator, 0.05)
    if binary.satisfies("valkey 9.0"):
        with operator.strictly("slots move as one"):
            operator.move_atomically(a, b)
    it_dies_and_is_back(operator, b)
    it_dies(operator, a)
    it_dies_unreplicated(operator, b)
    operator.end()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_pick_is_wrong_for_long(operator, binary):
    cluster = operator.cluster
    for turn in range(ROUNDS):
        primaries = cluster.primaries()
        pairs = [*itertools.permutations(primaries, 2)]
        for client in CLIENTS:
            with operator.strictly(f"slots of {client} move"):
                for pair in pairs:
                    operator.move(client, *pair)
            with operator.strictly(f"slots of {client} move pool by pool"):
                for _ in pairs:
                    operator.split(client)
        if binary.satisfies("valkey 9.0"):
            with operator.strictly("slots move as one"):
                for pair in pairs:
                    operator.move_atomically(*pair)
        with operator.strictly("replicas take over as planned"):
            for primary in primaries:
                operator.fail_over(primary)
        nodes_come_and_go(operator, 1)
        for victim in cluster.primaries():
            it_dies_and_is_back(operator, victim)
            it_dies(operator, victim)
        it_dies_unreplicated(operator, cluster.primaries()[turn % PRIMARIES])
        victim = cluster.primaries()[turn % PRIMARIES]
        with operator.carefully("a primary hangs", victim):
            operator.hang(victim)
    operator.end()


def nodes_come_and_go(operator, weight: float) -> None:
    with operator.strictly("a primary joins and is drained"):
        joined = operator.join(weight)
    with operator.strictly("it leaves"):
        operator.leave(joined)
    if operator.cluster.gives_slots_back():
        operator.restart_replicas()


def it_dies_and_is_back(operator, victim: Server) -> None:
    with operator.carefully("a primary dies and is back at once", victim) as seen:
        operator.restart(victim)
    assert not seen.repeated


def it_dies(operator, victim: Server) -> None:
    with operator.carefully("a primary dies", victim) as seen:
        operator.kill(victim)
    assert_little_is_repeated(seen)


def it_dies_unreplicated(operator, victim: Server) -> None:
    with operator.carefully("a primary dies unreplicated", victim) as seen:
        lacking = operator.kill_unreplicated(victim)
    assert 0 < seen.repeated.total() <= lacking


def assert_little_is_repeated(seen: Tally) -> None:
    """At most one answer to each gateway was not replicated.

    A server sends answers and the stream in one go, what is sent arrives though the sender dies, and no
    gateway asks again before it has its answer.
    """
    assert seen.repeated.total() <= 2 * len(CLIENTS) * max(map(len, GROUPS))
