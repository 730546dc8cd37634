"""The rules by which other balancers choose and give up backends, each gateway for itself.

They are simulated by what the projects publish, with their defaults. The source of each rule stands beside
it. Times are in microseconds. A fleet says which backend a gateway picks, and is told how the request ended.
What it picks, and only that, is known to the gateway: no gateway sees the requests of another.
"""

import math
import random
from collections import deque
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import Protocol

SECOND = 1_000_000


class Fleet(Protocol):
    """Gateways that balance. A ticket is what the fleet wants to be told when the request has ended."""

    def pick(self, now: int, gateway: int) -> tuple[int, object]:
        """A backend for a request that comes to this gateway."""

    def done(self, now: int, gateway: int, backend: int, ticket: object, is_ok: bool, micros: int) -> None:
        """That request has ended."""


# nginx 1.31: src/http/modules/ngx_http_upstream_least_conn_module.c and
# src/http/ngx_http_upstream_round_robin.c. A gateway is an nginx whose workers share the upstream's `zone`;
# without it each worker would be a gateway.


@dataclass
class NginxPeer:
    """ngx_http_upstream_rr_peer_t, of weight 1. Its times are those of ngx_time(): whole seconds."""

    conns: int = 0
    fails: int = 0
    accessed: int = 0
    checked: int = 0
    effective_weight: int = 1
    current_weight: int = 0


class Nginx:
    """`least_conn` with `max_fails=1 fail_timeout=10s`, the defaults."""

    MAX_FAILS = 1
    FAIL_TIMEOUT = 10

    def __init__(self, gateways: int, backends: int) -> None:
        self._peers = [[NginxPeer() for _ in range(backends)] for _ in range(gateways)]

    def pick(self, now: int, gateway: int) -> tuple[int, object]:
        """ngx_http_upstream_get_least_conn_peer: the fewest connections; among equals smooth round robin."""
        peers, seconds = self._peers[gateway], now // SECOND
        usable = [i for i, peer in enumerate(peers) if not self._is_out(peer, seconds)]
        if not usable:
            raise RuntimeError("no live upstreams: the scenarios do not come to that")
        fewest = min(peers[i].conns for i in usable)
        least = [i for i in usable if peers[i].conns == fewest]
        best = least[0]
        if len(least) > 1:
            total = 0
            for i in least:
                peer = peers[i]
                peer.current_weight += peer.effective_weight
                total += peer.effective_weight
                peer.effective_weight = min(peer.effective_weight + 1, 1)
                if peer.current_weight > peers[best].current_weight:
                    best = i
            peers[best].current_weight -= total
        chosen = peers[best]
        # From now on it is out again until this request has ended: one request tries.
        if seconds - chosen.checked > self.FAIL_TIMEOUT:
            chosen.checked = seconds
        chosen.conns += 1
        return best, None

    def _is_out(self, peer: NginxPeer, seconds: int) -> bool:
        return peer.fails >= self.MAX_FAILS and seconds - peer.checked <= self.FAIL_TIMEOUT

    def done(self, now: int, gateway: int, backend: int, ticket: object, is_ok: bool, micros: int) -> None:
        """ngx_http_upstream_free_round_robin_peer."""
        peer = self._peers[gateway][backend]
        if not is_ok:
            peer.fails += 1
            peer.accessed = peer.checked = now // SECOND
            peer.effective_weight = max(0, peer.effective_weight - 1 // self.MAX_FAILS)
        elif peer.accessed < peer.checked:
            peer.fails = 0
        peer.conns -= 1


# Envoy: source/extensions/load_balancing_policies/least_request/least_request_lb.cc
# (unweightedHostPickNChoices) and source/common/upstream/outlier_detection_impl.cc; defaults: DEFAULT_… in
# outlier_detection_impl.h, as documented in api/envoy/config/cluster/v3/outlier_detection.proto. A gateway is
# an Envoy process: its workers share what they count.


@dataclass
class EnvoyHost:
    """What an Envoy knows of a host."""

    active: int = 0
    consecutive_5xx: int = 0
    ejected_at: int | None = None
    unejected_at: int | None = None
    backoff: int = 0
    total: int = 0
    success: int = 0


@dataclass
class EnvoyProcess:
    """An Envoy, and when its detector's timer fires next."""

    hosts: list[EnvoyHost]
    next_interval: int


class Envoy:
    """LEAST_REQUEST of two, with outlier detection as it is where the cluster has `outlier_detection: {}`."""

    CHOICES = 2
    CONSECUTIVE_5XX = 5
    INTERVAL = 10 * SECOND
    BASE_EJECTION = 30 * SECOND
    MAX_EJECTION = 300 * SECOND
    MAX_EJECTION_PERCENT = 10
    SUCCESS_RATE_HOSTS = 5
    SUCCESS_RATE_VOLUME = 100
    SUCCESS_RATE_STDEV = 1.9

    def __init__(self, gateways: int, backends: int, seed: int = 1) -> None:
        self._chance = random.Random(f"Envoy {seed}")
        # They were not all started at once.
        self._processes = [
            EnvoyProcess([EnvoyHost() for _ in range(backends)], self._chance.randrange(self.INTERVAL))
            for _ in range(gateways)
        ]

    def pick(self, now: int, gateway: int) -> tuple[int, object]:
        """unweightedHostPickNChoices: drawn with replacement; the first one drawn wins a tie."""
        process = self._at(now, gateway)
        healthy = [i for i, host in enumerate(process.hosts) if host.ejected_at is None]
        drawn = [healthy[self._chance.randrange(len(healthy))] for _ in range(self.CHOICES)]
        best = min(drawn, key=lambda i: process.hosts[i].active)
        process.hosts[best].active += 1
        return best, None

    def done(self, now: int, gateway: int, backend: int, ticket: object, is_ok: bool, micros: int) -> None:
        """putHttpResponseCode, and onConsecutiveErrorWorker. A failed connection counts as a 503."""
        process = self._at(now, gateway)
        host = process.hosts[backend]
        host.active -= 1
        host.total += 1
        if is_ok:
            host.success += 1
            host.consecutive_5xx = 0
            return
        host.consecutive_5xx += 1
        if host.consecutive_5xx == self.CONSECUTIVE_5XX and host.ejected_at is None:
            self._eject(process, host, now)
            host.consecutive_5xx = 0

    def _eject(self, process: EnvoyProcess, host: EnvoyHost, now: int) -> None:
        """ejectHost."""
        ejected = sum(other.ejected_at is not None for other in process.hosts)
        if 100 * (ejected + 1) / len(process.hosts) <= self.MAX_EJECTION_PERCENT:
            host.ejected_at = now
            if host.backoff * self.BASE_EJECTION < self.MAX_EJECTION + self.BASE_EJECTION:
                host.backoff += 1

    def _at(self, now: int, gateway: int) -> EnvoyProcess:
        """That process, with all intervals over that are."""
        process = self._processes[gateway]
        while process.next_interval <= now:
            self._interval(process, process.next_interval)
            process.next_interval += self.INTERVAL
        return process

    def _interval(self, process: EnvoyProcess, now: int) -> None:
        """onIntervalTimer: checkHostForUneject, processSuccessRateEjections, and the back-off falls again."""
        rates = []
        for host in process.hosts:
            out_for = min(self.BASE_EJECTION * host.backoff, self.MAX_EJECTION)
            if host.ejected_at is not None and now - host.ejected_at >= out_for:
                host.ejected_at, host.unejected_at, host.consecutive_5xx = None, now, 0
            if host.ejected_at is None and host.total >= self.SUCCESS_RATE_VOLUME:
                rates.append((host, 100 * host.success / host.total))
            host.total = host.success = 0
        if len(rates) >= self.SUCCESS_RATE_HOSTS:
            mean = sum(rate for _, rate in rates) / len(rates)
            stdev = math.sqrt(sum((rate - mean) ** 2 for _, rate in rates) / len(rates))
            for host, rate in rates:
                if rate < mean - self.SUCCESS_RATE_STDEV * stdev:
                    self._eject(process, host, now)
        for host in process.hosts:
            is_long_back = host.unejected_at is not None and now - host.unejected_at >= self.INTERVAL
            if host.ejected_at is None and is_long_back:
                host.backoff = max(0, host.backoff - 1)


# finagle 24.10, and linkerd 1 which is made of it. Below finagle-core/src/main/scala/com/twitter/finagle:
# loadbalancer/p2c/P2CPick.scala, loadbalancer/{Balancer,PanicMode,PeakEwma}.scala, util/Ema.scala,
# Backoff.scala (EqualJittered), liveness/{FailureAccrualFactory,FailureAccrualPolicy}.scala.

ALIVE, DEAD, PROBE_OPEN, PROBE_CLOSED = "alive", "dead", "probe open", "probe closed"


class Backoff:
    """Backoff.equalJittered(5.seconds, 300.seconds): 5 s, then 5 to 10 s, 10 to 20 s … 300 s."""

    START = 5 * SECOND
    MAXIMUM = 300 * SECOND

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.anew()

    def anew(self) -> None:
        """Begins again."""
        self._duration, self._attempt = self.START, 1

    def take(self) -> int:
        """The next duration."""
        duration = self._duration
        half = min(self.START << (self._attempt - 1), self.MAXIMUM)
        self._duration = min(half + self._chance.randrange(half), self.MAXIMUM)
        self._attempt += 1
        return duration


class FinagleNode:
    """An endpoint of a client: PeakEwma's metric, and FailureAccrualFactory with its default policy."""

    DECAY = 10 * SECOND
    PENALTY = (1 << 63) >> 16
    FAILURES = 5
    RATE, WINDOW, SLICES, REQUESTS = 0.8, 30 * SECOND, 5, 5

    def __init__(self, chance: random.Random) -> None:
        self.pending = 0
        self._cost, self._stamp = 0.0, 0
        self._state, self._revives = ALIVE, 0
        self._failures = 0
        self._backoffs = Backoff(chance), Backoff(chance)
        self._since, self._success_rate, self._rated_at = 0, None, 0
        self._slices: deque[list[int]] = deque(maxlen=self.SLICES)

    def observe(self, now: int, rtt: float) -> None:
        """PeakEwma's Metric.observe: a peak at once, all else by the mean over ten seconds."""
        if rtt > self._cost:
            self._cost = rtt
        else:
            old = math.exp((self._stamp - now) / self.DECAY)
            self._cost = rtt * (1 - old) + self._cost * old
        self._stamp = now

    def load(self, now: int) -> float:
        """PeakEwma's Metric.get."""
        self.observe(now, 0.0)
        if self._cost == 0 and self.pending:
            return self.PENALTY + self.pending
        return self._cost * (self.pending + 1)

    def is_open(self, now: int) -> bool:
        """FailureAccrualFactory.status."""
        if self._state == DEAD and now >= self._revives:
            self._state = PROBE_OPEN
        return self._state in (ALIVE, PROBE_OPEN)

    def begin(self) -> None:
        """A request goes there."""
        self.pending += 1
        if self._state == PROBE_OPEN:
            self._state = PROBE_CLOSED

    def end(self, now: int, is_ok: bool, micros: int) -> None:
        """It has ended: didSucceed or didFail."""
        self.pending -= 1
        self.observe(now, micros)
        self.is_open(now)
        if is_ok:
            if self._state == PROBE_CLOSED:
                self._revived(now)
                self._state = ALIVE
            self._failures = 0
            self._rate(now, 1)
        elif self._state in (ALIVE, PROBE_CLOSED):
            duration = self._mark_dead(now)
            if duration:
                self._state, self._revives = DEAD, now + duration
            elif self._state == PROBE_CLOSED:
                self._state = PROBE_OPEN

    def _revived(self, now: int) -> None:
        self._failures = 0
        for backoff in self._backoffs:
            backoff.anew()
        self._since, self._success_rate = now, None
        self._slices.clear()

    def _mark_dead(self, now: int) -> int:
        """successRateWithinDuration(0.8, 30 s, 5) orElse consecutiveFailures(5): the longer of the two."""
        by_rate, by_row = self._backoffs
        rate = self._rate(now, 0)
        is_long_enough = now - self._since >= self.WINDOW
        are_enough = sum(count for at, count in self._slices if now - at < self.WINDOW) >= self.REQUESTS
        durations = [0]
        if is_long_enough and are_enough and rate < self.RATE:
            durations.append(by_rate.take())
        self._failures += 1
        if self._failures >= self.FAILURES:
            durations.append(by_row.take())
        return max(durations)

    def _rate(self, now: int, success: int) -> float:
        """The success rate as an Ema over the window, and the requests in it by slices."""
        width = self.WINDOW // self.SLICES
        if not self._slices or now - self._slices[-1][0] >= width:
            self._slices.append([now - now % width, 0])
        self._slices[-1][1] += 1
        if self._success_rate is None:
            self._success_rate = float(success)
        else:
            old = math.exp((self._rated_at - now) / self.WINDOW)
            self._success_rate = success * (1 - old) + self._success_rate * old
        self._rated_at = now
        return self._success_rate


class Finagle:
    """The better of two by peak EWMA (decay 10 s), with failure accrual by default."""

    EFFORT = 5  # PanicMode.MajorityUnhealthy

    def __init__(self, gateways: int, backends: int, seed: int = 1) -> None:
        self._chance = random.Random(f"finagle {seed}")
        self._clients = [[FinagleNode(self._chance) for _ in range(backends)] for _ in range(gateways)]

    def pick(self, now: int, gateway: int) -> tuple[int, object]:
        """Balancer.apply: up to five tries for one that is open, then whichever comes."""
        nodes = self._clients[gateway]
        for _ in range(self.EFFORT):
            best = self._pick(nodes, now)
            if nodes[best].is_open(now):
                break
        else:
            best = self._pick(nodes, now)
        nodes[best].begin()
        return best, None

    def _pick(self, nodes: list[FinagleNode], now: int) -> int:
        """P2CPick.pick: two different ones; the healthier, then the less loaded."""
        a = self._chance.randrange(len(nodes))
        b = self._chance.randrange(len(nodes) - 1)
        b += b >= a
        order = [(not nodes[i].is_open(now), nodes[i].load(now)) for i in (a, b)]
        return a if order[0] <= order[1] else b

    def done(self, now: int, gateway: int, backend: int, ticket: object, is_ok: bool, micros: int) -> None:
        """The request has ended."""
        self._clients[gateway][backend].end(now, is_ok, micros)


# Prequal: Wydrowski, Kleinberg, Rumble, Archer: "Load is not what you should balance: Introducing Prequal",
# NSDI 2024, section 4 (the design), and section 5 for the parameters of its testbed. It has no public
# implementation.


@dataclass
class Probe:
    """What a replica has said of itself, and how often that was used."""

    at: int
    replica: int
    rif: int
    latency: float
    uses: int = 0


class Replica:
    """What a server knows of itself: the requests in flight, and the latest latencies by their number."""

    # The paper says "recent" and "at or near the current RIF". How many these are is ours: 64 was better than
    # 8 and 16.
    RECENT = 64

    def __init__(self) -> None:
        self.rif = 0
        self._took: dict[int, deque[int]] = {}

    def took(self, rif: int, micros: int) -> None:
        """A request that came as that one of those in flight has ended."""
        self._took.setdefault(rif, deque(maxlen=self.RECENT)).append(micros)

    def latency(self) -> float:
        """The median of the latest latencies at, or next to, the requests in flight now."""
        if not self._took:
            return 0.0
        nearest = min(self._took, key=lambda rif: abs(rif - self.rif))
        return median(self._took[nearest])


class Prequal:
    """Asynchronous probes into a pool of 16, and the hot-cold lexicographic rule.

    A probe is answered at once, which flatters it. The paper's measures against replicas that fail fast are
    not published, and a probe of a dead one is not answered. So it can be held against a dead backend, and no
    more.
    """

    POOL = 16
    AGE = SECOND
    PROBES = 3  # r_probe, a query
    REMOVED = 1  # r_remove, a query
    DELTA = 1
    QUANTILE = 2**-0.25  # Q_RIF
    FEWEST = 2

    def __init__(self, gateways: int, backends: int, answers, seed: int = 1) -> None:
        self._chance = random.Random(f"Prequal {seed}")
        self._replicas = [Replica() for _ in range(backends)]
        self._answers = answers
        self._pools: list[list[Probe]] = [[] for _ in range(gateways)]
        self._removals = [cycle((self._oldest, self._worst)) for _ in range(gateways)]
        # Formula (1), b_reuse: for ten replicas it says 1. Of 1, 2, 4 and no bound, 1 was the best for it
        # here too.
        accruing = (1 - self.POOL / backends) * self.PROBES - self.REMOVED
        self._reuse = max(1, (1 + self.DELTA) / accruing)

    def pick(self, now: int, gateway: int) -> tuple[int, object]:
        """The best of the pool, or one by chance where it is too small; probes are sent for the next ones."""
        pool = [probe for probe in self._pools[gateway] if now - probe.at <= self.AGE]
        if len(pool) < self.FEWEST:
            best = self._chance.randrange(len(self._replicas))
        else:
            chosen = self._best(pool, pool)
            best = chosen.replica
            # The request that it sends is one more in flight there.
            chosen.rif += 1
            chosen.uses += 1
            pool = [probe for probe in pool if probe.uses < self._reuse]
        for _ in range(self.REMOVED):
            if pool:
                pool.remove(next(self._removals[gateway])(pool))
        ticket = self._begin(best)
        for probe in self._probed(now):
            # A new one takes the place of an older one of the same replica, or of the oldest of all.
            pool = [other for other in pool if other.replica != probe.replica][-(self.POOL - 1) :] + [probe]
        self._pools[gateway] = pool
        return best, ticket

    def _begin(self, best: int) -> int:
        replica = self._replicas[best]
        replica.rif += 1
        return replica.rif

    def _probed(self, now: int) -> list[Probe]:
        """Probes of some replicas, all different."""
        asked = self._chance.sample(range(len(self._replicas)), self.PROBES)
        said = [(i, self._replicas[i]) for i in asked if self._answers(i, now)]
        return [Probe(now, i, replica.rif, replica.latency()) for i, replica in said]

    def _limit(self, known: list[Probe]) -> int:
        """The quantile of the requests in flight, above which a replica is hot."""
        counts = sorted(probe.rif for probe in known)
        return counts[min(int(self.QUANTILE * len(counts)), len(counts) - 1)]

    def _best(self, pool: list[Probe], known: list[Probe]) -> Probe:
        """Of the cold ones the lowest latency; if all are hot, the fewest in flight."""
        limit = self._limit(known)
        cold = [probe for probe in pool if probe.rif <= limit]
        return min(cold, key=lambda probe: probe.latency) if cold else min(pool, key=lambda probe: probe.rif)

    def _worst(self, pool: list[Probe]) -> Probe:
        """The same rule the other way round."""
        limit = self._limit(pool)
        hot = [probe for probe in pool if probe.rif > limit]
        return max(hot, key=lambda probe: probe.rif) if hot else max(pool, key=lambda probe: probe.latency)

    def _oldest(self, pool: list[Probe]) -> Probe:
        return min(pool, key=lambda probe: probe.at)

    def done(self, now: int, gateway: int, backend: int, ticket: object, is_ok: bool, micros: int) -> None:
        """The server notes how long it took."""
        self._replicas[backend].rif -= 1
        self._replicas[backend].took(ticket, micros)


class PrequalSync(Prequal):
    """Its synchronous mode (section 4): each query asks d = 3 replicas and chooses among their answers.

    The answers come at once, while a real query would wait for them. The requests in flight of the replicas
    that answered last are the estimate by which they are hot.
    """

    def __init__(self, gateways: int, backends: int, answers, seed: int = 1) -> None:
        super().__init__(gateways, backends, answers, seed)
        self._known: list[deque[Probe]] = [deque(maxlen=self.POOL) for _ in range(gateways)]

    def pick(self, now: int, gateway: int) -> tuple[int, object]:
        """The best of those that answer."""
        probes = self._probed(now)
        known = self._known[gateway]
        known.extend(probes)
        best = self._best(probes, [*known]).replica
        return best, self._begin(best)
