"""Costs: amounts that are estimated when a backend is picked, and settled when its request has ended; what
holds for EACH backend; and clients that wait until there is enough.
"""

import random
import time

import pytest
import redis

from algorithms import ALGORITHMS
from server import eventually
from waiter import Waiter, lease
from wire import Wire, dict_of

every_algorithm = pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "ewma"])


def left(lb, backend):
    """How much of each cost a backend has left."""
    costs = dict_of(dict_of(lb(f"LB.STATS web {backend}"))["costs"])
    return {name: dict_of(cost)["left"] for name, cost in costs.items()}


def leased(lb, costs):
    """A lease on `a` for these costs."""
    name, id = lb(f"LB.PICK web EXCLUDE 2 b c LEASE 60000 COSTS {costs}")
    assert name == "a"
    return id


def refused(lb, command, code="ERR"):
    with pytest.raises(redis.ResponseError) as refusal:
        lb(command)
    return str(refusal.value)


def digest(lb):
    return lb("DEBUG DIGEST-VALUE web")


def test_what_a_request_really_cost_is_settled_when_it_has_ended(lb):
    lb("LB.LIMIT web BACKEND a COST tokens 100 1000 BURST 50")
    first, second, third = (leased(lb, f"1 tokens {amount}") for amount in (20, 10, 10))
    assert left(lb, "a") == {"tokens": 10}
    lb(f"LB.DONE web {first} COSTS 1 tokens 5")
    assert left(lb, "a") == {"tokens": 25}
    lb(f"LB.DONE web {second} COSTS 1 tokens 90")
    assert left(lb, "a") == {"tokens": -55}
    # One that says nothing keeps its estimate, and so does one that is over.
    lb(f"LB.DONE web {third}")
    assert lb(f"LB.DONE web {third} COSTS 1 tokens 0") == 0
    assert left(lb, "a") == {"tokens": -55}
    lb("LB.TICK web 1500")
    assert left(lb, "a") == {"tokens": -5}
    lb("LB.TICK web 9000")
    assert left(lb, "a") == {"tokens": 50}


def test_in_debt_a_backend_serves_nobody_who_names_that_cost(lb):
    lb("LB.LIMIT web BACKEND a COST tokens 100 1000 BURST 50")
    id = leased(lb, "1 tokens 50")
    lb(f"LB.DONE web {id} COSTS 1 tokens 51")
    for amount in (0, 1, 1000):
        assert lb(f"LB.PICK web EXCLUDE 2 b c COSTS 1 tokens {amount}") is None
    assert lb("LB.PICK web EXCLUDE 2 b c COSTS 1 images 1") == "a"
    assert lb("LB.PICK web EXCLUDE 2 b c") == "a"
    # Another rate keeps the debt.
    lb("LB.LIMIT web BACKEND a COST tokens 7 9 BURST 1000")
    assert left(lb, "a") == {"tokens": -1}
    lb("LB.TICK web 1002")
    assert lb("LB.PICK web EXCLUDE 2 b c COSTS 1 tokens 0") == "a"


def test_a_full_bucket_admits_any_amount(lb):
    lb("LB.LIMIT web BACKEND a COST tokens 100 1000 BURST 50")
    assert lb("LB.PICK web EXCLUDE 2 b c COSTS 1 tokens 1000") == "a"
    assert left(lb, "a") == {"tokens": -950}
    assert dict_of(lb("LB.LIMIT web BACKEND a"))["costs"]
    lb("LB.LIMIT web BACKEND b COST tokens 99 1000")
    assert left(lb, "b") == {"tokens": 5}, "a twentieth, rounded up"


def test_all_costs_are_taken_or_none(lb):
    lb("LB.LIMIT web COST tokens 1 1000 BURST 10 COST images 1 1000 BURST 1")
    lb("LB.LIMIT web BACKEND a COST tokens 1 1000 BURST 100 RATE 1 1000 BURST 2")
    assert lb("LB.PICK web EXCLUDE 2 b c COSTS 2 tokens 4 images 1") == "a"
    before = digest(lb)
    assert lb("LB.PICK web EXCLUDE 2 b c COSTS 2 tokens 4 images 1") is None
    assert digest(lb) == before
    assert lb("LB.PICK web EXCLUDE 2 b c COUNT 9 COSTS 1 tokens 3") == ["a"]
    assert left(lb, "a") == {"tokens": 93}
    of_pool = dict_of(dict_of(lb("LB.INFO web"))["costs"])
    assert {name: dict_of(cost)["left"] for name, cost in of_pool.items()} == {"tokens": 3, "images": 0}


@every_algorithm
def test_backends_that_have_too_little_are_passed_over_as_if_they_were_excluded(lb, algorithm):
    lb("LB.LIMIT web BACKEND a COST tokens 1 60000 BURST 10")
    lb("LB.LIMIT web BACKEND b COST tokens 1 60000 BURST 20")
    reply = lb(f"LB.PICK web {algorithm} COUNT 40 COSTS 1 tokens 7")
    assert (reply.count("a"), reply.count("b"), reply.count("c")) == (1, 2, 37)
    lb("COPY web copy REPLACE")
    assert lb(f"LB.PICK web {algorithm} EXCLUDE 1 c COSTS 1 tokens 7") is None
    assert digest(lb) == lb("DEBUG DIGEST-VALUE copy"), "who finds nobody leaves no trace"


def test_left_lowers_what_is_left_and_never_raises_it(lb):
    lb("LB.LIMIT web BACKEND a COST tokens 100 1000 BURST 50")
    assert lb("LB.REPORT web a LEFT tokens 60") == 1
    assert left(lb, "a") == {"tokens": 50}
    assert lb("LB.REPORT web a OK LEFT tokens 7") == 1
    assert left(lb, "a") == {"tokens": 7}
    assert lb("LB.REPORT web a LEFT images 7") == 1
    assert lb("LB.REPORT web nobody LEFT tokens 7") == 0
    assert lb("LB.PICK web EXCLUDE 2 b c COSTS 1 tokens 8") is None
    lb("LB.TICK web 1010")
    assert lb("LB.PICK web EXCLUDE 2 b c COSTS 1 tokens 8") == "a"


def test_when_tells_the_tightest(lb):
    lb("LB.LIMIT web EACH COST tokens 10 1000 BURST 10 COST images 1 1000 BURST 1 RATE 1 500")
    ask = "LB.WHEN web COSTS 2 tokens 10 images 1"
    assert lb(ask) == ["available", 0]
    lb("LB.PICK web COUNT 3 DISTINCT COSTS 1 tokens 4")
    assert lb("LB.WHEN web") == ["limited", 500]
    assert lb(ask) == ["limited", 500]
    lb("LB.TICK web 1500")
    lb("LB.PICK web COUNT 3 DISTINCT COSTS 1 tokens 10")
    assert lb(ask) == ["limited", 1000]
    lb("LB.LIMIT web EACH RATE 0 0")
    assert lb("LB.WHEN web") == ["available", 0]
    assert lb("LB.WHEN web COSTS 1 free 99999") == ["available", 0]
    assert lb(ask) == ["limited", 1000]
    lb("LB.TICK web 2490")
    assert lb("LB.PICK web COSTS 2 tokens 10 images 1") is None
    lb("LB.TICK web 2500")
    assert lb("LB.PICK web COSTS 2 tokens 10 images 1") is not None


def test_what_holds_for_each_holds_for_newcomers_and_not_where_there_is_an_own_limit(lb):
    lb("LB.LIMIT web BACKEND b MAX 9 RATE 2 10 COST tokens 2 10")
    lb("LB.LIMIT web EACH MAX 3 RATE 1 10 COST tokens 60 1000")

    def holding(backend):
        told = dict_of(lb(f"LB.STATS web {backend}"))
        tokens = dict_of(dict_of(told["costs"])["tokens"])
        return told["max"], told["rate"], tokens["rate"], tokens["burst"]

    lb("LB.ADD web d")
    lb("LB.SET web a 5 b 3 d 1 e 1")
    assert [holding(name) for name in "abde"] == [(3, 1, 60, 3), (9, 2, 2, 1), (3, 1, 60, 3), (3, 1, 60, 3)]
    assert lb("LB.LIMIT web BACKEND a") in ([], {})
    assert dict_of(lb("LB.LIMIT web EACH"))["max"] == 3
    lb("LB.LIMIT web BACKEND b MAX 0 RATE 0 0 COST tokens 0 0")
    assert holding("b") == holding("a")
    # A backend that is removed and added again is a newcomer.
    lb("LB.PICK web EXCLUDE 3 b d e COSTS 1 tokens 3")
    lb("LB.REM web a")
    lb("LB.ADD web a 5")
    assert left(lb, "a") == {"tokens": 3}
    lb("LB.REM web a b d e")
    assert lb("LB.CARD web") == 0 and lb("EXISTS web") == 1, "it is a setting of the pool"
    lb("LB.LIMIT web EACH MAX 0 RATE 0 0 COST tokens 0 0")
    assert lb("EXISTS web") == 0


def test_a_pool_limits_four_costs_at_most(lb):
    lb("LB.LIMIT web COST 1 1 1 COST 2 1 1 COST 3 1 1")
    lb("LB.LIMIT web BACKEND a COST 4 1 1 COST 1 1 1")
    before = digest(lb)
    assert "4 different costs" in refused(lb, "LB.LIMIT web EACH COST 1 1 1 COST 5 1 1")
    assert digest(lb) == before
    lb("LB.LIMIT web BACKEND a COST 4 0 0")
    lb("LB.LIMIT web EACH COST 5 1 1")
    assert "4 different costs" in refused(lb, "LB.LIMIT web COST 6 1 1")


# Waiting


@pytest.fixture
def web(server):
    """A client, and a pool with one backend that has 100 tokens, and 100 a second."""
    with Wire(server.port) as wire:
        wire.ask("LB.ADD web a")
        wire.ask("LB.LIMIT web BACKEND a COST tokens 100 1000 BURST 100")
        yield wire


def take(web, amount):
    """The id of a lease for that amount."""
    return lease(web.ask(f"LB.PICK web LEASE 60000 COSTS 1 tokens {amount}"))


def waiting(server, amount, options=""):
    return Waiter(server, f"LB.PICK web LEASE 60000 COSTS 1 tokens {amount} BLOCK 0 {options}")


@pytest.mark.parametrize("way", ["LB.DONE", "LB.LIMIT", "time"])
def test_a_waiter_is_served_when_there_is_enough(server, web, way):
    if way != "time":
        web.ask("LB.LIMIT web BACKEND a COST tokens 1 60000 BURST 100")
    begin = time.monotonic()
    held = take(web, 90)
    waiter = waiting(server, 50)
    assert way == "time" or waiter.waits()
    if way == "LB.DONE":
        assert web.ask(f"LB.DONE web {held} COSTS 1 tokens 10") == 1
    elif way == "LB.LIMIT":
        web.ask("LB.LIMIT web BACKEND a COST tokens 0 0")
    assert waiter.read()[0] == b"a"
    if way == "time":
        assert time.monotonic() - begin > 0.39, "40 tokens are lacking"


def test_small_requests_do_not_overtake_a_large_one(server, web):
    web.ask("LB.LIMIT web BACKEND a COST tokens 1 600000 BURST 100 COST images 9 1000 BURST 100")
    held = take(web, 60)
    large = waiting(server, 50, "PRIO 3")
    small, urgent = waiting(server, 5, "PRIO 3"), "LB.PICK web COSTS 1 tokens 5"
    assert large.waits() and small.waits()
    # A pick without BLOCK has the number 0, which is lower.
    assert web.ask(urgent) == b"a"
    first = waiting(server, 90)
    assert web.ask(urgent) is None
    assert web.ask("LB.PICK web COSTS 2 images 1 tokens 0") is None
    for other in ("LB.PICK web", "LB.PICK web COSTS 1 images 1", "LB.PICK web COSTS 1 free 1"):
        assert web.ask(other) == b"a"
    # Lower numbers go first: 95 are back.
    web.ask(f"LB.DONE web {held} COSTS 1 tokens 0")
    assert first.read()[0] == b"a"
    assert large.waits() and small.waits()
    assert web.ask("LB.PICK web COSTS 1 tokens 5 BLOCK 0") == b"a"
    web.ask("LB.LIMIT web BACKEND a COST tokens 1000 1000 BURST 1000")
    assert large.read()[0] == small.read()[0] == b"a"
    eventually(lambda: web.ask(urgent) == b"a")


def test_a_waiter_that_is_gone_keeps_nobody_back(server, web):
    web.ask("LB.LIMIT web BACKEND a COST tokens 1 600000 BURST 100")
    take(web, 60)
    with waiting(server, 90) as large:
        small = waiting(server, 5)
        assert large.waits() and small.waits()
    web.ask(f"CLIENT KILL ID {large.id}")
    assert small.read()[0] == b"a"


def assert_no_window_is_overfull(log, rate, millis, burst, largest):
    """Each window of the log: estimates count at their picks, differences when they are settled."""
    for first, (begin, _) in enumerate(log):
        held = under = 0
        for end, amount in log[first:]:
            held += amount[0]
            under += amount[1]
            most = max(burst, largest) + (end - begin) * rate // millis + under
            assert held <= most, (log[first], end, held, most)


def test_no_window_holds_more_than_the_bound(lb):
    """Clients ask for amounts of all sizes, and settle them with more and with less."""
    chance = random.Random(7)
    rate, millis, burst, largest = 300, 1000, 40, 90
    lb(f"LB.LIMIT web EACH COST tokens {rate} {millis} BURST {burst}")
    logs, held, clock = {name: [] for name in "abc"}, [], 1000
    for _ in range(900):
        if chance.random() < 0.5:
            clock += chance.choice([1, 3, 10, 40])
            lb(f"LB.TICK web {clock}")
        if held and chance.random() < 0.4:
            name, lease, estimate = held.pop(chance.randrange(len(held)))
            really = chance.choice([0, estimate // 2, estimate, estimate * 2])
            if lb(f"LB.DONE web {lease} COSTS 1 tokens {really}"):
                logs[name].append((clock, (really - estimate, max(0, really - estimate))))
            continue
        estimate = chance.choice([1, 5, 20, 40, largest])
        if granted := lb(f"LB.PICK web LEASE 100000 COSTS 1 tokens {estimate}"):
            name, lease = granted
            logs[name].append((clock, (estimate, 0)))
            held.append((name, lease, estimate))
    for log in logs.values():
        assert len(log) > 50
        assert_no_window_is_overfull(log, rate, millis, burst, largest)
