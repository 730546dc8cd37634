"""The figures of a fleet that is told once, and the rules by which the others are simulated beside it."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from documents import ROOT
from wire import Wire

sys.path.append(str(Path(__file__).parents[1]))
from bench import health  # noqa: E402
from bench.balancers import SECOND, Envoy, Finagle, Nginx, Prequal, PrequalSync  # noqa: E402

DOCUMENT = ROOT / "tests" / "bench" / "README.md"
MILLI = 1000


@pytest.fixture(scope="module")
def data():
    return json.loads((health.DATA / "health.json").read_text())


# The figures


def short_of(data, scenario, titles):
    return [row for row in data["short"] if row["scenario"] == scenario.title and row["way"] in titles]


@pytest.mark.once("the figures are those of the module with its own clock")
@pytest.mark.parametrize("scenario", health.SCENARIOS, ids=lambda scenario: scenario.title)
def test_a_short_trace_gives_the_very_figures_of_this_module(manual, data, scenario):
    with Wire(manual.port) as wire:
        requests = health.trace(health.short(scenario))
        found = health.of_module(wire, health.short(scenario), requests, [health.SHORT_FLEET])
    assert found == short_of(data, scenario, {row["way"] for row in found})


def test_a_short_trace_gives_the_very_figures_of_the_others(data):
    found = []
    for scenario in map(health.short, health.SCENARIOS):
        found += health.of_others(scenario, health.trace(scenario), [health.SHORT_FLEET])
    assert found == [row for row in data["short"] if not row["way"].startswith("redis-lb")]


def test_the_targets_are_reached(data):
    missed = [
        (title, figure)
        for title, bound, figure in health.ratios(health.Figures(data["whole"]))
        if figure > bound
    ]
    assert not missed


def test_a_pool_is_the_same_for_any_number_of_gateways(data):
    found = {}
    for row in data["whole"]:
        if row["way"].startswith("redis-lb"):
            figures = {name: of for name, of in row.items() if name != "gateways"}
            found.setdefault((row["scenario"], row["way"]), []).append(figures)
    assert all(len(rows) == len(health.FLEETS) and rows == rows[:1] * len(rows) for rows in found.values())
    dead = [rows[0]["failed"] for (scenario, _), rows in found.items() if scenario == "dead"]
    # Five until it is out, and those in flight then.
    assert dead and all(5 <= failed <= 8 for failed in dead)


def test_the_picture_and_the_document_show_the_figures(data):
    assert (health.DATA / "health.svg").read_text() == health.picture(data["whole"])
    _, _, rest = DOCUMENT.read_text().partition(health.MARKS[0])
    assert rest.partition(health.MARKS[1])[0] == health.shown(data["whole"])


def test_one_queue_serves_in_order_and_the_fastest_free_one_first():
    requests = [(0, 0.0, MILLI, 0.0)] * 12
    equal, unequal = (health.BY_TITLE[title] for title in ("equal", "half 3 times slower"))
    assert health.one_queue(equal, requests) == [MILLI] * 10 + [2 * MILLI] * 2
    assert health.one_queue(unequal, requests) == [MILLI] * 5 + [3 * MILLI] * 5 + [2 * MILLI] * 2


class Turns:
    """Picks them in turn."""

    def __init__(self):
        self.turn = 0
        self.ended = []

    def pick(self, now, gateway):
        self.turn += 1
        return (self.turn - 1) % health.BACKENDS, self.turn

    def done(self, now, gateway, backend, ticket, is_ok, micros):
        self.ended.append((now, backend, ticket, is_ok, micros))


def test_backends_serve_in_order_and_the_broken_one_fails():
    fleet = Turns()
    at = health.FAULT
    requests = [(at, 0.0, MILLI, 0.0)] * 20 + [(at + SECOND, 0.0, MILLI, 0.0)]
    scenario = replace(health.BY_TITLE["black hole"], slots=1)
    found = health.simulate(scenario, requests, fleet, 1)
    assert (found["failed"], found["to the broken one"]) == (2, 2)
    first, second = ([entry for entry in fleet.ended if entry[1] == backend] for backend in (0, 3))
    assert first == [(at + MILLI, 0, 1, True, MILLI), (at + 2 * MILLI, 0, 11, True, 2 * MILLI)]
    assert second == [(at + MILLI, 3, 4, False, MILLI), (at + MILLI, 3, 14, False, MILLI)]


# The rules of the others


def test_nginx_takes_the_fewest_connections_and_turns_among_equals():
    nginx = Nginx(1, 3)
    # Computed from its source by hand. Its turns pass over those that are not among the least at that moment.
    assert [nginx.pick(0, 0)[0] for _ in range(6)] == [0, 1, 2, 2, 1, 0]
    nginx.done(0, 0, 1, None, True, 1)
    assert nginx.pick(0, 0)[0] == 1


def test_nginx_gives_up_a_server_for_ten_seconds_after_one_failure_and_then_tries_once():
    nginx = Nginx(2, 2)
    assert nginx.pick(0, 0)[0] == 0
    nginx.done(0, 0, 0, None, False, 1)
    assert {nginx.pick(second * SECOND, 0)[0] for second in range(11)} == {1}
    tried = [nginx.pick(11 * SECOND, 0)[0] for _ in range(3)]
    assert tried == [0, 1, 1]
    nginx.done(11 * SECOND, 0, 0, None, True, 1)
    assert nginx.pick(11 * SECOND, 0)[0] == 0
    # The other gateway knows nothing of it.
    assert nginx.pick(1 * SECOND, 1)[0] == 0


def fail(fleet, now, backend, times):
    """So many requests of the first gateway that fail on that backend; those on others go well."""
    while times:
        picked, ticket = fleet.pick(now, 0)
        fleet.done(now, 0, picked, ticket, picked != backend, MILLI)
        times -= picked == backend


def picked(fleet, now, count=200):
    """How often each is picked, by requests that end well at once."""
    found = Counter()
    for _ in range(count):
        backend, ticket = fleet.pick(now, 0)
        fleet.done(now, 0, backend, ticket, True, MILLI)
        found[backend] += 1
    return found


def test_envoy_takes_the_less_busy_of_two():
    envoy = Envoy(1, 10)
    busy = Counter(envoy.pick(0, 0)[0] for _ in range(1000))
    # By chance alone the busiest would be 25 off.
    assert max(busy.values()) - min(busy.values()) <= 6


def test_envoy_ejects_at_five_in_a_row_for_thirty_seconds_and_one_host_in_ten():
    envoy = Envoy(1, 10)
    fail(envoy, 0, 3, 4)
    assert picked(envoy, 0)[3]  # which ends the row
    fail(envoy, 0, 3, 5)
    fail(envoy, 0, 4, 5)
    assert [picked(envoy, 0)[host] > 0 for host in (3, 4)] == [False, True]
    assert not picked(envoy, 30 * SECOND - 1)[3]
    assert picked(envoy, 40 * SECOND)[3]


def test_envoy_ejects_a_low_success_rate_at_its_interval():
    envoy = Envoy(1, 10)
    for number in range(4000):
        backend, ticket = envoy.pick(0, 0)
        envoy.done(0, 0, backend, ticket, backend != 3 or number % 2 == 0, MILLI)
    assert not picked(envoy, 10 * SECOND)[3]


def test_finagle_prefers_the_lower_latency_and_notices_a_peak_at_once():
    finagle = Finagle(1, 2)
    for now, micros in (0, 1), (1, 1), (2, 1000):
        for node in finagle._clients[0]:
            node.begin()
            node.end(now, True, micros)
    slow, fast = finagle._clients[0]
    slow.observe(3, 5000)
    assert slow.load(3) == 5000
    assert fast.load(3) == pytest.approx(1000, rel=1e-3)
    assert picked(finagle, 3) == {1: 200}
    # Without a report it is forgotten: by a factor of e in ten seconds.
    assert fast.load(3 + 10 * SECOND) == pytest.approx(fast.load(3) / 2.718, rel=1e-2)


def test_finagle_gives_up_an_endpoint_after_five_failures_for_five_seconds_and_then_longer():
    finagle = Finagle(1, 10)
    fail(finagle, 0, 3, 5)
    node = finagle._clients[0][3]
    assert not node.is_open(5 * SECOND - 1)
    assert node.is_open(5 * SECOND)
    # One request probes; while it runs nobody else is sent there.
    node.begin()
    assert not node.is_open(5 * SECOND)
    node.end(5 * SECOND, False, MILLI)
    assert not node.is_open(10 * SECOND - 1)
    assert node.is_open(15 * SECOND)
    node.begin()
    node.end(15 * SECOND, True, MILLI)
    assert node.is_open(15 * SECOND)


def test_finagle_gives_up_an_endpoint_whose_success_rate_is_low():
    finagle = Finagle(1, 10)
    node = finagle._clients[0][3]
    for second in range(30):
        for now, is_ok in (second * SECOND, True), (second * SECOND + SECOND // 2, False):
            assert node.is_open(now)
            node.begin()
            node.end(now, is_ok, MILLI)
    # It judges once its window of 30 s is full.
    node.begin()
    node.end(30 * SECOND, False, MILLI)
    assert not node.is_open(35 * SECOND - 1)
    assert node.is_open(35 * SECOND)


def test_prequal_takes_the_lowest_latency_of_those_that_are_not_hot():
    prequal = PrequalSync(1, 3, lambda backend, now: True)
    for backend, (rif, micros) in enumerate([(0, 5000), (0, 3000), (9, 1000)]):
        replica = prequal._replicas[backend]
        replica.took(rif, micros)
        replica.rif = rif
    assert prequal.pick(0, 0)[0] == 2  # the quantile of three is the highest
    prequal.QUANTILE = 0.5
    assert prequal.pick(0, 0)[0] == 1
    prequal.QUANTILE = 0
    assert prequal.pick(0, 0)[0] == 0


def test_prequal_keeps_probes_for_a_second_and_uses_each_once():
    prequal = Prequal(1, 10, lambda backend, now: True)
    for _ in range(20):
        backend, ticket = prequal.pick(0, 0)
        prequal.done(0, 0, backend, ticket, True, MILLI)
        (pool,) = prequal._pools
        replicas = [probe.replica for probe in pool]
        assert len(replicas) == len({*replicas}) and not any(probe.uses for probe in pool)
    prequal.pick(SECOND + 1, 0)
    assert {probe.at for probe in prequal._pools[0]} == {SECOND + 1}


def test_prequal_asks_nothing_of_a_dead_one():
    prequal = Prequal(1, 10, lambda backend, now: backend != 3)
    fleet = picked(prequal, 0, 1000)
    assert sum(fleet.values()) == 1000 and fleet[3] <= 3
