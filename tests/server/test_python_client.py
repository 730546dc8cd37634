"""The Python client, redis_lb: each test for sync and for asyncio, most of them in RESP2 and in RESP3."""

import asyncio
import contextlib
import email.utils
import json
import os
import random
import subprocess
import sys
import time
import types
import urllib.error
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
import redis.asyncio

import redis_lb
import redis_lb.asyncio
from awaited import FLAVOURS, Flavour
from commands import COMMANDS
from redis_lb import (
    BackendStats,
    CostLimit,
    Granted,
    HealthSettings,
    Limits,
    NoBackendError,
    OpenLease,
    PoolInfo,
    QueueInfo,
    When,
    affinity,
    link,
    local,
)
from redis_lb.flow import method
from redis_lb.local import Memory
from replication import in_step
from sentinel import NAME, Sentinels
from server import BOUND, eventually, free_port

# What depends little on the server: on two of them, unless REDIS_LB_LONG is 1.
two_servers = pytest.mark.heavy

ODD = ["two words", "\0\udcff\r\n", '"\\', "é"]


@pytest.fixture(params=FLAVOURS)
def flavour(request):
    flavour = Flavour(request.param)
    yield flavour
    flavour.close()


@pytest.fixture(params=[2, 3])
def web(request, flavour, server):
    """A pool `web` of a 5, b 1, c 1, as a gateway has it whose client is like any other."""
    client = flavour.client(port=server.port, protocol=request.param, decode_responses=request.param == 3)
    web = flavour.pool(client, "web")
    web.add({"a": 5, "b": 1, "c": 1})
    return web


@pytest.fixture
def open_leases(server):
    """How many leases the server counts."""
    client = server.client()
    return lambda: len(client.execute_command("LB.LEASES", "web"))


def a_pool(flavour, server, of=None):
    """A pool of one that takes one request at a time."""
    pool = flavour.pool(flavour.client(port=server.port, **(of or {})), "web")
    pool.add("a")
    pool.set_limit(max=1)
    return pool


@pytest.fixture
def asked(monkeypatch):
    """The names of the commands that pools send."""
    names = []
    ask = link.Link.ask

    def noted(self, command):
        names.append(command.words[0])
        return ask(self, command)

    monkeypatch.setattr(link.Link, "ask", noted)
    return names


@pytest.fixture
def local_time(monkeypatch):
    """What a pool decides by itself goes by this clock, which `add(seconds)` puts forward."""
    ahead = Counter()
    monkeypatch.setattr(
        local, "time", types.SimpleNamespace(monotonic=lambda: time.monotonic() + ahead["seconds"])
    )
    return types.SimpleNamespace(add=lambda seconds: ahead.update(seconds=seconds))


# Commands


def methods():
    """The names of those that ask a server."""
    return {name for name in dir(redis_lb.Pool) if isinstance(getattr(redis_lb.Pool, name), method)}


def test_every_command_of_the_module_has_a_method(client):
    commands = {name.upper() for name in client.command() if name.upper().startswith("LB.")}
    assert commands == set(COMMANDS)
    assert {name.removeprefix("LB.").lower() for name in commands} <= methods()


def test_every_method_sends_its_command_and_replies_have_their_types(web, server, flavour):
    """In both protocols alike. Together the calls are all commands and all of their options."""
    listener = server.client().monitor()
    with listener:
        assert web.add({"d": 2, b"e": 3}) == 2
        assert web.add("d") == 0
        assert web.set({"a": 5, "b": 1, "c": 1, "d": 2}) == 1
        assert web.rem("d", "nobody") == 1
        assert (web.weight("a"), web.weight("nobody")) == (5, None)
        assert web.set_weight({"a": 4, "b": 2}) is None
        assert web.set_state("c", "drain") is None
        assert (web.state("c"), web.state("nobody")) == ("drain", None)
        assert web.set_state("c", "up") is None
        assert web.policy() == "wrr"
        assert web.set_policy("lc") is None
        assert flavour.pool(flavour.client(port=server.port), "none").policy() is None
        assert web.list() == ["a", "b", "c"]
        assert web.card() == 3

        assert web.pick("rr") == "a"
        assert web.pick("rr", exclude=["b", b"c"]) == "a"
        assert web.pick(exclude=["a", "b", "c"], wait_ms=1, prio=5, tenant="t") is None
        assert web.pick(exclude=["a", "b", "c"], prio=5, tenant="t") is None
        assert web.picks(3, "rr", distinct=True, exclude=["a"], wait_ms=5) == ["b", "c"]
        assert web.peek("rr") == "a"
        assert web.peeks(2, "rr", distinct=True, exclude=["a"]) == ["b", "c"]
        assert web.peek("rr", exclude=[*"abc"]) is None
        sticky = redis_lb.Sticky("alice", 60_000)
        strict = redis_lb.Sticky(b"alice", 60_000, strict=True)
        assert web.pick("rr", sticky=sticky) == "a"
        assert web.pick("rr", sticky=strict) == web.peek("rr", session="alice") == "a"
        assert web.pick("rr", sticky=strict, exclude=["a"]) is None
        assert (web.info().sessions, web.backend_stats("a").sessions) == (1, 1)
        assert (web.forget("alice"), web.forget(b"alice")) == (True, False)

        taken = web.take_leases(2, 60_000, "lc", owner="o", distinct=True, exclude=["c"], wait_ms=5)
        assert [type(lease) for lease in taken] == [Granted, Granted]
        assert [lease.backend for lease in taken] == ["a", "b"]
        leases = web.leases()
        assert leases == [
            OpenLease(lease, backend, "o", of.age_ms, of.remaining_ms)
            for (backend, lease), of in zip(taken, leases, strict=True)
        ]
        assert all(0 <= of.age_ms < 10_000 and 50_000 < of.remaining_ms < 60_100 for of in leases)
        for chosen in web.leases(backend="a", owner="o", count=1), web.leases(backend="a"):
            assert [of.lease for of in chosen] == [taken[0].lease]
        assert web.renew(taken[0].lease, 120_000) is True
        assert web.done(taken[0].lease, "OK", latency_us=9, load=0.5, cool_ms=60_000) is True
        assert web.done(taken[0].lease) is False
        assert web.renew(taken[0].lease, 1) is False
        assert web.report("b", "FAIL", latency_us=7, load=1.5, cool_ms=60_000) is True
        assert web.report("nobody") is False
        assert (web.info().cooling, web.backend_stats("b").health) == (2, "cooling")
        for name in "ab":
            # It ends their cooling: no more time may pass by itself between two looks.
            web.set_state(name, "up")
        assert web.release("o") == 1
        assert web.set_limit_of_each(costs={"tokens": (9, 9)}) is None
        assert web.picks(1, exclude=[*"abc"], costs={"tokens": 1}) == []
        assert (web.done("0-0", costs={"tokens": 1}), web.report("b", left=("tokens", 1))) == (False, True)
        assert web.when(costs={"tokens": 1}).reason == "available"
        assert web.set_limit_of_each(costs={"tokens": (0, 0)}) is None

        assert web.set_limit("a", max=20, rate=(600, 60_000), burst=30, tier=1) is None
        assert web.limit("a") == Limits(max=20, rate=600, rate_ms=60_000, burst=30, tier=1)
        assert web.limit() == Limits()
        assert web.limit("nobody") is None
        settings = HealthSettings(3, 50, 10, 2_000, 6_000, 30, 4_000, 5_000)
        assert (
            web.set_health(
                fails=3,
                failrate_percent=50,
                min=10,
                window_ms=2_000,
                eject_ms=6_000,
                maxeject_percent=30,
                slowstart_ms=4_000,
                adapt_ms=5_000,
            )
            is None
        )
        assert web.health() == settings

        assert web.queue() == QueueInfo(0, "fifo", 0, 0)
        assert web.set_queue(max=7, order="fair") is None
        assert web.queue() == QueueInfo(7, "fair", 0, 0)

        when = web.when()
        assert (type(when), when) == (When, ("available", 0))
        assert flavour.pool(flavour.client(port=server.port), "none").when() == When("empty", None)
        info = web.info()
        assert isinstance(info, PoolInfo)
        assert (info.policy, info.backends, info.leases, info.rules_version) == ("lc", 3, 0, 2)
        assert info.bytes > 100 and info.clock_ms > 1_000_000
        stats = web.stats()
        assert list(stats) == ["a", "b", "c"]
        assert isinstance(stats["a"], BackendStats)
        assert (stats["a"].rate_ms, stats["c"].back_in_ms, stats["c"].running_weight) == (60_000, None, 1.0)
        assert (stats["a"].done, stats["a"].latency_us, stats["b"].failures) == (1, 9, 1)
        assert web.backend_stats("a") == stats["a"]
        assert web.backend_stats("nobody") is None

        assert web.tick(1) is web.seed(7) is web.epoch(7) is web.rules(2) is None
        with pytest.raises(redis.ResponseError, match="payload is no pool"):
            web.load(b"\xff")
        with pytest.raises(redis.ResponseError, match="payload is no pool"):
            web.load(b"\xff", replace=True)
        server.client().echo("end")
        sent = Counter()
        words = set()
        for heard in listener.listen():
            if heard["command"].startswith("ECHO"):
                break
            # What a server writes for replicas is not shown as sent by a client.
            if heard["client_type"] == "tcp":
                name, *more = heard["command"].split(" ")
                sent[name] += 1
                words |= {(name, word) for word in more}
    assert set(COMMANDS) <= set(sent)
    options = "DISTINCT EXCLUDE STICKY STRICT LEASE OWNER COSTS BLOCK PRIO FOR COUNT".split()
    others = [("LB.PEEK", "STICKY"), ("LB.DONE", "COSTS"), ("LB.REPORT", "LEFT"), ("LB.WHEN", "COSTS")]
    others += [("LB.LIMIT", "EACH"), ("LB.LIMIT", "COST")]
    assert {("LB.PICK", option) for option in options} | {*others} <= words


def test_costs_are_limited_taken_settled_and_shown(web):
    web.set_limit_of_each(max=9, costs={"tokens": (60, 3_600_000, 500)})
    web.set_limit(costs={"tokens": (90_000, 60_000), "images": (7, 1000)})
    tokens = CostLimit(60, 3_600_000, 500)
    assert web.limit_of_each() == Limits(max=9, costs={"tokens": tokens})
    assert web.limit().costs == {"tokens": CostLimit(90_000, 60_000, 4500), "images": CostLimit(7, 1000, 1)}
    ((name, lease),) = web.take_leases(1, 60_000, costs={"tokens": 400, "images": 1})
    assert web.backend_stats(name).costs["tokens"].left in range(100, 102)
    assert web.when(costs={"images": 1}).reason == "limited"
    assert web.done(lease, costs={"tokens": 500_000})
    assert web.stats()[name].costs["tokens"].left < 0 > web.info().costs["tokens"].left
    assert web.picks(3, costs={"tokens": 1}) == []
    web.set_limit(costs={"tokens": (0, 0), "images": (0, 0)})
    other = next(backend for backend in web.list() if backend != name)
    assert web.report(other, left=("tokens", 7))
    assert web.backend_stats(other).costs["tokens"].left in range(7, 9)
    with pytest.raises(ValueError, match="limit_of_each"):
        web.set_limit_of_each()


def test_what_a_record_shows_is_what_the_server_says(web, server):
    """No field of a reply is left out, or never filled."""
    plain = server.client(protocol=2).execute_command

    def fields(reply):
        return set(reply[::2])

    def names(record):
        return {name.replace("_", "-") for name in record.__dataclass_fields__}

    # Costs are shown where one is limited.
    web.set_limit("a", costs={"tokens": (1, 1)})
    web.set_limit(costs={"tokens": (1, 1)})
    assert fields(plain("LB.STATS", "web", "a")) == names(BackendStats)
    assert fields(plain("LB.INFO", "web")) == {"clock" if n == "clock-ms" else n for n in names(PoolInfo)}
    short = {name.removesuffix("-ms").removesuffix("-percent") for name in names(HealthSettings)}
    assert fields(plain("LB.HEALTH", "web")) == short
    assert fields(plain("LB.QUEUE", "web")) == names(QueueInfo)


def test_names_of_any_bytes_come_back_as_they_went(flavour, server):
    raw = [name.encode("utf-8", "surrogateescape") for name in ODD]
    pool = flavour.pool(flavour.client(port=server.port, decode_responses=True), b"\xff key")
    assert pool.add(dict.fromkeys(raw, 3)) == 4
    assert pool.list() == ODD
    assert [pool.weight(name) for name in ODD] == [pool.weight(name) for name in raw] == [3] * 4
    assert pool.picks(4) == ODD
    # A name alone is that name, not its letters.
    assert pool.peek(exclude=ODD[0]) == pool.peek(exclude=[ODD[0]]) != pool.peek()
    with pool.lease(exclude=ODD[1:], owner=ODD[1]) as lease:
        assert lease.backend == ODD[0]
        assert [of.owner for of in pool.leases()] == [ODD[1]]


def test_a_session_stays_on_its_backend(web):
    web.set_limit("b", max=1)
    sticky = redis_lb.Sticky("alice", 60_000)
    assert web.pick("rr", exclude=["a", "c"], sticky=sticky) == "b"
    with web.lease("rr", sticky=sticky) as lease, web.lease("rr", sticky=sticky) as spilled:
        assert (lease.backend, spilled.backend) == ("b", "c")
        with pytest.raises(redis_lb.NoBackendError):
            with web.lease(sticky=redis_lb.Sticky("alice", 60_000, strict=True)):
                pass
    tried = []
    for attempt in web.attempts(2, sticky=sticky):
        with attempt as lease:
            tried.append(lease.backend)
            if len(tried) == 1:
                raise ConnectionError
    assert tried[0] == web.peek(session="alice") == "b" and tried[1] != "b"


def test_a_session_is_not_prefetched_and_has_one_shard(flavour, server):
    sharded = flavour.sharded([flavour.client(port=server.port)], "web", 4, prefetch=8)
    sharded.create({"a": 1, "b": 1, "c": 1})
    for number in range(9):
        sticky = redis_lb.Sticky(f"user-{number}", 60_000, strict=number % 2 == 0)
        backend = sharded.pick(sticky=sticky)
        assert [sharded.pick("rr", sticky=sticky) for _ in range(8)] == [backend] * 8
    assert sum(shard.info().sessions for shard in sharded.shards) == 9
    assert [sharded.forget(f"user-{number}") for number in (3, 3)] == [True, False]


def test_errors_are_those_of_redis_py(web, server):
    with pytest.raises(redis.ResponseError, match="NOBACKEND"):
        web.set_weight({"nobody": 1})
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        server.client().set("web", "x")
        web.pick()
    for nothing in (web.set_limit, web.set_health, web.set_queue):
        with pytest.raises(ValueError):
            nothing()
    with pytest.raises(ValueError, match="wait_ms"):
        web.pick(wait_ms=-1)


def test_a_package_without_the_module_says_so():
    with pytest.raises(FileNotFoundError, match="wheels for Linux carry the module"):
        redis_lb.path()


# Leases


def test_a_lease_counts_while_its_block_runs(web):
    with web.lease() as lease:
        assert (lease.backend, web.backend_stats("a").leases) == ("a", 1)
        with web.lease(exclude=["a"], owner="o") as other:  # nested
            assert other.backend == "b"
            assert [(of.backend, of.owner) for of in web.leases()] == [("a", None), ("b", "o")]
        assert web.info().leases == 1
        time.sleep(0.02)
    a = web.backend_stats("a")
    assert (a.leases, a.done, a.failures, a.latencies) == (0, 1, 0, 1)
    assert 20_000 <= a.latency_us < 60_000_000
    with pytest.raises(RuntimeError, match="has been entered"), lease:
        pass


class Cancelled(BaseException):
    """As asyncio.CancelledError and KeyboardInterrupt are."""


@pytest.mark.parametrize(
    "error, failures, failed",
    [(OSError, (Exception,), 1), (KeyError, (OSError,), 0), (Cancelled, (Exception,), 0)],
)
def test_the_error_of_a_block_says_how_the_request_went(web, error, failures, failed):
    web.set_health(fails=100)
    with pytest.raises(error), web.lease(failures=failures):
        raise error
    a = web.backend_stats("a")
    assert (a.leases, a.done, a.failures, a.latencies) == (0, 1, failed, 0)


def test_a_block_can_say_how_it_went(web, server):
    web.set_health(fails=100)
    with server.client().monitor() as listener:
        with web.lease() as lease:
            lease.fail()
        with web.lease() as lease:
            lease.latency_us, lease.load = 7, 0.25
        reports = (heard["command"] for heard in listener.listen() if heard["command"].startswith("LB.DONE"))
        assert next(reports).endswith(" FAIL")
        assert next(reports).endswith(" OK LATENCY 7 LOAD 0.250000")
    a = web.backend_stats("a")
    assert (a.done, a.failures, a.latency_sum_us) == (2, 1, 7)


def response_error(**headers):
    """As requests and httpx raise it."""
    error = OSError("429")
    error.response = types.SimpleNamespace(headers={"Retry-After": headers.get("retry_after")})
    return error


@pytest.mark.parametrize("value, least, most", [("30", 20, 30.1), (600, 500, 601)], ids=["seconds", "date"])
def test_a_retry_after_cools_the_backend(web, value, least, most):
    date = email.utils.formatdate(time.time() + int(value), usegmt=True)
    with pytest.raises(OSError, match="429"), web.lease():
        raise response_error(retry_after=value if isinstance(value, str) else date)
    a = web.backend_stats("a")
    assert (a.health, a.done, a.failures) == ("cooling", 1, 0)
    assert least * 1000 <= a.back_in_ms <= most * 1000
    with web.lease() as lease:
        assert lease.backend != "a"


def test_errors_of_urllib_tell_when_to_come_again(web):
    error = urllib.error.HTTPError(
        "http://a", 503, "busy", email.message_from_string("Retry-After: 40"), None
    )
    with pytest.raises(urllib.error.HTTPError), web.lease():
        raise error
    assert 30_000 < web.backend_stats("a").back_in_ms <= 40_100


@pytest.mark.parametrize("value", [None, "soon", "-1", "Sun, 06 Nov 1994 08:49:37 GMT", ""])
def test_a_retry_after_that_says_nothing_is_a_failure(web, value):
    web.set_health(fails=100)
    with pytest.raises(OSError, match="429"), web.lease():
        raise response_error(retry_after=value)
    assert (web.backend_stats("a").health, web.backend_stats("a").failures) == ("ok", 1)


def test_a_block_can_cool_its_backend(web):
    with web.lease() as lease:
        lease.cool(60_000)
        lease.retry_after("1")  # never shorter
    a = web.backend_stats("a")
    assert (a.health, a.failures) == ("cooling", 0)
    assert a.back_in_ms > 50_000


@two_servers
def test_leases_that_have_ended_are_not_kept(flavour, server):
    """Though they would have been renewed in an hour only."""
    pool = flavour.pool(flavour.client(port=server.port), "web")
    pool.add("a")
    with pool.lease(ttl_ms=3_600_000) as open_one:
        ended = []
        for _ in range(200):
            with pool.lease(ttl_ms=3_600_000) as lease:
                pass
            ended.append(weakref.ref(getattr(lease, "of", lease)))
        del lease
        eventually(lambda: sum(of() is not None for of in ended) <= 2)
        assert open_one.id in [of.lease for of in pool.leases()]


@two_servers
def test_a_lease_renews_itself(flavour, server):
    pool = a_pool(flavour, server)
    with pool.lease(ttl_ms=4_500) as lease:
        eventually(lambda: renewed(pool, 4_500) == 1)
        with pytest.raises(NoBackendError) as nobody, pool.lease(wait_ms=1):
            pass
        assert nobody.value.reason == "limited" and nobody.value.ms <= 4_520
        assert not lease.is_lost
        # The next one says when it has been ended.
        pool.set_state("a", "down")
        eventually(lambda: lease.is_lost)
    assert pool.backend_stats("a").leases == 0


def test_nobody_free_says_why(web):
    for name in "abc":
        web.set_state(name, "drain")
    with (
        pytest.raises(NoBackendError, match="no backend of 'web' can be picked: drained") as nobody,
        web.lease(),
    ):
        pass
    assert (nobody.value.reason, nobody.value.ms) == ("drained", None)


# Attempts


def test_attempts_go_elsewhere(web):
    web.set_health(fails=100)
    tried = []
    for attempt in web.attempts(3):
        with attempt as lease:
            tried.append(lease.backend)
            if len(tried) < 3:
                raise OSError
    assert tried == ["a", "b", "c"]
    stats = web.stats()
    assert [(stats[name].done, stats[name].failures) for name in "abc"] == [(1, 1), (1, 1), (1, 0)]


def test_the_last_attempt_raises_its_error(web):
    def request(most, **terms):
        for attempt in web.attempts(most, **terms):
            with attempt as lease:
                raise OSError(lease.backend)

    with pytest.raises(OSError, match="b"):
        request(2)
    # With more attempts than backends, each backend is tried once.
    with pytest.raises(OSError) as error:
        request(9)
    assert isinstance(error.value.__cause__, NoBackendError)
    assert sum(of.done for of in web.stats().values()) == 2 + 3
    # What is no failure is not tried again.
    with pytest.raises(OSError):
        request(2, failures=(KeyError,))
    assert sum(of.done for of in web.stats().values()) == 2 + 3 + 1
    with pytest.raises(NoBackendError):
        request(2, exclude=[*"abc"])
    assert web.info().leases == 0


# Waiting


@two_servers
def test_a_pick_waits_longer_than_the_timeouts(flavour, server, open_leases):
    """The trap: a client with a timeout below BLOCK that tries again. Here it takes one lease, on its own."""
    trap = flavour.client(port=server.port, socket_timeout=0.1, retry=flavour.retry(10))
    pool = flavour.pool(trap, "web", timeout_ms=2_000, fallback_ms=0)
    held = a_pool(flavour, server).take_leases(1, 60_000)[0]
    with ThreadPoolExecutor(1) as threads:

        def later():
            time.sleep(2.2)
            return server.client().execute_command("LB.DONE", "web", held.lease)

        ended = threads.submit(later)
        with pool.lease(wait_ms=60_000) as lease:
            assert ended.result() == 1
            assert open_leases() == 1
            assert lease.id != held.lease
    assert open_leases() == 0
    assert pool.backend_stats("a").picks == 2

    (held,) = pool.take_leases(1, 60_000)
    start = time.monotonic()
    with pytest.raises(NoBackendError, match="limited"), pool.lease(wait_ms=400):
        pass
    assert 0.4 <= time.monotonic() - start
    assert pool.pick(wait_ms=150) is None
    assert server.client().info("clients")["blocked_clients"] == 0


@two_servers
def test_a_lease_is_not_asked_for_when_its_time_is_over(flavour, server):
    """The process was held up while it connected. Nobody would use the lease."""

    class Slow(redis.Connection):
        def connect(self):
            super().connect()
            time.sleep(0.3)

    class AsyncSlow(redis.asyncio.Connection):
        async def connect(self):
            await super().connect()
            time.sleep(0.3)

    quick = flavour.pool(flavour.client(port=server.port), "web")
    quick.add("a")
    client = flavour.client(port=server.port)
    client.connection_pool.connection_class = Slow if flavour.name == "sync" else AsyncSlow
    pool = flavour.pool(client, "web", timeout_ms=200, fallback_ms=0)
    with pytest.raises(redis.TimeoutError), pool.lease():
        pass
    assert quick.backend_stats("a").picks == 0


@two_servers
def test_the_place_of_a_wait_is_that_of_the_caller(flavour, server):
    pool = a_pool(flavour, server)
    pool.set_limit(max=1)
    pool.set_queue(max=2)
    (held,) = pool.take_leases(1, 60_000)
    served = []

    def waiting(number):
        with pool.lease(wait_ms=60_000, prio=number, tenant="t"):
            served.append(number)

    with ThreadPoolExecutor(3) as threads:
        last = threads.submit(waiting, 9)
        eventually(lambda: pool.queue().waiting == 1)
        later = threads.submit(waiting, 7)
        eventually(lambda: pool.queue().waiting == 2)
        with pytest.raises(redis_lb.QueueFullError, match="QUEUEFULL"):
            pool.pick(wait_ms=1_000, prio=9)
        first = threads.submit(waiting, 5)
        with pytest.raises(redis_lb.QueueFullError):
            last.result()
        pool.done(held.lease)
        later.result()
        first.result()
    assert served == [5, 7]
    assert pool.queue().waiting == 0


@two_servers
def test_a_pick_of_a_number_waits_a_little_so_that_it_passes_nobody(flavour, server):
    """To a server one that does not wait is of number 0. Shards are asked without waiting, too."""
    client = flavour.client(port=server.port)
    for pool in flavour.pool(client, "web"), flavour.sharded([client], "fleet", 2):
        with server.client() as observer, observer.monitor() as monitor:
            assert pool.pick(prio=3, tenant="t") is None
            assert pool.pick(tenant="t") is None
            server.client().echo("end")
            places = set()
            while not (heard := monitor.next_command()["command"]).startswith("ECHO"):
                if heard.startswith("LB.PICK"):
                    places.add(heard.partition(" ")[2].partition(" ")[2])
        assert places == {"BLOCK 1 PRIO 3 FOR t", ""}


@two_servers
def test_many_wait_at_once(flavour, server):
    """More than the connections that a client of redis-py allows itself."""
    pool = a_pool(flavour, server)

    def request(_):
        with pool.lease(wait_ms=60_000) as lease:
            return lease.backend

    with ThreadPoolExecutor(150) as threads:
        assert Counter(threads.map(request, range(300))) == {"a": 300}
    a = pool.backend_stats("a")
    assert (a.leases, a.done, a.picks) == (0, 300, 300)


# Without Redis


@two_servers
@pytest.mark.parametrize("protocol", [2, 3])
def test_picks_go_on_without_the_server_and_with_it_again(flavour, new_server, local_time, protocol):
    server = new_server(appendonly="yes", appendfsync="always")
    client = flavour.client(port=server.port, protocol=protocol)
    pool = flavour.pool(client, "web", retry_ms=50, refresh_ms=1)
    pool.add({"a": 5, "b": 1, "c": 1, "quiesced": 0, "failed": 9, "spare": 3})
    pool.set_state("failed", "down")
    pool.set_limit("spare", tier=1)
    assert [pool.pick() for _ in range(7)] == list("aabacaa")

    server.kill()
    assert [pool.pick() for _ in range(3)] == list("aab"), "an order of its own"
    assert pool.is_away
    server.start()
    eventually(lambda: not pool._memory.rests)
    assert [pool.pick() for _ in range(2)] == list("aa"), "the shared one goes on"
    server.kill()
    assert [pool.pick() for _ in range(4)] == list("acaa"), "so does its own"
    with ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(lambda _: pool.pick(), range(700))) == {"a": 500, "b": 100, "c": 100}
    assert {pool.pick(exclude=[b"a", "b"]) for _ in range(5)} == {"c"}
    assert {pool.pick(exclude=[*"abc"]) for _ in range(5)} == {"spare"}
    assert pool.pick(exclude=["a", "b", "c", "spare"]) is None
    with pool.lease(exclude=["a", "b"]) as lease:
        assert (lease.backend, lease.id) == ("c", None)
    with pytest.raises(NoBackendError, match="unknown"), pool.lease(exclude=["a", "b", "c", "spare"]):
        pass

    # Weights and members that changed are known the next time.
    server.start()
    server.client().execute_command("LB.SET", "web", "a", 1, "c", 1, "new", 2)
    eventually(lambda: not pool._memory.rests)
    local_time.add(
        10_000
    )  # it waits a hundred times as long as the last look took, if the machine stood still
    eventually(lambda: pool.pick() and "new" in pool._memory._backends)
    items = ["item", b"\0\xff", *(f"user:{number}" for number in range(40))]
    homes = [pool.pick(redis_lb.Hash(item)) for item in items]
    assert {*homes} == {"a", "c", "new"} and homes == [pool.peek(redis_lb.Hash(item)) for item in items]
    server.kill()
    assert [pool.pick(redis_lb.Hash(item)) for item in items] == homes
    with pool.lease(redis_lb.Hash("item")) as lease:
        assert (lease.backend, lease.id) == (homes[0], None)
    assert "a" not in {pool.pick(redis_lb.Hash(item), exclude=["a"]) for item in items}
    assert Counter(pool.pick() for _ in range(400)) == {"a": 100, "c": 100, "new": 200}


def test_hash_sends_items_where_the_published_vectors_say():
    vectors = json.loads((Path(__file__).parents[1] / "data" / "hash" / "vectors.json").read_text())
    for text, expected in vectors["hashes"]:
        assert affinity.xxh3_64(bytes.fromhex(text)) == int(expected, 16)
    for first, expected in vectors["times"]:
        assert affinity.time(int(first, 16)) == int(expected, 16)
    for case in vectors["pools"]:
        for item, order in case["items"].items():
            left = dict(case["weights"])
            for name in order:
                assert affinity.winner(item.encode(), left) == name
                del left[name]
            assert affinity.winner(item.encode(), left) is None


@two_servers
def test_a_pool_that_takes_long_to_read_has_no_local_picks(flavour, new_server):
    server = new_server()
    pool = flavour.pool(flavour.client(port=server.port), "web")
    pool.add({f"b{number}": 1 for number in range(1_000)})
    assert pool.pick() and pool._memory.can_go_alone
    pool.add("one more")
    pool = flavour.pool(flavour.client(port=server.port), "web")
    assert pool.pick() and not pool._memory.can_go_alone
    server.kill()
    with pytest.raises(redis.ConnectionError):
        pool.pick()


@two_servers
def test_local_picks_end_after_their_time(flavour, new_server, local_time):
    server = new_server()
    pool = flavour.pool(flavour.client(port=server.port), "web", fallback_ms=60_000, retry_ms=10)
    never = flavour.pool(flavour.client(port=server.port), "web", fallback_ms=0)
    pool.add("a")
    assert pool.pick() == never.pick() == "a"
    server.kill()
    with pytest.raises(redis.ConnectionError):
        never.pick()
    assert pool.pick() == "a"
    local_time.add(60)
    with pytest.raises(redis.ConnectionError):
        pool.pick()
    with pytest.raises(redis.ConnectionError), pool.lease():
        pass


def test_one_caller_finds_out_whether_the_server_is_back(local_time):
    memory = Memory(retry_ms=300_000, refresh_ms=1, fallback_ms=600_000)
    memory.answered()
    memory.learn({"a": BackendStats(weight=1, state="up", picks=0)}, took_s=0)
    memory.failed()
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: memory.goes_alone(), range(80)))
        local_time.add(300)
        assert not memory.rests
        assert list(threads.map(lambda _: memory.goes_alone(), range(80))).count(False) == 1


def test_reading_the_backends_takes_a_hundredth_of_the_time(monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(local, "time", types.SimpleNamespace(monotonic=lambda: now))
    memory = Memory(retry_ms=100, refresh_ms=1, fallback_ms=60_000)
    assert memory.wants_refresh()
    memory.learn({}, took_s=0.001)
    now += 0.099
    assert not memory.wants_refresh()
    now += 0.002
    assert memory.wants_refresh() and not memory.wants_refresh()


@two_servers
def test_what_the_server_says_is_not_replaced(flavour, server):
    pool = flavour.pool(flavour.client(port=server.port), "web")
    assert pool.pick() is None
    pool.add("a")
    assert pool.pick() == "a"
    server.client().set("web", "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        pool.pick()
    newcomer = flavour.pool(flavour.client(port=free_port()), "web")
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            newcomer.pick()


@two_servers
@pytest.mark.needs("6.2", "ACL")
def test_a_gateway_that_may_not_read_the_backends_has_no_local_picks(flavour, new_server):
    server = new_server()
    server.client().execute_command("LB.ADD web a")
    server.client().execute_command("ACL SETUSER gateway on >secret -@all +lb.pick +lb.done +lb.card ~web")
    client = flavour.client(port=server.port, username="gateway", password="secret")
    pool = flavour.pool(client, "web")
    with pool.lease() as lease:
        assert lease.backend == pool.pick() == "a"
    server.kill()
    with pytest.raises(redis.ConnectionError):
        pool.pick()


@two_servers
def test_a_primary_that_has_too_few_replicas_is_away(flavour, new_server):
    """Its replicas may follow another one. So it is not asked again over the same connection."""
    server = new_server()
    client = flavour.client(port=server.port)
    pool = flavour.pool(client, "web", retry_ms=50)
    never = flavour.pool(client, "web", fallback_ms=0)
    pool.add("a")
    with pool.lease() as held:
        server.client().config_set("min-replicas-to-write", 1)
        assert pool.pick() == "a" and pool.is_away
        with pool.lease() as lease:
            assert (lease.backend, lease.id) == ("a", None)
        with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
            never.pick()
        observer = server.client()
        eventually(lambda: len(observer.client_list()) == 1)
        observer.config_set("min-replicas-to-write", 0)
        eventually(lambda: pool.pick() == "a" and not pool.is_away)
        assert not held.is_lost
    eventually(lambda: pool.info().leases == 0)


@two_servers
@pytest.mark.parametrize("known", [True, False])
def test_a_server_that_hangs_costs_a_request_one_timeout(flavour, new_server, asked, known):
    """And leaves leases that end by their deadline."""
    server = new_server()
    server.client().execute_command("LB.ADD web a 1 b 1")
    client = flavour.client(port=server.port)
    pool = flavour.pool(client, "web", timeout_ms=1_000, fallback_ms=600_000 * known, retry_ms=600_000)

    def request(_):
        try:
            with pool.lease(ttl_ms=500):
                pass
        except redis.TimeoutError:
            return "timeout"

    eventually(lambda: request(0) is None)
    asked.clear()
    server.pause()
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(request, range(8)))
        assert ends == [None if known else "timeout"] * 8
        # Each command costs a timeout. Those that have nothing but the server send one each. Of the others
        # some send one, until the first has found out.
        assert 1 <= len(asked) <= 8 and (known or asked == ["LB.PICK"] * 8)
        assert 0.9 < time.monotonic() - begun < 20
        asked.clear()
        list(threads.map(request, range(8 if known else 0)))
    assert asked == []
    server.go_on()
    eventually(lambda: flavour.pool(client, "web").info().leases == 0)
    assert pool.pick() in ("a", "b")


@two_servers
def test_a_server_that_hangs_while_a_block_runs_costs_one_timeout(flavour, new_server, asked):
    """Each command costs a timeout: so they are counted."""
    server = new_server()
    client = flavour.client(port=server.port)
    patient = flavour.pool(client, "web")
    patient.add("a")
    pool = flavour.pool(client, "web", retry_ms=600_000)
    with pool.lease(ttl_ms=60_000):
        server.pause()
        pool._link._timeout_s = 0.3  # not before: only a server that hangs shall look like one
        start = time.monotonic()
        asked.clear()
    assert 0.25 < time.monotonic() - start < 20
    with pool.lease() as lease:
        assert lease.id is None
    assert asked == ["LB.DONE"]
    server.go_on()
    eventually(patient.pick)

    # One that has found out already does not wait again.
    pool = flavour.pool(client, "web", retry_ms=600_000)
    with pool.lease(ttl_ms=60_000) as held:
        server.pause()
        pool._link._timeout_s = 0.3
        asked.clear()
        with pytest.raises(NoBackendError, match="unknown"), pool.lease(exclude="a"):
            pass
        assert pool.pick() == "a"
    assert asked == ["LB.PICK"]
    server.go_on()
    # The server has read the first report after all. The second lease would end in its time.
    eventually(lambda: [of.lease for of in patient.leases()] == [held.id])


# Prefetching


@two_servers
def test_prefetched_picks_are_each_used_once(flavour, server):
    gateways = [
        flavour.pool(flavour.client(port=server.port), "web", prefetch=20, prefetch_ms=600_000)
        for _ in range(3)
    ]
    gateways[0].add({"a": 5, "b": 3, "c": 2})
    sequence = gateways[0].peeks(5_000)
    picks = [random.choice(gateways).pick() for _ in range(900)]
    held = [name for gateway in gateways for name in gateway._ahead._picks]
    assert len(held) < 60
    assert Counter(picks) + Counter(held) == Counter(sequence[: 900 + len(held)])
    # By another algorithm, without some, or with a lease, picks are made when they are asked for.
    before = gateways[0].info().picks
    assert gateways[0].pick("rr") == "a"
    assert gateways[0].pick(exclude=["a"]) in "bc"
    with gateways[0].lease():
        assert gateways[0].info().picks == before + 3


@two_servers
def test_prefetched_picks_do_not_grow_old(flavour, server, local_time):
    pool = flavour.pool(flavour.client(port=server.port), "web", prefetch=100, prefetch_ms=60_000)
    assert pool.pick() is None, "an empty pool"
    pool.add("a")
    assert pool.pick() == "a"
    pool.set({"b": 1})
    assert pool.pick() == "a"
    local_time.add(60)
    assert pool.pick() == "b"


# Shards


EQUAL = {f"b{i}": 1 for i in range(10)}
MIXED = {f"b{i}": i for i in range(1, 11)}


def deviation(picks, weights):
    """How far any backend ever was from its share, in picks."""
    total, so_far, most = sum(weights.values()), Counter(), 0.0
    for number, name in enumerate(picks, 1):
        so_far[name] += 1
        most = max(most, max(abs(so_far[of] - number * weight / total) for of, weight in weights.items()))
    return most


@two_servers
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("weights", [EQUAL, MIXED], ids=["equal", "mixed"])
def test_shares_hold_over_shards(flavour, server, weights, k):
    client = flavour.client(port=server.port)
    gateways = [flavour.sharded([client], "web", k, fallback_ms=0) for _ in range(4)]
    gateways[0].create(weights)
    picks = [random.choice(gateways).pick() for _ in range(1_000)]
    # One shard is at most one pick off, in whatever order they are asked.
    assert deviation(picks, weights) < 2 * k
    shards = gateways[0].shards
    period = sum(weights.values())
    assert sum(shard.info().picks for shard in shards) == 1_000 + sum(period * i // k for i in range(k))
    for shard in shards:
        shard.set_weight({"b1": 0})
    assert "b1" not in [random.choice(gateways).pick() for _ in range(200)]


@two_servers
def test_shards_help_each_other(flavour, server):
    pool = flavour.sharded([flavour.client(port=server.port)], "web", 3)
    pool.create({"a": 1})
    for shard in pool.shards:
        shard.set_limit(max=1)
    with pool.lease(), pool.lease(), pool.lease():
        assert [shard.info().leases for shard in pool.shards] == [1, 1, 1]
        assert pool.pick() is None
        with pytest.raises(NoBackendError, match="limited"), pool.lease(wait_ms=20):
            pass
    for attempt in pool.attempts(2):
        with attempt as lease:
            assert lease.backend == "a"
    assert [shard.info().leases for shard in pool.shards] == [0, 0, 0]


@two_servers
def test_a_shard_whose_server_is_away_is_skipped(flavour, server, new_server):
    other = new_server()
    clients = [flavour.client(port=port) for port in (server.port, other.port)]
    pool = flavour.sharded(clients, "web", 4, retry_ms=60_000)
    pool.create(EQUAL)
    for _ in range(8):
        pool.pick()
    other.kill()
    assert all(pool.pick() for _ in range(4))
    assert [shard.is_away for shard in pool.shards] == [False, True, False, True]
    before = sum(shard.info().picks for shard in pool.shards[::2])
    picks = [pool.pick() for _ in range(500)]
    assert sum(shard.info().picks for shard in pool.shards[::2]) == before + 500
    assert deviation(picks, EQUAL) < 2 * 2


# Processes, threads and tasks


HOLDER = """
import sys, time, redis, redis_lb
pool = redis_lb.Pool(redis.Redis(port=int(sys.argv[1])), "web", timeout_ms=30_000)
with pool.lease(ttl_ms=3_000, owner="holder"):
    print(flush=True)
    time.sleep(600)
"""


def renewed(pool, ttl_ms):
    """How many leases will end later than their first time allowed. It is renewed after a third of it."""
    return sum(of.age_ms + of.remaining_ms > ttl_ms * 7 / 6 for of in pool.leases())


def program(text, *arguments):
    """A Python of its own."""
    command = [*BOUND, sys.executable, "-c", text, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(redis_lb.__file__).parents[1])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@two_servers
def test_a_process_that_is_killed_holds_nothing(server, open_leases):
    server.client().execute_command("LB.ADD web a")
    holder = program(HOLDER, server.port)
    try:
        assert holder.stdout.readline() == "\n"
        eventually(lambda: renewed(redis_lb.Pool(server.client(), "web", timeout_ms=30_000), 3_000) == 1)
    finally:
        holder.kill()
        holder.communicate()
    eventually(lambda: open_leases() == 0)


FORKS = """
import os, sys, redis, redis_lb
client = redis.Redis(port=int(sys.argv[1]), protocol=3)
pool = redis_lb.Pool(client, "web", prefetch=50, timeout_ms=30_000)
pool.pick()
with pool.lease(ttl_ms=3_000, owner="parent") as lease:
    child = os.fork()
    if child == 0:
        with pool.lease(ttl_ms=3_000, owner="child"):
            print(sorted(of.owner for of in pool.leases()), len(pool._ahead._picks))
    else:
        os.waitpid(child, 0)
        print([of.owner for of in pool.leases()])
"""


UNTIL_RENEWED = """while sum(of.age_ms + of.remaining_ms > 3_500 for of in pool.leases()) < 2:
                __import__("time").sleep(0.05)
"""


@two_servers
def test_a_child_of_a_fork_leaves_the_leases_of_its_parent(server, open_leases):
    server.client().execute_command("LB.ADD web a")
    forked = program(FORKS, server.port)
    out, _ = forked.communicate(timeout=100)
    assert forked.returncode == 0
    assert out.splitlines() == ["['child', 'parent'] 0", "['parent']"]
    assert redis_lb.Pool(server.client(), "web", timeout_ms=30_000).backend_stats("a").done == 2
    assert open_leases() == 0


@two_servers
def test_a_child_of_a_fork_renews_its_own_leases(server, open_leases):
    server.client().execute_command("LB.ADD web a")
    text = FORKS.replace("print(sorted", UNTIL_RENEWED + "            print(sorted")
    out, _ = program(text, server.port).communicate(timeout=100)
    assert out.splitlines() == ["['child', 'parent'] 0", "['parent']"]


@two_servers
def test_threads_share_a_pool(flavour, server):
    pool = flavour.pool(flavour.client(port=server.port), "web", prefetch=7)
    pool.add({"a": 5, "b": 3, "c": 2})
    pool.set_limit(max=5)

    def request(number):
        pool.pick()
        with pool.lease(wait_ms=60_000, ttl_ms=3_000) as lease:
            if number == 0:
                eventually(lambda: renewed(pool, 3_000) == 1)
            if number % 10 == 1:
                lease.fail()

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(request, range(600)))
    stats = pool.stats().values()
    assert sum(of.done for of in stats) == 600
    assert sum(of.failures for of in stats) == 60
    assert sum(of.leases + of.expired for of in stats) == 0


@two_servers
def test_tasks_that_are_cancelled_hold_nothing(new_server):
    """At any moment: while they wait for a lease, are given it, hold it, end it."""
    server = new_server()
    chance = random.Random(1)

    async def request(pool):
        async with pool.lease(ttl_ms=60_000, wait_ms=chance.choice([0, 50, 60_000])):
            await asyncio.sleep(chance.random() / 200)

    async def main():
        async with redis.asyncio.Redis(port=server.port) as client:
            pool = redis_lb.asyncio.Pool(client, "web", timeout_ms=30_000)
            await pool.add({"a": 1, "b": 1})
            await pool.set_limit(max=3)
            ended = Counter()
            for _ in range(40):
                tasks = [asyncio.create_task(request(pool)) for _ in range(20)]
                for task in tasks:
                    await asyncio.sleep(chance.random() / 1_000)
                    if chance.random() < 0.7:
                        task.cancel()
                for task in tasks:
                    try:
                        await asyncio.wait_for(task, 50)
                        ended["well"] += 1
                    except asyncio.CancelledError:
                        ended["cancelled"] += 1
                    except NoBackendError:
                        ended["nobody"] += 1
            for _ in range(2_000):
                info = await pool.info()
                blocked = (await client.info("clients"))["blocked_clients"]
                if info.leases == blocked == 0:
                    break
                await asyncio.sleep(0.01)
            assert (info.leases, blocked) == (0, 0), "long before the minute that a lease lasts"
            stats = await pool.stats()
            assert sum(of.expired for of in stats.values()) == 0
            assert all(count > 50 for count in ended.values()) and len(ended) == 3, ended

    asyncio.run(main())


def on_a_loop(server, use):
    """Runs `use` with a pool of one backend."""

    async def main():
        async with redis.asyncio.Redis(port=server.port) as client:
            pool = redis_lb.asyncio.Pool(client, "web", timeout_ms=30_000)
            await pool.add("a")
            await use(pool)

    asyncio.run(main())


@two_servers
def test_a_timeout_over_a_block_ends_its_lease(new_server):
    async def use(pool):
        is_in = asyncio.Event()

        async def request():
            async with pool.lease():
                is_in.set()
                await asyncio.sleep(600)

        task = asyncio.create_task(request())
        await is_in.wait()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(task, 0.2)
        a = await pool.backend_stats("a")
        assert (a.leases, a.done, a.failures) == (0, 1, 0)

    on_a_loop(new_server(), use)


@two_servers
def test_a_task_that_is_cancelled_at_the_end_of_a_block_reports_it(new_server):
    async def use(pool):
        async def request():
            async with pool.lease(ttl_ms=60_000):
                asyncio.current_task().cancel()  # at the next await, which is the report

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(request())
        for _ in range(6_000):
            if (a := await pool.backend_stats("a")).leases == 0:
                break
            await asyncio.sleep(0.01)
        assert (a.leases, a.done) == (0, 1)

    on_a_loop(new_server(), use)


# Clusters and Sentinels


@pytest.fixture
def pair(new_server):
    """A cluster of two primaries, and a replica of the first."""
    options = {"cluster_enabled": "yes", "cluster_node_timeout": 6000, "cluster_require_full_coverage": "no"}
    nodes = [new_server(**options) for _ in range(3)]
    first, second, replica = (node.client() for node in nodes)
    # Nodes that find out that their epochs are equal take greater ones, by which an old claim to a slot wins.
    for epoch, client in enumerate((first, second, replica), 1):
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
    first.execute_command("CLUSTER ADDSLOTS", *range(8192))
    second.execute_command("CLUSTER ADDSLOTS", *range(8192, 16384))
    for client in (second, replica):
        client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port)
    ids = [client.execute_command("CLUSTER MYID") for client in (first, second, replica)]

    def all_know(wanted):
        return all(wanted in str(node.client().execute_command("CLUSTER NODES")) for node in nodes)

    eventually(lambda: all(all_know(id) for id in ids))
    eventually(lambda: replica.execute_command("CLUSTER REPLICATE", ids[0]))
    eventually(lambda: all(node.client().cluster("info")["cluster_state"] == "ok" for node in nodes))
    eventually(lambda: replica.info("replication")["master_link_status"] == "up")
    return nodes, ids


@pytest.fixture
def flavours():
    flavours = [Flavour(name) for name in FLAVOURS]
    yield flavours
    for flavour in flavours:
        flavour.close()


@two_servers
def test_a_pool_in_a_cluster_is_found_where_it_moves(flavours, pair):
    nodes, ids = pair
    first, second, replica = (node.client() for node in nodes)
    clusters = [flavour.cluster(host="127.0.0.1", port=nodes[1].port) for flavour in flavours]
    keys = ["{1}sync", "{1}asyncio"]  # in slot 9842, of the second node
    pools = [
        flavour.pool(cluster, key, retry_ms=50)
        for flavour, cluster, key in zip(flavours, clusters, keys, strict=True)
    ]
    with contextlib.ExitStack() as held:
        for pool in pools:
            pool.add({"a": 1, "b": 1})
            assert held.enter_context(pool.lease(ttl_ms=60_000, wait_ms=1_000)).backend == "a"
        # The slot is on its way: the keys are asked for at their new place.
        slot = first.execute_command("CLUSTER KEYSLOT", keys[0])
        first.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[1])
        second.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[0])
        second.execute_command("MIGRATE", "127.0.0.1", nodes[0].port, "", 0, 5000, "KEYS", *keys)
        for pool in pools:
            with pool.lease(wait_ms=1_000) as lease:
                assert lease.backend == "b"
        for client in (first, second):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[0])
        # It has moved.
        for pool in pools:
            with pool.lease(wait_ms=1_000) as lease:
                assert lease.backend == "a"
    for pool in pools:
        assert sum(of.done for of in pool.stats().values()) == 3
        assert pool.info().leases == 0 and not pool.is_away

    # Their primary dies, and the replica takes over, as soon as it knows of the slot.
    in_step([nodes[0], nodes[2]])
    eventually(lambda: [str(slot)] in replica.cluster("nodes")[f"127.0.0.1:{nodes[0].port}"]["slots"])
    nodes[0].kill()
    assert all(pool.pick() and pool.is_away for pool in pools), "by itself"
    replica.execute_command("CLUSTER FAILOVER", "TAKEOVER")
    for pool in pools:
        eventually(lambda pool=pool: pool.pick() and not pool.is_away)
        with pool.lease(wait_ms=1_000) as lease:
            assert lease.id is not None


@two_servers
def test_shards_by_a_client_of_a_cluster(flavours, pair):
    nodes, _ = pair
    for number, flavour in enumerate(flavours, 1):
        pool = flavour.sharded([flavour.cluster(host="127.0.0.1", port=nodes[0].port)], flavour.name, 4)
        pool.create(MIXED)
        assert deviation([pool.pick() for _ in range(300)], MIXED) < 2 * 4
        assert [node.client().dbsize() for node in nodes[:2]] == [2 * number, 2 * number]


@two_servers
def test_a_pool_behind_sentinels_is_found_after_a_failover(flavours, new_server):
    sentinels = Sentinels(new_server)
    primary = sentinels.nodes[0]
    places = [("127.0.0.1", sentinel.port) for sentinel in sentinels.sentinels]
    pools = [flavour.pool(flavour.master(places, NAME), flavour.name, retry_ms=50) for flavour in flavours]
    with contextlib.ExitStack() as held:
        for pool in pools:
            pool.add({"a": 1, "b": 1})
            assert pool.pick() == "a"
            assert held.enter_context(pool.lease(ttl_ms=60_000, wait_ms=1_000)).backend == "b"
        in_step(sentinels.nodes)
        primary.kill()
        assert all(pool.pick() and pool.is_away for pool in pools), "by itself"
        for pool in pools:
            eventually(lambda pool=pool: pool.pick() and not pool.is_away)
        eventually(lambda: sentinels.primary() not in (None, primary))
    for pool in pools:
        assert pool.info().leases == 0
        assert pool.backend_stats("b").done == 1


@two_servers
def test_a_primary_that_becomes_a_replica_ends_a_wait(flavour, new_server):
    server = new_server()
    pool = a_pool(flavour, server)
    with ThreadPoolExecutor(1) as threads, pool.lease():

        def request():
            with pool.lease(wait_ms=60_000) as lease:
                return lease.id

        waits = threads.submit(request)
        eventually(lambda: server.client().info("clients")["blocked_clients"] == 1)
        server.client().execute_command("REPLICAOF", "127.0.0.1", free_port())
        assert waits.result(60) is None, "a local pick"


@pytest.mark.once("Debian's server has TLS")
def test_a_pool_goes_where_its_client_goes_by_tls(flavour, new_server, tmp_path):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        certificate,
        *name,
    ]
    subprocess.run(made, check=True, capture_output=True)
    port = free_port()
    server = new_server(
        tls_port=port, tls_cert_file=certificate, tls_key_file=key, tls_ca_cert_file=certificate
    )
    trust = {"ssl": True, "ssl_ca_certs": str(certificate)}
    own = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    pool = a_pool(flavour, types.SimpleNamespace(port=port), of=trust | own)
    with ThreadPoolExecutor(1) as threads, pool.lease() as held:

        def request():
            with pool.lease(wait_ms=60_000) as lease:
                return lease.id

        waits = threads.submit(request)
        eventually(lambda: server.client().info("clients")["blocked_clients"] == 1)
        pool.done(held.id)
        assert waits.result(60) not in (None, held.id)
    assert server.client().execute_command("LB.CARD", "web") == 1


@two_servers
@pytest.mark.parametrize("kind", ["unix", "url"])
def test_a_pool_goes_where_its_client_goes(flavour, new_server, kind, tmp_path):
    server = new_server(unixsocket=tmp_path / "socket", requirepass="secret")
    options = {"unix": {"unix_socket_path": str(tmp_path / "socket")}, "url": {"port": server.port}}[kind]
    pool = flavour.pool(flavour.client(password="secret", db=3, **options), "web")
    pool.add("a")
    with pool.lease(wait_ms=100) as lease:
        assert lease.backend == "a"
    assert server.client(db=3).execute_command("LB.CARD", "web") == 1
