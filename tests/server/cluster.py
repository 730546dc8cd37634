"""A Redis Cluster on loopback: three primaries, a replica of each, and what operators do with them.

`Cluster` is for tests. As a program it is what scripts/cluster runs.
"""

import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import redis
from redis.crc import key_slot

from server import Server, eventually
from standing import HOST, PIDFILE, Script
from wire import Refused

SLOTS = 16384
PRIMARIES = 3
NODES = 2 * PRIMARIES
BUS = 10000  # how far above its port a node talks to the others
SECONDS = 60.0
OPTIONS = {
    "cluster_enabled": "yes",
    # A primary that comes back from a crash with nothing, before it was replaced, empties its replicas.
    "appendonly": "yes",
    # Every write is in the file when its reply comes, and outlives the process. With `everysec` it may be
    # two seconds late while the disk is busy, so that a primary comes back without what it had answered.
    "appendfsync": "no",
    # How long a node is not heard of before the others elect its replica. The servers' own default is 15000.
    "cluster_node_timeout": 3000,
    # While a shard has no primary its pools are refused, and only they.
    "cluster_require_full_coverage": "no",
}


@dataclass(frozen=True)
class Member:
    """A node as one of the others sees it."""

    port: int
    id: str
    roles: frozenset[str]
    primary: str  # the id of the one that it replicates, or "-"
    slots: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """How many slots it has."""
        return sum(last - first + 1 for first, last in self.slots)

    @property
    def is_missed(self) -> bool:
        """Whether that other one does not hear of it, or believes those that do not."""
        return not self.roles.isdisjoint({"fail", "fail?"})

    def told(self, ports: dict[str, int]) -> str:
        """What it does, in words; `ports` are the nodes' by their id."""
        slots = ", ".join(f"{first}-{last}" for first, last in self.slots) or "none"
        role = f"replica of {ports.get(self.primary)}" if "slave" in self.roles else f"primary, slots {slots}"
        return role + (", failed" if "fail" in self.roles else "")


def members(client: redis.Redis) -> list[Member]:
    """The cluster as the node behind that client sees it, by port."""
    found = []
    for address, told in client.cluster("nodes").items():
        slots = tuple((int(bounds[0]), int(bounds[-1])) for bounds in told["slots"])
        roles = frozenset(told["flags"].split(",")) - {"myself"}
        found.append(
            Member(
                int(address.rpartition(":")[2]),
                told["node_id"],
                roles,
                told["master_id"],
                tuple(sorted(slots)),
            )
        )
    return sorted(found, key=lambda member: member.port)


def slot(key: str) -> int:
    """The hash slot of a key."""
    return key_slot(key.encode())


class Cluster:
    """Nodes that serve the 16384 hash slots together.

    `start(**options)` starts a server with these lines of redis.conf.
    """

    def __init__(self, start: Callable[..., Server]) -> None:
        self._start = start
        self.nodes = [start(**OPTIONS) for _ in range(NODES)]
        self.manage("create", *map(address, self.nodes), "--cluster-replicas", "1")
        eventually(lambda: len(self.primaries()) == PRIMARIES, SECONDS)
        self.wait_until_up()

    def manage(self, *arguments: str) -> str:
        """`redis-cli --cluster`, as operators use it; what it printed."""
        # It refuses nodes that do not agree, as for a moment after a slot was moved.
        if arguments[0] != "create":
            self.wait_until_up()
        command = ["redis-cli", "--cluster", *arguments, "--cluster-yes"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ends with {done.returncode}:\n{done.stdout}")
        return done.stdout

    # What it is

    def alive(self) -> list[Server]:
        """The nodes whose process runs."""
        return [node for node in self.nodes if node.alive()]

    def ports(self) -> list[int]:
        """Where the nodes listen."""
        return [node.port for node in self.nodes]

    def primaries(self) -> list[Server]:
        """Those that are primaries in their own eyes."""
        return [node for node in self.alive() if node.client().role()[0] == "master"]

    def replica(self, primary: Server) -> Server:
        """The running replica of that node."""
        for node in self.alive():
            role, *rest = node.client().role()
            if role == "slave" and rest[1] == primary.port:
                return node
        raise LookupError(f"{primary} has no replica")

    def id(self, node: Server) -> str:
        """A node's name within the cluster."""
        return node.client().execute_command("CLUSTER MYID")

    def owner(self, number: int) -> Server:
        """The primary that has this slot, as the first running node sees it."""
        for member in members(self.alive()[0].client()):
            if any(first <= number <= last for first, last in member.slots):
                return next(node for node in self.nodes if node.port == member.port)
        raise LookupError(f"nobody has slot {number}")

    def up(self) -> bool:
        """Whether all slots are served, and all running nodes see the same and replicate what they should."""
        pictures = set()
        for node in self.alive():
            client = node.client()
            if client.cluster("info")["cluster_state"] != "ok":
                return False
            if client.info("replication").get("master_link_status", "up") != "up":
                return False
            pictures.add(tuple(members(client)))
        (picture, *others) = pictures
        running = {node.port for node in self.alive()}
        good = {frozenset({"master"}), frozenset({"slave"})}
        return (
            not others
            and sum(member.count for member in picture) == SLOTS
            and all(member.roles in good for member in picture if member.port in running)
        )

    def gives_slots_back(self) -> bool:
        """Whether a replica that once heard its primary not claim a slot may lose it with its keys.

        Redis 7.0.13 to 7.2.1 keep that mark in memory, whatever comes later. When the replica has taken over
        and the old primary is back, it believes that one's old claim, and nobody has the slot
        (https://github.com/redis/redis/pull/12564).
        """
        binary = self.nodes[0].binary
        return binary.kind == "redis" and (7, 0, 13) <= binary.version < (7, 2, 2)

    def wait_until_up(self) -> None:
        """Wait until it is up; fail with what each running node sees when it is not by then."""
        try:
            eventually(self.up, SECONDS)
        except AssertionError as error:
            for node in self.alive():
                client = node.client()
                link = client.info("replication").get("master_link_status")
                seen = client.execute_command("CLUSTER INFO"), client.execute_command("CLUSTER NODES")
                error.add_note(f"{node}, link {link}:\n{seen}")
            raise

    # What is done with it

    def begin_move(self, number: int, source: Server, target: Server) -> None:
        """From now on `source` answers ASK for keys of this slot that it lacks, and `target` serves them."""
        target.client().execute_command("CLUSTER SETSLOT", number, "IMPORTING", self.id(source))
        source.client().execute_command("CLUSTER SETSLOT", number, "MIGRATING", self.id(target))

    def carry(self, keys: Iterable[str], source: Server, target: Server) -> None:
        """Move these keys of such a slot."""
        source.client().migrate(HOST, target.port, list(keys), 0, 10_000)

    def end_move(self, number: int, target: Server) -> None:
        """The slot is now the target's: the target has to know it first."""
        for node in sorted(self.primaries(), key=lambda node: node is not target):
            node.client().execute_command("CLUSTER SETSLOT", number, "NODE", self.id(target))

    @contextmanager
    def moving(self, numbers: list[int], source: Server, target: Server) -> Iterator[None]:
        """Move slots key by key. Within the block the keys are moved, the slots are still the source's."""
        for number in numbers:
            self.begin_move(number, source, target)
            while keys := source.client().execute_command("CLUSTER GETKEYSINSLOT", number, 100):
                self.carry(keys, source, target)
        yield
        for number in numbers:
            self.end_move(number, target)

    def move_atomically(self, numbers: list[int], source: Server, target: Server) -> None:
        """Move slots whole, as Valkey 9 can, and wait until they are moved."""
        client = source.client()
        ranges = [bound for number in numbers for bound in (number, number)]
        client.execute_command("CLUSTER MIGRATESLOTS SLOTSRANGE", *ranges, "NODE", self.id(target))
        eventually(lambda: self.last_move(source)["state"] in {"success", "failed", "canceled"}, SECONDS)
        job = self.last_move(source)
        if job["state"] != "success":
            raise RuntimeError(f"the slots were not moved: {job}")

    def last_move(self, node: Server) -> dict[str, str]:
        """What that node tells of the last atomic migration that it took part in."""
        told = node.client().execute_command("CLUSTER GETSLOTMIGRATIONS")[0]
        return told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))

    def fail_over(self, primary: Server) -> Server:
        """Let the replica take over while both run, as before maintenance; the new primary."""
        replica = self.replica(primary)

        def asked_again() -> bool:
            """After some seconds in vain the nodes give up, as where the machine stands still."""
            with suppress(AssertionError):
                replica.client().execute_command("CLUSTER FAILOVER")
                eventually(lambda: replica.client().role()[0] == "master", 20)
                return True
            return False

        eventually(asked_again, SECONDS)
        self.wait_until_up()
        return replica

    def add(self, **options: object) -> Server:
        """Add a primary that has no slots yet."""
        node = self._start(**OPTIONS, **options)
        self.manage("add-node", address(node), address(self.nodes[0]))
        self.nodes.append(node)
        self.wait_until_up()
        return node

    def rebalance(self, node: Server, weight: float = 1) -> None:
        """Give that node slots of the others, by its weight beside their 1."""
        weights = f"{self.id(node)}={weight}"
        entry = address(self.nodes[0])
        self.manage("rebalance", entry, "--cluster-use-empty-masters", "--cluster-weight", weights)
        self.wait_until_up()

    def drain(self, node: Server) -> None:
        """Give the slots of that primary to the others. From 7.0 on it then is a replica of one of them."""
        self.manage("rebalance", address(self.nodes[0]), "--cluster-weight", f"{self.id(node)}=0")
        self.wait_until_up()

    def drop(self, node: Server) -> None:
        """Take out a node that has no slots."""
        self.manage("del-node", address(self.nodes[0]), self.id(node))
        self.nodes.remove(node)
        node.kill()
        self.wait_until_up()


def address(node: Server) -> str:
    return f"{HOST}:{node.port}"


class ClusterScript(Script):
    """What scripts/cluster does."""

    name = "cluster"
    ports = NODES
    above = (0, BUS)

    def build(self, start: Callable[..., Server]) -> None:
        self.cluster = Cluster(start)

    def greeting(self, ports: list[int]) -> str:
        first, second = (f'ClusterNode("{HOST}", {port})' for port in ports[:2])
        victim = self.cluster.owner(slot("web")).port
        other = next(port for port in ports if port != victim)
        home = self.folder / str(victim)
        return f"""\
Three primaries with a replica each run on {HOST}, ports {ports[0]} to {ports[-1]}. Talk to any of them;
-c follows to the one that has the key:

  redis-cli -c -p {other} LB.ADD web 10.0.0.1:8080 5 10.0.0.2:8080 3 10.0.0.3:8080 2
  redis-cli -c -p {other} LB.PICK web

From Python:

  from redis.cluster import ClusterNode, RedisCluster
  r = RedisCluster(startup_nodes=[{first}, {second}])
  r.execute_command("LB.PICK", "web")

Kill the node that has `web`, and see picks go on at its replica after some seconds:

  kill -9 $(cat {home / PIDFILE})
  while sleep 0.5; do redis-cli -c -p {other} LB.PICK web; done

Start it again, as the replica of its replica:

  (cd {home} && setsid {self.program} redis.conf --port {victim} >>log 2>&1 &)

Then: {self.line("status")}, {self.line("stop")}"""

    def show(self, processes: dict[int, int | None]) -> list[str]:
        seen: dict[int, Member] = {}
        wrong = []
        for port in (port for port, process in processes.items() if process):
            client = redis.Redis(HOST, port, decode_responses=True, socket_timeout=5, retry=None)
            try:
                if (state := client.cluster("info")["cluster_state"]) != "ok":
                    wrong.append(f"to {HOST}:{port} the cluster is in state {state}")
                seen = seen or {member.port: member for member in members(client)}
            except redis.RedisError as error:
                wrong.append(f"{HOST}:{port} does not answer ({error})")
        ids = {member.id: member.port for member in seen.values()}
        for port, process in processes.items():
            runs = f"process {process}" if process else "does not run"
            print(f"{HOST}:{port}  {seen[port].told(ids) if port in seen else 'unknown'}, {runs}")
        return wrong


if __name__ == "__main__":
    ClusterScript().main()


def slots(wire, *arguments):
    """What a node answers to a form of CLUSTER, which it must not refuse."""
    answer = wire.ask(" ".join(["CLUSTER", *map(str, arguments)]))
    assert not isinstance(answer, Refused), answer
    return answer
