"""The figures of real fleets: traces, clients and backends, settings of the proxies, and what is shown."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from documents import ROOT, TOP
from server import free_port

sys.path.append(str(Path(__file__).parents[1]))
from bench import fleet, fleet_proxies  # noqa: E402
from bench.fleet import Case, Request  # noqa: E402

pytestmark = pytest.mark.once("clients and backends know nothing of the server")

KINDS = fleet_proxies.RIVALS | {"redis-lb": fleet_proxies.of_pool(6379)}
PROGRAMS = {"HAProxy leastconn": fleet_proxies.HAPROXY, "Envoy LEAST_REQUEST": fleet_proxies.ENVOY}
MILLI = 1000


@pytest.fixture(scope="module")
def data():
    return json.loads((fleet.DATA / "fleet.json").read_text())


# Traces


def test_traces_are_the_same_each_time():
    cases = [*fleet.STEADY, *fleet.FAILURES, fleet.ONE_PROXY, fleet.NO_LOAD]
    text = "".join(fleet.lines(case, fleet.trace(case, seed)) for case in cases for seed in fleet.SEEDS)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9a26af72145f1d9d"


@pytest.mark.parametrize("case", fleet.STEADY, ids=lambda case: case.title)
def test_a_trace_has_the_load_that_it_names(case):
    requests = fleet.trace(case, 1)
    work = sum(request.service for request in requests)
    assert work == pytest.approx(case.load * 30 * case.seconds * 1e6, rel=1e-4)
    assert len(requests) == pytest.approx(case.load * 500 * case.seconds, rel=0.1)
    assert [request.at for request in requests] == sorted(request.at for request in requests)
    assert {request.proxy for request in requests} == {*range(10)}


# Clients and backends


@pytest.fixture
def clients():
    """With one backend of one slot, without a proxy."""
    port = free_port()
    made = fleet.Clients([fleet_proxies.Backend(port, 1)])
    made.meet([port])
    yield made
    made.close()


def asked(clients, *requests, changes=()):
    """The answers to requests of a method and a service time, a millisecond apart."""
    trace = [
        Request((i + 1) * MILLI, 0, method, service * MILLI) for i, (method, service) in enumerate(requests)
    ]
    changed = tuple((at * MILLI, what) for at, what in changes)
    return clients.ask(Case("", 0, 0, changes=changed), trace)


def test_requests_wait_for_a_slot_in_their_order(clients):
    answers, refused = asked(clients, ("GET", 60), ("GET", 20), ("POST", 10))
    assert ([answer.status for answer in answers], refused) == ([200] * 3, 0)
    # The second one comes 1 ms later, and waits for the 59 ms that are left of the first.
    for answer, least in zip(answers, (60, 79, 88), strict=True):
        assert least * MILLI <= answer.latency < (least + 1000) * MILLI
        assert answer.latency >= answer.delay >= 0


def test_a_backend_changes_when_the_trace_says_so(clients, monkeypatch):
    monkeypatch.setattr(fleet, "BROKEN", 0)
    answers, _ = asked(clients, ("GET", 20), changes=[(0, "slow 5")])
    assert answers[0].latency >= 100 * MILLI
    answers, refused = asked(clients, ("GET", 20), ("POST", 20), changes=[(0, "fail")])
    assert ([answer.status for answer in answers], refused) == ([503, 503], 2)
    answers, _ = asked(clients, ("GET", 20), changes=[(0, "live")])
    assert answers[0].status == 200 and answers[0].latency < 100 * MILLI
    answers, _ = asked(clients, ("GET", 60_000), changes=[(100, "die")])
    assert answers[0].status == 0
    answers, _ = asked(clients, ("GET", 20), changes=[(0, "live")])
    assert answers[0].status == 200


# Proxies


@pytest.mark.parametrize("title", KINDS)
def test_proxies_accept_their_settings(title, tmp_path):
    if title in PROGRAMS and not PROGRAMS[title].exists():
        pytest.skip("scripts/bench fetches it")
    backends = [fleet_proxies.Backend(free_port(), slots) for slots in fleet.SLOTS]
    command = KINDS[title](tmp_path, free_port(), backends)
    done = subprocess.run(
        [*command.words, *command.check],
        env=command.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Figures


def test_what_is_summed_up():
    case = Case("two", 0.1, 0.5, seconds=3.0)
    seeds = {}
    for seed in 1, 2:
        requests = fleet.trace(case, seed)
        # Each takes its service and 1 ms for each of its seed; those that do not count are far off.
        answers = [
            [200, of.service + seed * MILLI * (1 if of.at >= fleet.WARM else 900), 50, 0] for of in requests
        ]
        answers[-1][0] = 503
        seeds[seed] = {
            "answers": answers,
            "seconds": {"proxies": 1e-4 * len(answers), "redis": 2e-5 * len(answers)},
            "refused": 3,
            "pool": {"picks": 10, "expired": 0},
        }
    row = fleet.summed("redis-lb lc", case, seeds)
    assert (row["GET"], row["POST"], row["refused"], row["picks"]) == (2, 0, 6, 20)
    assert row["over p99 of seeds"] == [1, 2]
    assert 1 < row["over mean"] < 2 and (row["over p99"], row["over p99.9"]) == (2, 2)
    assert row["proxies us"] == pytest.approx(100) and row["redis us"] == pytest.approx(20)
    assert row["delay p99"] == 0.05


def test_quantiles():
    assert [fleet.quantile([*range(1001)], at) for at in (500, 990, 999)] == [500, 990, 999]


def test_no_lease_was_lost(data):
    assert {row["expired"] for row in data["rows"] if row["fleet"] in fleet.OURS} == {0}


def test_the_documents_show_these_figures(data):
    document = (ROOT / "tests" / "bench" / "README.md").read_text()
    for shown in fleet.tables(data):
        assert f"\n{shown}\n" in document
    top, rows = TOP.read_text(), data["rows"]
    assert fleet.summary(rows) in top and fleet.limits(rows) in top
    assert (fleet.DATA / "fleet.svg").read_text() == fleet.picture(rows)
