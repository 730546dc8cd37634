"""Health on real servers: reports of a whole fleet, in time that LB.TICK makes, the same state everywhere.

Each test ends by holding the pool on the primary against its replica, its RDB file and its AOF. The rules
alone are held against a naive form in tests/core.
"""

import heapq
import random
import re
from collections import Counter
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

import callgrind
from conftest import module
from replication import in_step, is_linked, replica_of
from server import SECONDS, eventually, waiting
from waiter import Waiter
from wire import Refused, Wire, dict_of, pack, words

TEN = " ".join(f"b{number} 1" for number in range(10))
STEP = 10
SPAN = 600_000


class Fleet:
    """Gateways at a primary, whose time they make, with a replica."""

    def __init__(self, wire, seed=1):
        self.wire = wire
        self.now = 1000
        self.chance = random.Random(seed)
        self.ends = []
        self.sent = Counter()
        self.failed = Counter()
        self.nil = 0

    def ask(self, command):
        """A command that is not refused."""
        answer = self.wire.ask(command)
        assert not isinstance(answer, Refused), (command, answer)
        return answer

    def add(self, members):
        """A pool with these members, whose clock runs."""
        self.ask(f"LB.ADD web {members}")
        self.till(self.now)

    def info(self, field):
        return dict_of(self.ask("LB.INFO web"))[field.encode()]

    def stats(self, backend, field):
        return dict_of(self.ask(f"LB.STATS web {backend}"))[field.encode()]

    def till(self, time):
        """It is that time now."""
        self.now = time
        self.ask(f"LB.TICK web {time}")

    def lease(self, algorithm="", span=SPAN, gateway=0):
        """A backend and the lease on it, or None."""
        picked = self.ask(f"LB.PICK web {algorithm} LEASE {span} OWNER g{gateway}")
        return picked and (picked[0].decode(), picked[1].decode())

    def run(self, millis, served, algorithm="", gateways=1, every=1, pause=STEP):
        """Requests of all gateways for that time: `every` of them each `pause`.

        `served` says for a backend and the time whether a request succeeds and how long it takes. Yields
        after each report: the backend, and whether it was well.
        """
        end = self.now + millis
        while self.now < end:
            self.till(self.now + pause)
            while self.ends and self.ends[0][0] <= self.now:
                _, _, backend, lease, well, took = heapq.heappop(self.ends)
                word = "OK" if well else "FAIL"
                assert self.ask(f"LB.DONE web {lease} {word} LATENCY {took * 1000}") == 1
                self.failed[backend] += not well
                yield backend, well
            for _ in range(every):
                picked = self.lease(algorithm, gateway=self.chance.randrange(gateways))
                if picked is None:
                    self.nil += 1
                    continue
                backend, lease = picked
                self.sent[backend] += 1
                well, took = served(backend, self.now)
                entry = (self.now + took, sum(self.sent.values()), backend, lease, well, took)
                heapq.heappush(self.ends, entry)

    def spend(self, *args, **options):
        """The same, with no look at the reports."""
        for _ in self.run(*args, **options):
            pass


@pytest.fixture
def fleet(new_server):
    """A fleet whose pool is the same on all ways at the end."""
    options = {"module_args": ["clock", "manual"], "appendonly": "yes", "appendfsync": "no"}
    primary = new_server(**options)
    replica = new_server(**options, **replica_of(primary))
    eventually(lambda: is_linked(replica))
    with ExitStack() as stack:
        fleet = Fleet(stack.enter_context(Wire(primary.port)))
        fleet.server = primary
        yield fleet
        in_step([primary, replica])
        pools = b" ".join(fleet.ask("KEYS *")).decode()
        digests = fleet.ask(f"DEBUG DIGEST-VALUE {pools}")
        assert "0" * 40 not in digests
        with Wire(replica.port) as there:
            assert there.ask(f"DEBUG DIGEST-VALUE {pools}") == digests
        fleet.ask("DEBUG RELOAD")
        assert fleet.ask(f"DEBUG DIGEST-VALUE {pools}") == digests
    primary.restart()
    with Wire(primary.port) as read_again:
        assert read_again.ask(f"DEBUG DIGEST-VALUE {pools}") == digests


@pytest.mark.heavy
@pytest.mark.parametrize("gateways", [1, 20, 100])
def test_a_dead_backend_costs_the_whole_fleet_what_it_costs_one_gateway(fleet, gateways):
    fleet.add(TEN)
    fleet.ask("LB.HEALTH web FAILS 5 EJECT 30000")
    in_flight = None

    def served(backend, _):
        return (False, 20) if backend == "b3" else (True, fleet.chance.randrange(10, 40))

    for backend, _ in fleet.run(60_000, served, gateways=gateways, every=4):
        if backend == "b3" and in_flight is None and fleet.info("ejected"):
            in_flight = fleet.stats("b3", "leases")
    assert in_flight is not None
    assert 5 <= fleet.failed["b3"] <= 6 + in_flight
    assert fleet.nil == 0


@pytest.mark.heavy
def test_a_backend_that_fails_half_of_its_requests_is_out_after_20_to_40_reports(fleet):
    fleet.add(TEN)
    fleet.ask("LB.HEALTH web FAILRATE 40")
    reports = 0

    def served(backend, _):
        return backend != "b7" or fleet.chance.random() < 0.5, 20

    for backend, _ in fleet.run(10_000, served, gateways=20, every=4):
        reports += backend == "b7"
        if backend == "b7" and fleet.info("ejected"):
            break
    assert fleet.stats("b7", "health") == b"ejected"
    assert 20 <= reports <= 40


def test_late_reports_of_one_outage_eject_once_and_readmit_nobody(fleet):
    fleet.add("a 1 b 1 c 1")
    fleet.ask("LB.HEALTH web FAILS 5 EJECT 1000")
    leases = [fleet.ask(f"LB.PICK web EXCLUDE 2 b c LEASE {SPAN}")[1].decode() for _ in range(105)]
    for lease in leases[:5]:
        fleet.ask(f"LB.DONE web {lease} FAIL")
    fleet.till(fleet.now + 400)
    back = fleet.stats("a", "back-in-ms")
    assert 590 <= back <= 610
    for lease in leases[5:55]:
        assert fleet.ask(f"LB.DONE web {lease} FAIL") == 1
    assert (fleet.stats("a", "ejections"), fleet.stats("a", "back-in-ms")) == (1, back)
    for lease in leases[55:]:
        assert fleet.ask(f"LB.DONE web {lease} OK") == 1
    assert (fleet.stats("a", "health"), fleet.stats("a", "back-in-ms")) == (b"ejected", back)
    assert fleet.info("ejected") == 1


@pytest.mark.heavy
def test_ten_minutes_of_an_outage_take_at_most_70_probes(fleet):
    fleet.add("a 1 b 1")
    fleet.ask("LB.HEALTH web FAILS 1 EJECT 1000")
    fleet.spend(600_000, lambda backend, _: (backend == "b", 50), gateways=100, every=2, pause=100)
    assert 50 <= fleet.sent["a"] <= 70
    assert fleet.nil == 0


def test_one_pick_of_the_fleet_probes(fleet):
    fleet.add("a 1 b 1")
    fleet.ask("LB.HEALTH web FAILS 1 EJECT 1000")
    fleet.ask("LB.REPORT web a FAIL")
    fleet.till(fleet.now + 1010)
    assert fleet.stats("a", "health") == b"probing"
    assert [fleet.lease(gateway=number)[0] for number in range(4)] == ["a", "b", "b", "b"]


@pytest.mark.parametrize(("span", "within"), [(200, 230), (SPAN, 1020)])
def test_a_prober_that_dies_is_no_failure_of_the_backend(fleet, span, within):
    fleet.add("a 1 b 1")
    fleet.ask("LB.HEALTH web FAILS 1 EJECT 1000")
    fleet.ask("LB.REPORT web a FAIL")
    fleet.till(fleet.now + 1010)
    assert fleet.lease(span=span)[0] == "a"
    begun = fleet.now
    while fleet.lease()[0] != "a":
        fleet.till(fleet.now + STEP)
    assert min(span, 1000) <= fleet.now - begun <= within
    assert (fleet.stats("a", "ejections"), fleet.stats("a", "expired")) == (1, int(span == 200))


def test_where_all_fail_the_budget_keeps_half_in_service_and_all_come_back(fleet):
    fleet.add(TEN)
    fleet.ask("LB.HEALTH web FAILS 5 EJECT 1000 MAXEJECT 50")
    fleet.spend(10_000, lambda *_: (False, 20), gateways=20, every=4)
    assert fleet.info("ejected") == 5
    assert fleet.info("held") > 0
    assert fleet.nil == 0
    fleet.spend(10_000 + 40, lambda *_: (True, 20), gateways=20, every=4)
    assert fleet.info("ejected") == 0
    assert {fleet.stats(f"b{number}", "health") for number in range(10)} == {b"ok"}


def test_the_only_backend_is_never_ejected(fleet):
    fleet.add("a 1")
    fleet.ask("LB.HEALTH web FAILS 1 MAXEJECT 100")
    for _ in range(20):
        fleet.ask("LB.REPORT web a FAIL")
        assert fleet.lease()[0] == "a"
    assert (fleet.info("ejected"), fleet.info("held")) == (0, 20)


def test_cooling_told_by_one_gateway_holds_for_all_and_is_not_shortened(fleet):
    fleet.add("a 1 b 1")
    assert fleet.ask("LB.REPORT web a COOL 30000") == 1
    begun = fleet.now
    fleet.till(begun + 5000)
    assert fleet.ask("LB.REPORT web a COOL 1000") == 1
    assert fleet.stats("a", "health") == b"cooling"
    while "a" not in {fleet.lease(gateway=number)[0] for number in range(2)}:
        fleet.till(fleet.now + STEP)
    assert 30_000 <= fleet.now - begun <= 30_020
    assert fleet.stats("a", "health") == b"ok"


def test_where_all_cool_waiters_are_served_in_their_order_at_the_earliest_end(fleet):
    fleet.add("a 1 b 1")
    fleet.ask("LB.PICK web LEASE 10")
    for backend, millis in ("a", 5000), ("b", 3000):
        fleet.ask(f"LB.REPORT web {backend} COOL {millis}")
    reason, millis = fleet.ask("LB.WHEN web")
    assert reason == b"cooling"
    assert 3000 <= millis <= 3020
    waiters = [Waiter(fleet.server) for _ in range(100)]
    fleet.till(fleet.now + millis - 20)
    assert all(waiter.waits() for waiter in waiters)
    fleet.till(fleet.now + 20)
    served = [waiter.read() for waiter in waiters]
    assert {backend for backend, _ in served} == {b"b"}
    numbers = [int(lease.split(b"-")[1]) for _, lease in served]
    assert numbers == sorted(numbers)


def test_when_names_the_end_of_an_ejection(fleet):
    fleet.add("a 1 b 1")
    fleet.ask("LB.HEALTH web FAILS 1 EJECT 2000")
    fleet.ask("LB.REPORT web a FAIL")
    fleet.ask("LB.STATE web b drain")
    reason, millis = fleet.ask("LB.WHEN web")
    assert reason == b"ejected"
    assert 2000 <= millis <= 2020
    fleet.till(fleet.now + millis)
    assert fleet.ask("LB.WHEN web") == [b"available", 0]


def test_the_operator_undoes_ejection_and_cooling(fleet):
    fleet.add("a 1 b 1")
    fleet.ask("LB.HEALTH web FAILS 1")
    fleet.ask("LB.REPORT web a FAIL COOL 9000")
    assert fleet.info("available") == 1
    fleet.ask("LB.STATE web a up")
    assert (fleet.info("available"), fleet.stats("a", "health")) == (2, b"ok")


@pytest.mark.heavy
def test_a_backend_that_fails_fast_draws_no_crowd(fleet):
    fleet.add(TEN)
    fleet.spend(
        30_000,
        lambda backend, _: (False, 1) if backend == "b4" else (True, fleet.chance.randrange(10, 40)),
        algorithm="ewma",
        gateways=20,
        every=4,
    )
    assert fleet.sent["b4"] <= sum(fleet.sent.values()) / 1000


@pytest.mark.heavy
def test_a_backend_that_was_dead_for_5_s_serves_again_in_time(fleet):
    fleet.add(TEN)
    dead_until = fleet.now + 5000

    def served(backend, now):
        return backend != "b4" or now > dead_until, 20

    fleet.spend(5000, served, algorithm="ewma", every=4)
    others = [fleet.stats(f"b{number}", "latency-us") for number in range(10) if number != 4]
    ratio = fleet.stats("b4", "latency-us") / (sum(others) / len(others))
    halvings = max(1, (int(ratio) or 1).bit_length())
    before = fleet.sent["b4"]
    for _ in fleet.run(10_000 * halvings + 1000, served, algorithm="ewma", every=4):
        if fleet.sent["b4"] > before + 1:
            break
    assert fleet.sent["b4"] > before + 1
    assert fleet.failed["b4"] < 100


def test_a_backend_that_comes_back_starts_slowly_and_moves_no_other(fleet):
    fleet.add(TEN)
    fleet.ask("LB.HEALTH web FAILS 1 EJECT 10000 SLOWSTART 10000")
    fleet.ask("LB.PICK web COUNT 7")
    fleet.ask("LB.REPORT web b6 FAIL")
    fleet.till(fleet.now + 10_010)
    backend, lease = fleet.lease()
    assert backend == "b6"
    fleet.ask(f"LB.DONE web {lease} OK")
    assert fleet.stats("b6", "health") == b"starting"
    begun = fleet.now
    fleet.ask("COPY web twin REPLACE")
    fleet.ask("LB.STATE twin b6 down")
    for step in range(1, 11):
        assert fleet.stats("b6", "running-weight") == (b"0.%d" % step if step < 10 else b"1")
        count = 4 * (90 + step)
        picks = fleet.ask(f"LB.PICK web COUNT {count}")
        shares = Counter(picks)
        assert abs(shares[b"b6"] - 4 * step) <= 1
        others = [pick for pick in picks if pick != b"b6"]
        assert all(abs(shares[other] - 40) <= 1 for other in set(others))
        assert others == fleet.ask(f"LB.PICK twin COUNT {len(others)}")
        fleet.till(begun + 1000 * step)
    assert fleet.stats("b6", "health") == b"ok"


def loads(fleet, key, capacities, offered, late=1, noise=0.0):
    """Backends of these capacities serve what is offered by their shares of the picks, in steps of ADAPT.

    In each step each one reports the load that it had up to `late` steps ago, give or take the noise. Yields
    the loads of each step.
    """
    fleet.ask(f"LB.ADD {key} " + " ".join(f"{backend} 1" for backend in capacities))
    fleet.ask(f"LB.HEALTH {key} ADAPT 100")
    told = []
    while True:
        fleet.ask(f"LB.TICK {key} {1000 + 100 * len(told)}")
        picks = Counter(pick.decode() for pick in fleet.ask(f"LB.PICK {key} COUNT 700"))
        told.append({backend: offered * picks[backend] / 700 / of for backend, of in capacities.items()})
        for backend in capacities:
            load = told[-1 - min(fleet.chance.randrange(late), len(told) - 1)][backend]
            load *= 1 + noise * fleet.chance.uniform(-1, 1)
            assert fleet.ask(f"LB.REPORT {key} {backend} OK LOAD {load:.6f}") == 1
        yield list(told[-1].values())


@pytest.mark.heavy
def test_unequal_backends_are_equally_loaded_after_ten_steps_however_late_they_report(fleet):
    """The first report begins the first step, and the picks after the last one show what came of it."""
    for late in range(1, 11):
        world = loads(fleet, f"late{late}", {"a": 1, "b": 2, "c": 4}, 4.9, late)
        highest = [max(next(world)) for _ in range(100)]
        assert highest[0] > 1.6
        assert max(highest[11:]) < 0.9, late
        assert highest[-1] < 0.78, late


@pytest.mark.heavy
def test_noise_does_not_let_a_steady_pool_drift(fleet):
    world = loads(fleet, "web", {"a": 1, "b": 2, "c": 4}, 4.9, late=3, noise=0.05)
    for _ in range(60):
        next(world)
    settled = [float(fleet.stats(backend, "running-weight")) for backend in "abc"]
    assert max(max(next(world)) for _ in range(1000)) < 0.8
    for backend, before in zip("abc", settled, strict=True):
        assert abs(float(fleet.stats(backend, "running-weight")) - before) < before / 5


@pytest.mark.heavy
def test_one_that_loses_three_quarters_of_its_capacity_is_relieved_in_twenty_steps(fleet):
    capacities = {"a": 4, "b": 4, "c": 4}
    world = loads(fleet, "web", capacities, 6)
    for _ in range(50):
        next(world)
    capacities["c"] = 1
    assert max(next(world)) > 1.9
    highest = [max(next(world)) for _ in range(50)]
    # All together have 9 now: equal loads are 0.67.
    assert max(highest[20:]) < 0.76


def test_a_waiter_without_a_lease_is_served_by_a_policy_that_came_to_go_by_latency(fleet):
    fleet.add("a 1 b 1")
    fleet.ask("LB.STATE web a down")
    fleet.ask("LB.STATE web b down")
    waiter = Waiter(fleet.server, "LB.PICK web BLOCK 0")
    fleet.ask("LB.POLICY web ewma")
    fleet.ask("LB.STATE web b up")
    assert waiter.read() == b"b"
    assert fleet.stats("b", "picks") == 1


def test_events_tell_what_followed_a_report(fleet):
    fleet.ask("CONFIG SET notify-keyspace-events Kd")
    fleet.add("a 1 b 1")
    with fleet.server.client() as subscriber:
        events = subscriber.pubsub()
        events.psubscribe("__keyspace@0__:web")
        assert events.get_message(timeout=SECONDS)["type"] == "psubscribe"
        fleet.ask("LB.HEALTH web FAILS 1 EJECT 1000")
        fleet.ask("LB.REPORT web a FAIL")
        fleet.ask("LB.REPORT web b COOL 10")
        fleet.till(fleet.now + 1010)
        _, lease = fleet.lease()
        fleet.ask(f"LB.DONE web {lease} OK")
        told = [events.get_message(timeout=SECONDS)["data"] for _ in range(4)]
    assert told == ["lb.health", "lb.eject", "lb.cool", "lb.back"]


def test_a_pick_by_latency_that_finds_none_changes_nothing(fleet):
    fleet.add("a 1")
    fleet.lease()
    before = fleet.ask("DEBUG DIGEST-VALUE web")
    assert fleet.ask("LB.PICK web ewma EXCLUDE 1 a LEASE 30") is None
    assert fleet.ask("DEBUG DIGEST-VALUE web") == before


# What it costs

SETTINGS = "FAILS 5 FAILRATE 50 EJECT 30000 SLOWSTART 10000 ADAPT 1000"


def members(backends):
    """The commands that make a pool of that number of backends."""
    pairs = [f"b{number} {1 + number % 5}" for number in range(backends)]
    return ["LB.ADD web " + " ".join(pairs[i : i + 10_000]) for i in range(0, backends, 10_000)]


def cost_of_a_report(server, backends, algorithm, *settings):
    """The instructions of LB.DONE with OK and LATENCY."""
    ids = count(1)
    with Wire(server.port) as wire:

        def each(commands):
            wire.send(b"".join(pack(words(command)) for command in commands))
            return [wire.read() for _ in commands]

        def grant(leases):
            each([f"LB.PICK web {algorithm} COUNT {leases} LEASE 1000000"])

        def end(leases):
            for _ in range(0, leases, 32):
                assert each([f"LB.DONE web 7-{next(ids)} OK LATENCY 12345" for _ in range(32)]) == [1] * 32

        def ended(leases):
            grant(leases)
            return server._instructions(wire, lambda: end(leases))

        each(["FLUSHALL", *members(backends), *settings, "LB.TICK web 1000"])
        each(["LB.PICK web LEASE 1000000", "LB.EPOCH web 7"])
        grant(960)
        end(960)
        few, many = ended(320), ended(640)
        return (many - few) / 320


@pytest.mark.skipif(callgrind.missing() is not None, reason="counts instructions by valgrind")
@pytest.mark.timeout(600)
@pytest.mark.once("instructions are counted on one server")
def test_a_report_that_health_and_ewma_heed_costs_a_little_more(binary):
    with callgrind.Callgrind(binary, module(), ["clock", "manual"]) as server:
        health = f"LB.HEALTH web {SETTINGS}"
        plain = cost_of_a_report(server, 10, "wrr")
        heeded = cost_of_a_report(server, 10, "ewma", health)
        of_many = cost_of_a_report(server, 100_000, "ewma", health)
    print(f"plain {plain:,.0f}, heeded {heeded:,.0f}, of 100,000 backends {of_many:,.0f}")
    assert heeded <= 1.25 * plain
    assert of_many <= 2 * heeded


@pytest.mark.once("it is the module's own work that may take long")
def test_no_command_is_long_when_all_deadlines_have_passed(manual):
    """Of 100,000 backends half are ejected, half cool. A machine whose host is busy gets another round."""
    long = []
    for _ in waiting(200):
        with Wire(manual.port) as wire:
            long.append(those_that_take_long(wire))
        if not long[-1]:
            return
    raise AssertionError(long)


def those_that_take_long(wire):
    """The commands that took 5 ms of a processor when all deadlines have passed, until nothing is over."""
    process = int(re.search(rb"process_id:(\d+)", wire.ask("INFO server"))[1])
    schedule = Path(f"/proc/{process}/task/{process}/schedstat")

    def worked():
        """The nanoseconds that the server's main thread was on a processor."""
        return int(schedule.read_text().split()[0])

    def each(*commands):
        wire.send(b"".join(pack(words(command)) for command in commands))
        replies = [wire.read() for _ in commands]
        assert not any(isinstance(reply, Refused) for reply in replies)
        return replies

    each("FLUSHALL", *members(100_000), "LB.RULES web 2", "LB.TICK web 1000", "LB.PICK web LEASE 1000000")
    each("LB.EPOCH web 7", "LB.HEALTH web FAILS 1 EJECT 1000 MAXEJECT 100 SLOWSTART 1000 ADAPT 1000")
    each("LB.POLICY web ewma", "LB.PICK web LEASE 1000000")
    outs = ["FAIL LOAD 0.5 LATENCY 12345", "COOL 1000 OK LOAD 0.5 LATENCY 12345"]
    for first in range(0, 99_999, 10_000):
        portion = range(first, min(first + 10_000, 99_999))
        each(*(f"LB.REPORT web b{number} {outs[number % 2]}" for number in portion))
    info = dict_of(each("LB.INFO web")[0])
    assert (info[b"ejected"], info[b"cooling"]) == (50_000, 49_999)
    some = " ".join(f"b{number}" for number in range(100))
    long = []
    for number in range(400):
        # First the deadlines of all that are out, and of all that told something; later those of slow starts.
        for command in (
            f"LB.TICK web {20_000 if number < 300 else 40_000}",
            "LB.WHEN web",
            "LB.PEEK web COUNT 10",
            f"LB.PICK web EXCLUDE 100 {some} COUNT 10 DISTINCT LEASE 1000000",
            f"LB.DONE web 7-{10 * number + 1} OK LATENCY 12345",
            f"LB.DONE web 7-{10 * number + 2} FAIL",
            f"LB.REPORT web b{number} COOL 10",
            f"LB.REPORT web b{number + 50_000} FAIL LATENCY 7 LOAD 1.5",
            f"LB.STATE web b{number + 20_000} up",
            "LB.STATS web b7",
            "LB.INFO web",
        ):
            before = worked()
            each(command)
            if (took := worked() - before) > 5_000_000:
                long.append((took, command[:40]))
    return long
