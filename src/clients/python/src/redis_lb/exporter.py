"""Metrics of pools for Prometheus.

    python -m redis_lb.exporter [--url redis://localhost:6379] [--listen localhost:9379] [--pool KEY ...]

It looks at one server at each scrape, and only reads. It needs prometheus-client: pip install "redis-lb[exporter]".

No command holds the server for long: SCAN passes 1,000 keys at a time, and LB.STATS takes about 1.2 µs for each
backend, so large pools are summed up by LB.INFO. The commands are sent one by one, because a server runs those of a
pipeline without a pause.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.retry import Retry

from .arguments import Parser
from .link import at_once
from .replies import TYPE, pairs

# In a scrape. The next one goes on from there.
SCANS, KEYS_OF_A_SCAN = 100, 1_000
# LB.STATS of that many takes about 2.4 ms.
MOST_BACKENDS = 2_000
# Prometheus gives up after 10 s, unless it is told otherwise.
ANSWER_SECONDS, SCRAPE_SECONDS = 2.0, 8.0
# So begins the answer of a poisoned pool.
FAULT = "a fault in redis-lb"

Fields = dict[str, Any]
Family = CounterMetricFamily | GaugeMetricFamily


@dataclass(frozen=True)
class Figure:
    """A field that is a number, as a metric. A negative number stands for none."""

    field: str
    name: str
    help: str
    # How many of the field's unit are one of the metric's.
    unit: int = 1


SERVER = [
    Figure("lb_picks", "picks_total", "Picks since the module was loaded"),
    Figure("lb_refused_commands", "refused_commands_total", "Commands that were answered by an error"),
    Figure("lb_poisoned_pools", "poisoned_pools_total", "Pools that a fault in the module has hit"),
]
BOTH = [
    Figure("picks", "picks_total", "Picks"),
    Figure("leases", "leases", "Open leases"),
    Figure("sessions", "sessions", "Sessions that stick to a backend"),
    Figure("max", "max_leases", "Leases that MAX allows at one time; 0 = no limit"),
    Figure("max-per-second", "max_picks_per_second", "Picks that RATE allows in a second; 0 = no limit"),
    Figure("burst", "burst_picks", "Picks that BURST allows at one moment; 0 = no limit"),
    Figure("tokens", "tokens", "Picks that RATE allows now"),
]
POOL = [
    Figure("backends", "backends", "Backends"),
    Figure("available", "available_backends", "Backends that can be picked now"),
    Figure("ejected", "ejected_backends", "Backends that are out because of failures"),
    Figure("cooling", "cooling_backends", "Backends that cool"),
    Figure("held", "held_ejections_total", "How often MAXEJECT kept a backend in"),
    Figure("total-weight", "weight", "Sum of the weights of the backends that can be picked now"),
    Figure("refused", "refused_picks_total", "Picks at this server that found no backend"),
    Figure("waiting", "waiting_clients", "Clients that wait at this server with BLOCK"),
    Figure("oldest-wait-ms", "oldest_wait_seconds", "How long the first waiting client has waited", 1_000),
    Figure("bytes", "bytes", "Memory"),
    *BOTH,
]
BACKEND = [
    Figure("weight", "weight", "Weight as set"),
    Figure("running-weight", "running_weight", "Weight by which it is picked now; 0 = it cannot be picked"),
    Figure("tier", "tier", "Tier as set"),
    Figure("done", "done_total", "Leases that LB.DONE ended"),
    Figure("expired", "expired_total", "Leases that ended by their deadline"),
    Figure("failures", "failures_total", "Reports of a failure"),
    Figure("failures-in-a-row", "failures_in_a_row", "Failures since the last success"),
    Figure("ejections", "ejections_total", "How often it was ejected"),
    Figure("back-in-ms", "back_in_seconds", "Time until it comes back or is probed", 1_000),
    Figure("latencies", "latencies_total", "Reported latencies"),
    Figure("latency-sum-us", "latency_seconds_total", "Sum of the reported latencies", 1_000_000),
    Figure("load", "load", "Load at the last step of ADAPT; 0 = not known"),
    *BOTH,
]
POOL_UP = "pool_up", "Whether the pool is sound; a poisoned one answers errors"
# redis-py 5 does not declare their types.
connect: Any = redis.Redis.from_url
retries: Any = Retry
# A pool that was named, and that is not there: nobody can pick from it.
MISSING: Fields = {"backends": 0, "available": 0}


class Scrape:
    """The metrics of one scrape."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families.values())

    def add(self, name: str, help: str, value: float, **labels: str) -> None:
        """Adds a sample."""
        if name not in self._families:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            self._families[name] = kind(f"redis_lb_{name}", help, labels=list(labels))
        self._families[name].add_metric(list(labels.values()), value)

    def figures(self, of: Fields, prefix: str, figures: list[Figure], **labels: str) -> None:
        """Adds the figures that the server told. An older one tells fewer."""
        for figure in figures:
            told = float(of.get(figure.field, -1))
            if told >= 0:
                self.add(f"{prefix}_{figure.name}", figure.help, told / figure.unit, **labels)


def fields(reply: Any) -> Fields:
    """What the server told of a pool or of a backend."""
    of = {name.decode(): value for name, value in pairs(reply)}
    of["max-per-second"] = 1_000 * of["rate"] / of["rate-ms"] if of["rate"] else 0
    return of


def label(name: bytes) -> str:
    """A name as the value of a label. No two names have the same."""
    return name.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


class Exporter(Collector):
    """Looks at the pools of one server whenever Prometheus asks.

    Without `pools` it finds them. `most_pools` and `most_backends` bound the work and the number of metrics: further
    pools are left out, and the backends of a larger pool are not listed.
    """

    def __init__(self, client: redis.Redis, pools: list[bytes], most_pools: int, most_backends: int) -> None:
        self._info: Callable[[str], Any] = client.info
        self._execute: Callable[..., Any] = client.execute_command
        self._named = bool(pools)
        self._most_pools = most_pools
        self._most_backends = most_backends
        self._alone = threading.Lock()
        self._pools = dict.fromkeys(pools)
        self._cursor = 0
        self._has_seen_all = self._named
        self._left_off: set[bytes] = set()
        self._deadline = 0.0
        self._trouble = ""

    def collect(self) -> Iterator[Family]:
        """All metrics. If the server does not answer, only that it does not."""
        with self._alone:
            began = time.monotonic()
            self._deadline = began + SCRAPE_SECONDS
            scrape, trouble = Scrape(), ""
            try:
                self._look(scrape)
            except redis.RedisError as error:
                scrape, trouble = Scrape(), str(error) or type(error).__name__
            if trouble not in ("", self._trouble):
                print(f"redis_lb.exporter: {trouble}", file=sys.stderr, flush=True)
            self._trouble = trouble
            scrape.add("up", "Whether the server answers and has the module", not trouble)
            scrape.add("scrape_duration_seconds", "Duration of this scrape", time.monotonic() - began)
            yield from scrape

    def _look(self, scrape: Scrape) -> None:
        info = self._info("lb")
        if "lb_version" not in info:
            raise redis.ResponseError("the server does not have the module redis-lb")
        scrape.add("server_info", "The version of the module", 1, version=str(info["lb_version"]))
        scrape.figures(info, "server", SERVER)
        if not self._named:
            self._find()
        for key in list(self._pools):
            self._look_at(key, scrape)
        scrape.add("pools", "Pools with metrics", len(self._pools))
        scrape.add("pools_left_out", "Whether there are more pools than --pools allows", bool(self._left_off))
        scrape.add("scan_complete", "Whether all keys were searched for pools since the start", self._has_seen_all)

    def _find(self) -> None:
        """Goes on with the search for pools, once around at most."""
        for _ in range(SCANS):
            cursor, keys = self._ask("SCAN", self._cursor, "COUNT", KEYS_OF_A_SCAN, "TYPE", TYPE)
            if self._cursor == 0:
                self._left_off.clear()
            for key in keys:
                if key in self._pools or len(self._pools) < self._most_pools:
                    self._pools[key] = None
                elif len(self._left_off) < self._most_pools:
                    self._left_off.add(key)
            self._cursor = int(cursor)
            if self._cursor == 0:
                self._has_seen_all = True
                break

    def _look_at(self, key: bytes, scrape: Scrape) -> None:
        """Adds the metrics of the pool at that key, and those of its backends."""
        pool = label(key)
        try:
            told = self._ask("LB.INFO", key)
            of = MISSING if told is None else fields(told)
            is_listed = 0 < of["backends"] <= self._most_backends
            # A pool that has just grown is listed as a whole once.
            stats = pairs(self._ask("LB.STATS", key)) if is_listed else ()
        except redis.ResponseError as error:
            # Else the key is of another type by now or on another node, or this user may not read it.
            if self._named or FAULT in str(error):
                scrape.add(*POOL_UP, 0, pool=pool)
            else:
                self._forget(key)
            return
        if of is MISSING:
            self._forget(key)
            if key not in self._pools:
                return
        scrape.add(*POOL_UP, 1, pool=pool)
        scrape.figures(of, "pool", POOL, pool=pool)
        if "policy" in of:
            scrape.add("pool_info", "The policy of the pool", 1, pool=pool, policy=of["policy"].decode())
        for name, told in stats:
            backend = fields(told)
            scrape.figures(backend, "backend", BACKEND, pool=pool, backend=label(name))
            words = {word: backend[word].decode() for word in ("state", "health")}
            scrape.add("backend_info", "State as set, and health", 1, pool=pool, backend=label(name), **words)

    def _forget(self, key: bytes) -> None:
        """Until SCAN finds it again. A pool that was named stays."""
        if not self._named:
            del self._pools[key]

    def _ask(self, *command: Any) -> Any:
        if time.monotonic() > self._deadline:
            raise redis.TimeoutError(f"the server did not answer all commands within {SCRAPE_SECONDS:g} s")
        return self._execute(*command)


def address(text: str) -> tuple[str, int]:
    """A host and a port."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not host:port")
    return host.strip("[]"), int(port)


def number_up_to(most: int) -> Callable[[str], int]:
    """An integer from 0 to that."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) > most:
            raise argparse.ArgumentTypeError(f"'{text}' is not an integer from 0 to {most}")
        return int(text)

    return number


def parsed() -> argparse.Namespace:
    """What the command line asks for."""
    parser = Parser(prog="redis_lb.exporter", description="Metrics of pools for Prometheus.")
    add = parser.add_argument
    add("--url", help="the server; by default $REDIS_URL, or redis://localhost:6379")
    add("--listen", type=address, default="localhost:9379", help="where Prometheus asks (default: %(default)s)")
    add("--pool", action="append", default=[], help="a pool; can be repeated; by default SCAN finds them")
    add("--pools", type=number_up_to(10_000), default=100, help="at most so many pools (default: %(default)s)")
    add(
        "--backends",
        type=number_up_to(MOST_BACKENDS),
        default=100,
        help=f"backends of a larger pool have no metrics of their own (default: %(default)s, most: {MOST_BACKENDS:,})",
    )
    return parser.parse_args()


def main() -> None:
    """Serves metrics until a signal ends it."""
    options = parsed()
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        client = connect(
            options.url or os.environ.get("REDIS_URL") or "redis://localhost:6379",
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            # The connection may have ended since the last scrape.
            retry=retries(at_once(), 1, supported_errors=(redis.ConnectionError,)),
        )
        registry = CollectorRegistry()
        pools = [os.fsencode(pool) for pool in options.pool]
        registry.register(Exporter(client, pools, options.pools, options.backends))
        host, port = options.listen
        start_http_server(port, host, registry)
    except (redis.RedisError, ValueError, OSError) as error:
        sys.exit(f"redis_lb.exporter: {error}")
    print(f"redis_lb.exporter: listening on {host}:{port}", file=sys.stderr, flush=True)
    signal.sigwait(signals)


if __name__ == "__main__":
    main()
