"""A primary, two replicas and three sentinels on loopback; when the primary fails, a replica takes over.

A test makes them by `Sentinels(new_server)`. As a program it is what scripts/sentinel runs.
"""

import shlex
from collections.abc import Callable

import redis

from server import Server, eventually
from standing import HOST, PIDFILE, Script

NAME = "lb"
NODES = 3
SENTINELS = 3
QUORUM = 2
SECONDS = 90.0
NODE = {
    # A primary that comes back from a crash with nothing, before anybody missed it, empties its replicas.
    "appendonly": "yes",
    # A primary that nobody follows any more soon refuses to pick, rather than pick what will be lost.
    "min_replicas_to_write": 1,
    "min_replicas_max_lag": 2,
}
SENTINEL = {
    # More than a second: a sentinel connects at most once a second, and until it has connected to a new
    # primary it takes that for silent. With 1000 some failovers were followed by another one.
    "sentinel down_after_milliseconds": f"{NAME} 2000",
    "sentinel failover_timeout": f"{NAME} 5000",
    "sentinel parallel_syncs": f"{NAME} {NODES - 1}",
}


class Sentinels:
    """The nodes and the sentinels that watch them.

    `start(**options)` starts a server with these lines of redis.conf; `new_server` of a test does.
    """

    def __init__(self, start: Callable[..., Server], **options: object) -> None:
        self._start = start
        first = self._node(**options)
        self.nodes = [first]
        for _ in range(NODES - 1):
            self.nodes.append(self._node(replicaof=f"{HOST} {self.address(first)}", **options))
        watch = {"sentinel monitor": f"{NAME} {HOST} {self.address(first)} {QUORUM}"} | SENTINEL
        self.sentinels = [start(module=None, arguments=["--sentinel"], **watch) for _ in range(SENTINELS)]
        eventually(self.whole, SECONDS, pause=0.2)

    def _node(self, **options: object) -> Server:
        return self._start(**NODE | options)

    def address(self, node: Server) -> int:
        """The port at which the others reach that node."""
        return node.port

    def primary(self) -> Server | None:
        """The one that all sentinels name; None while they differ."""
        named = {primary_of(sentinel.port) for sentinel in self.sentinels}
        return next((node for node in self.nodes if named == {self.address(node)}), None)

    def whole(self) -> bool:
        """Whether the sentinels agree and are content, and the primary has all replicas."""
        nodes = {self.address(node): node.port for node in self.nodes}
        return whole(nodes, [sentinel.port for sentinel in self.sentinels])


def client(port: int) -> redis.Redis:
    return redis.Redis(HOST, port, decode_responses=True, socket_timeout=10, retry=None)


def primary_of(sentinel: int) -> int:
    """The port of the primary, as the sentinel at that port has it."""
    with client(sentinel) as asked:
        _, port = asked.sentinel_get_master_addr_by_name(NAME)
    return int(port)


def content(sentinel: int) -> bool:
    """Whether that sentinel knows all the others and the nodes, hears from them, and finds each in its role.

    While one still takes an old primary for a primary, it undoes a failover to that node by command.
    """
    with client(sentinel) as asked:
        replicas = asked.sentinel_slaves(NAME)
        seen = [asked.sentinel_master(NAME), *replicas, *asked.sentinel_sentinels(NAME)]
    missed = {"s_down", "o_down", "disconnected"}
    return (
        len(seen) == NODES + SENTINELS - 1
        and all(missed.isdisjoint(it["flags"].split(",")) for it in seen)
        and all(replica["role-reported"] == "slave" for replica in replicas)
    )


def follows(node: int, primary: int) -> bool:
    """Whether the node at that port replicates that primary, and has a copy of it."""
    try:
        with client(node) as asked:
            told = asked.info("replication")
    except (redis.ConnectionError, redis.TimeoutError):  # as when it has just been made a replica
        return False
    return told["role"] == "slave" and told["master_port"] == primary and told["master_link_status"] == "up"


def whole(nodes: dict[int, int], sentinels: list[int]) -> bool:
    """Whether all is well with these; nodes map the port at which others reach them to their own."""
    named = {primary_of(port) for port in sentinels}
    return (
        len(named) == 1
        and all(map(content, sentinels))
        and all(follows(port, *named) for address, port in nodes.items() if address not in named)
    )


class SentinelScript(Script):
    """What scripts/sentinel does."""

    name = "sentinel"
    ports = NODES + SENTINELS

    def build(self, start: Callable[..., Server]) -> None:
        Sentinels(start)

    def greeting(self, ports: list[int]) -> str:
        nodes, sentinels = ports[:NODES], ports[NODES:]
        addresses = ", ".join(f'("{HOST}", {port})' for port in sentinels)
        ask = f"redis-cli -p {sentinels[0]} SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}"
        home = self.folder / str(nodes[0])
        pidfile, home = shlex.quote(str(home / PIDFILE)), shlex.quote(str(home))
        return f"""\
A primary and two replicas run on {HOST}, ports {nodes[0]} to {nodes[-1]}. Three sentinels, ports
{sentinels[0]} to {sentinels[-1]}, call them `{NAME}` and tell which one is the primary:

  {ask}
  redis-cli -p {nodes[0]} LB.ADD web 10.0.0.1:8080 5 10.0.0.2:8080 3 10.0.0.3:8080 2
  redis-cli -p {nodes[0]} LB.PICK web

From Python:

  from redis.sentinel import Sentinel
  sentinel = Sentinel([{addresses}], socket_timeout=1)
  sentinel.master_for("{NAME}", socket_timeout=1).execute_command("LB.PICK", "web")

Kill the primary, and see picks go on at a replica after some seconds:

  kill -9 $(cat {pidfile})
  while sleep 0.5; do redis-cli -p $({ask} | tail -n 1) LB.PICK web; done

Start it again; the sentinels make it a replica within half a minute:

  (cd {home} && setsid {shlex.quote(str(self.program))} redis.conf --port {nodes[0]} >>log 2>&1 &)

Then: {self.line("status")}, {self.line("stop")}"""

    def show(self, processes: dict[int, int | None]) -> list[str]:
        sentinels = [port for port in processes if self.is_sentinel(port)]
        nodes = [port for port in processes if port not in sentinels]
        for port, process in processes.items():
            what = "does not run"
            if process:
                try:
                    what = f"sentinel, names {primary_of(port)}" if port in sentinels else role(port)
                except redis.RedisError as error:
                    what = f"does not answer ({error})"
            print(f"{HOST}:{port}  {what}" + (f", process {process}" if process else ""))
        running = {port for port, process in processes.items() if process}
        try:
            if running >= {*sentinels} and not whole({port: port for port in nodes}, sentinels):
                return ["the sentinels do not agree yet, or miss a node"]
        except redis.RedisError as error:
            return [f"a sentinel does not answer ({error})"]
        return []

    def is_sentinel(self, port: int) -> bool:
        """Whether a sentinel was started at that port."""
        return "sentinel monitor" in (self.folder / str(port) / "redis.conf").read_text()


def role(node: int) -> str:
    """What the node at that port is in its own eyes."""
    with client(node) as asked:
        told = asked.info("replication")
    if told["role"] == "master":
        return f"primary of {told['connected_slaves']}"
    return f"replica of {told['master_port']}, link {told['master_link_status']}"


if __name__ == "__main__":
    SentinelScript().main()
