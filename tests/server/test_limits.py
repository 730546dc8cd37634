"""Limits: how many leases at once, how many picks in a time, and which tier serves."""

import random
import threading
import time

import pytest
import redis

from algorithms import ALGORITHMS
from replication import is_linked, replica_of
from server import eventually
from wire import dict_of

OPTIONS = [
    "",
    "COUNT 3",
    "COUNT 3 DISTINCT",
    "EXCLUDE 1 b",
    "COUNT 2 EXCLUDE 2 a x",
    "COUNT 3 DISTINCT EXCLUDE 1 c",
]

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def picked(reply):
    """The backends of a pick of any form."""
    if reply is None:
        return []
    if isinstance(reply, str):
        return [reply]
    if len(reply) == 2 and isinstance(reply[1], str) and "-" in reply[1]:
        return [reply[0]]
    return [one if isinstance(one, str) else one[0] for one in reply]


def leased(reply):
    """The ids of the leases that it gave."""
    if not reply:
        return []
    return [reply[1]] if isinstance(reply[0], str) else [id for _, id in reply]


def limits(lb, where=""):
    """What is set."""
    return dict_of(lb(f"LB.LIMIT web {where}"))


def open_leases(lb):
    """How many each backend has."""
    return {name: dict_of(told)["leases"] for name, told in dict_of(lb("LB.STATS web")).items()}


def state(lb):
    """What a command could have changed, and how often anything was."""
    return lb("DEBUG DIGEST-VALUE web"), lb("INFO", "persistence")["rdb_changes_since_last_save"]


def assert_no_window_is_overfull(log, rate, millis, burst):
    """Every window of T ms from one pick to another holds at most burst + ⌊T · rate / millis⌋ of them."""
    for first, begin in enumerate(log):
        for number, end in enumerate(log[first:], 1):
            assert number <= burst + (end - begin) * rate // millis, (log, first, number)


# MAX


@every_algorithm
@pytest.mark.parametrize("options", OPTIONS)
def test_max_is_never_exceeded_whoever_comes_and_goes(lb, algorithm, options):
    """Some clients pick and end what they hold, in any order, while leases run out."""
    most = {"a": 2, "b": 1, "c": 3}
    for backend, number in most.items():
        lb(f"LB.LIMIT web BACKEND {backend} MAX {number}")
    lb("LB.LIMIT web MAX 5")
    chance = random.Random(f"{algorithm} {options}")
    clock, refused, held = 1000, 0, []
    for _ in range(100):
        if chance.random() < 0.6:
            reply = lb(f"LB.PICK web {algorithm} {options} LEASE {chance.randrange(1, 200)}")
            held += leased(reply)
            refused += len(picked(reply)) == 0
        elif held and chance.random() < 0.6:
            lb("LB.DONE", "web", held.pop(chance.randrange(len(held))))
        else:
            clock += chance.randrange(30)
            lb(f"LB.TICK web {clock}")
        now = open_leases(lb)
        assert all(now[backend] <= most[backend] for backend in most), now
        assert sum(now.values()) <= 5
    assert refused > 5


@every_algorithm
def test_max_is_given_out_whole(lb, algorithm):
    for backend, number in [("a", 2), ("b", 1), ("c", 3)]:
        lb(f"LB.LIMIT web BACKEND {backend} MAX {number}")
    assert sorted(picked(lb(f"LB.PICK web {algorithm} COUNT 100 LEASE 500"))) == list("aabccc")
    assert lb(f"LB.PICK web {algorithm} LEASE 500") is None
    lb("LB.LIMIT web MAX 7")
    lb("LB.ADD web d")
    assert picked(lb(f"LB.PICK web {algorithm} COUNT 100 LEASE 500")) == ["d"]


def test_max_counts_leases_alone_but_keeps_out_all(lb):
    lb("LB.LIMIT web MAX 2")
    lb("LB.LIMIT web BACKEND a MAX 1")
    assert len(lb("LB.PICK web COUNT 50")) == 50
    id = lb("LB.PICK web LEASE 500 EXCLUDE 2 b c")[1]
    assert "a" not in lb("LB.PICK web COUNT 50")
    lb("LB.PICK web LEASE 500")
    assert lb("LB.PICK web COUNT 50") == []
    lb(f"LB.DONE web {id}")
    assert set(lb("LB.PICK web COUNT 50")) == set("abc")


def test_lowering_max_ends_no_lease(lb):
    held = [id for _, id in lb("LB.PICK web COUNT 6 LEASE 500 EXCLUDE 2 b c")]
    lb("LB.LIMIT web BACKEND a MAX 3")
    assert open_leases(lb)["a"] == 6
    for left in (5, 4, 3):
        assert lb("LB.PICK web EXCLUDE 2 b c LEASE 500") is None
        assert lb(f"LB.DONE web {held.pop()}") == 1
        assert open_leases(lb)["a"] == left
    assert lb("LB.PICK web EXCLUDE 2 b c LEASE 500") is None
    lb(f"LB.DONE web {held.pop()}")
    assert picked(lb("LB.PICK web EXCLUDE 2 b c LEASE 500")) == ["a"]
    lb("LB.LIMIT web MAX 1")
    assert (lb("LB.PICK web"), open_leases(lb)["a"]) == (None, 3)


@pytest.mark.parametrize(
    "ends",
    ["LB.DONE web {id}", "LB.RELEASE web OWNER o", "LB.TICK web 1510", "LB.STATE web b down", "LB.REM web b"]
    + ["LB.SET web a 5 c 2", "LB.LIMIT web MAX 2", "LB.LIMIT web MAX 0"],
)
def test_whatever_ends_a_lease_makes_room(lb, ends):
    lb("LB.LIMIT web MAX 1")
    id = lb("LB.PICK web EXCLUDE 2 a c LEASE 500 OWNER o")[1]
    assert lb("LB.PICK web LEASE 500") is None
    lb(ends.format(id=id))
    assert picked(lb("LB.PICK web EXCLUDE 1 b LEASE 500")) == ["a"]


def test_max_holds_between_clients_that_run_at_once(server):
    """What each one surely held, from the answer to its pick until it sent LB.DONE, never adds up to more."""
    most = {"a": 3, "b": 2, "c": 1}
    with server.client() as client:
        client.execute_command("LB.ADD web a 1 b 1 c 1")
        for backend, number in most.items():
            client.execute_command("LB.LIMIT", "web", "BACKEND", backend, "MAX", number)
        client.execute_command("LB.LIMIT web MAX 5")
    spans = []

    def work(number):
        chance = random.Random(number)
        with server.client() as client:
            for _ in range(150):
                got = client.execute_command("LB.PICK", "web", chance.choice(ALGORITHMS), "LEASE", 60_000)
                if got:
                    begin = time.monotonic()
                    time.sleep(chance.random() / 500)
                    spans.append((got[0], begin, time.monotonic()))
                    assert client.execute_command("LB.DONE", "web", got[1]) == 1

    run_at_once(work, 8)
    assert len(spans) > 100
    for backend, allowed in [*most.items(), (None, 5)]:
        held = [times for name, *times in spans if backend in (None, name)]
        changes = [(begin, 1) for begin, _ in held] + [(end, -1) for _, end in held]
        now = 0
        for _, by in sorted(changes):
            now += by
            assert now <= allowed


def run_at_once(work, clients):
    """Each client in a thread of its own; what fails in one fails here."""
    failed = []

    def run(number):
        try:
            work(number)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=run, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("limit", ["MAX 10", "RATE 10 3600000 BURST 10"])
@pytest.mark.parametrize("tail", [0, 3])
def test_a_failover_lets_a_limit_be_exceeded_by_the_tail_alone(new_server, limit, tail):
    """By as much as the new primary never got; by nothing where WAIT had said that it has all."""
    primary = new_server()
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    with primary.client() as here, replica.client() as there:
        here.execute_command("LB.ADD web a")
        here.execute_command(f"LB.LIMIT web {limit}")
        known = leased(here.execute_command("LB.PICK web COUNT 4 LEASE 600000"))
        assert here.wait(1, 30_000) == 1
        there.replicaof("NO", "ONE")
        lost = leased(here.execute_command(f"LB.PICK web COUNT {tail} LEASE 600000")) if tail else []
        primary.kill()
        granted = leased(there.execute_command("LB.PICK web COUNT 100 LEASE 600000"))
        assert (len(lost), len(known + granted)) == (tail, 10)
        # What nobody knows of frees nothing.
        assert [there.execute_command("LB.DONE", "web", id) for id in lost + known] == [0] * tail + [1] * 4
        assert len(set(known + lost + granted)) == 10 + tail


# RATE and BURST

RATES = [(1, 1, 1), (3, 7, 1), (7, 3, 2), (1, 100, 3), (50, 1000, 4), (999, 1000, 10)]


@every_algorithm
@pytest.mark.parametrize("options", OPTIONS)
def test_no_window_holds_more_than_rate_and_burst(lb, algorithm, options):
    """Clients come when they like, and take all that they are given; each window of the log is looked at."""
    chance = random.Random(f"{algorithm} {options}")
    rates = {"a": (3, 7, 1), "b": (1, 100, 3), "c": (50, 1000, 4), None: (2, 11, 5)}
    set_rates(lb, rates)
    log = {backend: [] for backend in rates}
    clock = 1000
    for _ in range(120):
        lease = chance.choice(["", "LEASE 20"])
        for backend in picked(lb(f"LB.PICK web {algorithm} {options} {lease}")):
            log[backend].append(clock)
            log[None].append(clock)
        if chance.random() < 0.5:
            clock += chance.choice([1, 1, 2, 3, 5, 10, 40])
            lb(f"LB.TICK web {clock}")
    assert len(log[None]) > 30
    for backend, rate in rates.items():
        assert_no_window_is_overfull(log[backend], *rate)


def set_rates(lb, rates):
    for backend, (rate, millis, burst) in rates.items():
        where = f"BACKEND {backend}" if backend else ""
        assert lb(f"LB.LIMIT web {where} RATE {rate} {millis} BURST {burst}") == "OK"


@pytest.mark.parametrize(("rate", "millis", "burst"), RATES)
@pytest.mark.parametrize("where", ["", "BACKEND a"])
def test_whoever_is_greedy_gets_all_that_the_rate_allows(lb, where, rate, millis, burst):
    """The first tokens at once, then each one in the first millisecond in which it is there."""
    lb("LB.SET web a 1")
    lb(f"LB.LIMIT web {where} RATE {rate} {millis} BURST {burst}")
    log = []
    for clock in range(1000, 1150):
        lb(f"LB.TICK web {clock}")
        log += [clock] * len(lb("LB.PICK web COUNT 50"))
    parts, expected = burst * millis, []
    for clock in range(1000, 1150):
        while parts >= millis:
            parts -= millis
            expected.append(clock)
        parts = min(parts + rate, burst * millis)
    assert log == expected
    assert_no_window_is_overfull(log, rate, millis, burst)


def test_burst_is_1_unless_it_is_said(lb):
    lb("LB.LIMIT web RATE 1000 1")
    assert len(lb("LB.PICK web COUNT 9")) == 1
    lb("LB.TICK web 1001")
    assert len(lb("LB.PICK web COUNT 9")) == 1
    lb("LB.LIMIT web RATE 1000 1 BURST 4")
    lb("LB.TICK web 1002")
    assert len(lb("LB.PICK web COUNT 9")) == 4


def test_the_largest_numbers_are_exact(lb):
    lb("LB.SET web a 1")
    lb(f"LB.LIMIT web RATE 1 {2**40} BURST 1")
    assert [lb("LB.PICK web"), lb("LB.PICK web")] == ["a", None]
    assert lb("LB.WHEN web") == ["limited", 2**40 + 4]
    lb(f"LB.TICK web {1000 + 2**40 - 1}")
    assert lb("LB.PICK web") is None
    lb(f"LB.TICK web {1000 + 2**40}")
    assert lb("LB.PICK web") == "a"
    lb(f"LB.LIMIT web RATE {2**40} {2**40} BURST {2**40}")
    assert lb("LB.WHEN web") == ["limited", 4]
    lb(f"LB.TICK web {2**47}")
    assert len(lb("LB.PICK web COUNT 10000")) == 10_000
    assert lb("DEBUG RELOAD") == "OK"


def test_tokens_of_backend_and_pool_are_taken_together_or_not_at_all(lb):
    """What one side refuses costs the other one nothing."""
    lb("LB.SET web a 1 b 1")
    lb("LB.LIMIT web RATE 1 100 BURST 1")
    lb("LB.LIMIT web BACKEND a RATE 1 1000 BURST 3")
    assert lb("LB.PICK web EXCLUDE 1 b") == "a"
    before = state(lb)
    for options in [
        "",
        "rr",
        "EXCLUDE 1 b",
        "COUNT 3 LEASE 9",
        "random",
        "p2c LEASE 9",
        "lc COUNT 2 DISTINCT",
    ]:
        assert picked(lb(f"LB.PICK web {options}")) == []
    assert state(lb) == before
    # Two of the tokens of `a` are there still, and one of the pool each 100 ms.
    for clock in (1100, 1200):
        lb(f"LB.TICK web {clock}")
        assert picked(lb("LB.PICK web COUNT 3 EXCLUDE 1 b")) == ["a"]
    lb("LB.TICK web 1300")
    before = state(lb)
    assert lb("LB.PICK web COUNT 3 EXCLUDE 1 b") == []
    assert state(lb) == before
    assert lb("LB.PICK web COUNT 3") == ["b"]


def test_a_lease_that_max_refuses_takes_no_token(lb):
    lb("LB.SET web a 1")
    lb("LB.LIMIT web BACKEND a MAX 1 RATE 1 1000 BURST 2")
    id = lb("LB.PICK web LEASE 9000")[1]
    before = state(lb)
    assert (lb("LB.PICK web LEASE 500"), lb("LB.PICK web")) == (None, None)
    assert state(lb) == before
    lb(f"LB.DONE web {id}")
    assert [lb("LB.PICK web"), lb("LB.PICK web")] == ["a", None]


@pytest.mark.parametrize("algorithm", ["rr", "wrr", "lc"])
@pytest.mark.parametrize("options", ["COUNT 9", "COUNT 9 DISTINCT", "COUNT 9 EXCLUDE 1 a", ""])
def test_peek_goes_by_limits_and_takes_no_token(lb, algorithm, options):
    lb("LB.LIMIT web BACKEND a MAX 1 RATE 1 50 BURST 2")
    lb("LB.LIMIT web BACKEND c TIER 1 RATE 1 30")
    lb("LB.LIMIT web RATE 3 50 BURST 4")
    for clock in range(1000, 1300, 7):
        lb(f"LB.TICK web {clock}")
        before = state(lb)
        foreseen = lb(f"LB.PEEK web {algorithm} {options}")
        assert state(lb) == before
        assert lb(f"LB.PICK web {algorithm} {options}") == foreseen


def test_another_rate_gives_no_tokens_away(lb):
    lb("LB.SET web a 1")
    lb("LB.LIMIT web BACKEND a RATE 1 100 BURST 10")
    assert len(lb("LB.PICK web COUNT 8")) == 8
    lb("LB.LIMIT web BACKEND a RATE 5 1000 BURST 100")
    assert len(lb("LB.PICK web COUNT 50")) == 2
    lb("LB.TICK web 1400")
    lb("LB.LIMIT web BACKEND a RATE 5 1000 BURST 1")
    assert len(lb("LB.PICK web COUNT 50")) == 1


def test_the_same_limits_again_change_nothing(lb):
    lb("LB.LIMIT web BACKEND a MAX 3 RATE 5 100 BURST 2 TIER 1")
    lb("LB.LIMIT web MAX 4 RATE 5 100 BURST 2")
    lb("LB.PICK web COUNT 2")
    before = state(lb)
    lb("LB.LIMIT web BACKEND a MAX 3 RATE 5 100 BURST 2 TIER 1")
    lb("LB.LIMIT web MAX 4")
    lb("LB.LIMIT web RATE 5 100 BURST 2")
    assert state(lb) == before


def test_a_rate_holds_between_clients_that_run_at_once(server):
    """A pick came between its command and its answer; the pool's clock may be a step of 10 ms behind."""
    rates = {"a": (30, 100, 3), "b": (1, 5, 1), None: (40, 100, 5)}
    with server.client() as client:
        client.execute_command("LB.ADD web a 1 b 1")
        set_rates(client.execute_command, rates)
    log = []

    def work(number):
        chance = random.Random(number)
        with server.client() as client:
            ends = time.monotonic() + 1
            # A busy machine may take longer for as many as are wanted.
            while time.monotonic() < ends or len(log) <= 100:
                sent = time.monotonic()
                reply = client.execute_command("LB.PICK", "web", chance.choice(ALGORITHMS), "COUNT", 2)
                answered = time.monotonic()
                log.extend((backend, sent, answered) for backend in reply)
                time.sleep(chance.random() / 300)

    run_at_once(work, 4)
    assert len(log) > 100
    for backend, (rate, millis, burst) in rates.items():
        surely = sorted((sent, answered) for name, sent, answered in log if backend in (None, name))
        for first, (begin, _) in enumerate(surely):
            inside = sorted(answered for _, answered in surely[first:])
            for number, end in enumerate(inside, 1):
                span = (end - begin) * 1000 + 10 + 2
                assert number <= burst + span * rate // millis, (backend, begin, end)


# Tiers


@every_algorithm
def test_a_tier_serves_while_no_lower_one_can(lb, algorithm):
    lb("LB.SET web a 5 b 3 c 2 d 1")
    for backend, tier in [("b", 1), ("c", 1), ("d", 255)]:
        lb(f"LB.LIMIT web BACKEND {backend} TIER {tier}")
    assert set(lb(f"LB.PICK web {algorithm} COUNT 20")) == {"a"}
    lb("LB.STATE web a drain")
    assert set(lb(f"LB.PICK web {algorithm} COUNT 50")) <= {"b", "c"}
    assert set(lb(f"LB.PICK web {algorithm} COUNT 50 EXCLUDE 2 b c")) == {"d"}
    lb("LB.WEIGHT web b 0 c 0")
    assert set(lb(f"LB.PICK web {algorithm} COUNT 20")) == {"d"}
    lb("LB.STATE web a up")
    assert set(lb(f"LB.PICK web {algorithm} COUNT 20")) == {"a"}


@every_algorithm
def test_a_limit_spills_over_within_a_command_and_comes_back(lb, algorithm):
    lb("LB.SET web a 1 b 1 c 1")
    lb("LB.LIMIT web BACKEND a MAX 2")
    lb("LB.LIMIT web BACKEND b TIER 1 RATE 1 100 BURST 3")
    lb("LB.LIMIT web BACKEND c TIER 2")
    granted = lb(f"LB.PICK web {algorithm} COUNT 7 LEASE 500")
    assert [backend for backend, _ in granted] == list("aabbbcc")
    assert lb(f"LB.PICK web {algorithm}") == "c"
    lb("LB.TICK web 1100")
    assert [lb(f"LB.PICK web {algorithm}") for _ in range(3)] == list("bcc")
    lb(f"LB.DONE web {granted[0][1]}")
    assert [lb(f"LB.PICK web {algorithm}") for _ in range(3)] == list("aaa")
    assert picked(lb(f"LB.PICK web {algorithm} COUNT 3 DISTINCT LEASE 500")) == ["a", "c"]


def test_a_backend_in_another_tier_is_a_newcomer_there(lb):
    lb("LB.SET web a 5 b 1 c 1")
    assert [lb("LB.PICK web") for _ in range(3)] == list("aab")
    for backend in "abc":
        lb(f"LB.LIMIT web BACKEND {backend} TIER 7")
    assert [lb("LB.PICK web") for _ in range(7)] == list("aabacaa")


def test_rr_goes_on_behind_the_last_one_whatever_tier_that_was(lb):
    lb("LB.SET web a 1 b 1 c 1 d 1")
    lb("LB.LIMIT web BACKEND b TIER 1")
    lb("LB.LIMIT web BACKEND d TIER 1")
    assert [lb("LB.PICK web rr") for _ in range(3)] == list("aca")
    assert lb("LB.PICK web rr COUNT 3 EXCLUDE 2 a c") == list("bdb")
    assert [lb("LB.PICK web rr") for _ in range(2)] == list("ca")


def test_newcomers_are_of_tier_0(lb):
    for backend in "abc":
        lb(f"LB.LIMIT web BACKEND {backend} TIER 3")
    lb("LB.ADD web d")
    assert set(lb("LB.PICK web COUNT 9")) == {"d"}
    lb("LB.REM web a")
    lb("LB.ADD web a")
    assert limits(lb, "BACKEND a") == {}
    assert set(lb("LB.PICK web COUNT 9")) == {"a", "d"}


def test_a_pool_has_sixteen_tiers_at_most(lb):
    members = [f"b{number}" for number in range(17)]
    lb("LB.SET", "web", *(word for name in members for word in (name, 1)))
    for tier, name in enumerate(members[:16]):
        lb(f"LB.LIMIT web BACKEND {name} TIER {16 * tier}")
    before = state(lb)
    with pytest.raises(redis.ResponseError, match="at most 16 different tiers"):
        lb("LB.LIMIT web BACKEND b16 MAX 3 RATE 5 100 TIER 5")
    assert state(lb) == before
    assert lb("LB.LIMIT web BACKEND b16 TIER 240") == "OK"
    assert lb("DEBUG RELOAD") == "OK"
    lb("LB.REM web b15 b16")
    assert lb("LB.LIMIT web BACKEND b14 TIER 5") == "OK"
    assert lb("LB.LIMIT web BACKEND b13 TIER 6") == "OK"


def test_sixteen_tiers_and_newcomers_are_saved_and_loaded(manual):
    """Tier 0, where newcomers are, is one of the sixteen, whether anybody is there or not."""
    with manual.client() as client, manual.client(decode_responses=False) as raw:
        lb = client.execute_command
        lb("LB.SET", "web", *(word for number in range(16) for word in (number, 1)))
        for backend, tier in [*zip(range(15), range(1, 16), strict=True), (15, 5), (15, 16)]:
            try:
                lb(f"LB.LIMIT web BACKEND {backend} TIER {tier}")
            except redis.ResponseError as error:
                assert "at most 16" in str(error)
        lb("LB.ADD web newcomer")
        raw.restore("twin", 0, raw.dump("web"))
        assert lb("DEBUG DIGEST-VALUE twin") == lb("DEBUG DIGEST-VALUE web")


# LB.LIMIT

SET = [("MAX 3", {"max": 3}), ("RATE 5 1000", {"rate": 5, "rate-ms": 1000, "burst": 1})]
SET += [("RATE 5 1000 BURST 7", {"rate": 5, "rate-ms": 1000, "burst": 7})]


@pytest.mark.parametrize("where", ["", "BACKEND a"])
def test_limit_tells_what_is_set(lb, where):
    assert limits(lb, where) == {}
    for command, told in SET:
        lb(f"LB.LIMIT web {where} {command}")
        assert limits(lb, where) == {"max": 3} | told
    lb(f"LB.LIMIT web {where} MAX 0")
    assert limits(lb, where) == {"rate": 5, "rate-ms": 1000, "burst": 7}
    lb(f"LB.LIMIT web {where} RATE 0 0")
    assert limits(lb, where) == {}
    assert {backend: limits(lb, f"BACKEND {backend}") for backend in "bc"} == {"b": {}, "c": {}}


@pytest.mark.parametrize("where", ["", "BACKEND a"])
@pytest.mark.parametrize("ms", [0, 1, 1000, 2**40])
def test_rate_0_removes_the_rate_whatever_the_time_is(lb, where, ms):
    lb(f"LB.LIMIT web {where} MAX 3 RATE 5 1000")
    assert lb(f"LB.LIMIT web {where} RATE 0 {ms}") == "OK"
    assert limits(lb, where) == {"max": 3}
    before = state(lb)
    assert lb(f"LB.LIMIT web {where} RATE 0 {ms}") == "OK"
    assert state(lb) == before


def test_tier_is_told_unless_it_is_0(lb):
    lb("LB.LIMIT web TIER 9 BACKEND a MAX 1")
    assert limits(lb, "BACKEND a") == {"max": 1, "tier": 9}
    lb("LB.LIMIT web BACKEND a TIER 0")
    assert limits(lb, "BACKEND a") == {"max": 1}
    assert limits(lb) == {}


def test_no_limit_lets_all_through_at_once(lb):
    lb("LB.LIMIT web BACKEND a MAX 1 RATE 1 100000")
    lb("LB.LIMIT web MAX 1 RATE 1 100000")
    lb("LB.PICK web EXCLUDE 2 b c LEASE 500")
    assert lb("LB.PICK web") is None
    lb("LB.LIMIT web MAX 0 RATE 0 0")
    assert set(lb("LB.PICK web COUNT 20")) == {"b", "c"}
    lb("LB.LIMIT web BACKEND a MAX 0 RATE 0 0")
    assert len(lb("LB.PICK web COUNT 20 LEASE 500")) == 20
    assert lb("LB.WHEN web") == ["available", 0]
    # A limit that comes again begins full.
    lb("LB.LIMIT web RATE 1 100000 BURST 3")
    assert len(lb("LB.PICK web COUNT 20")) == 3


@pytest.mark.parametrize(
    "command",
    [
        "LB.SET web a 1 b 1 d 1",
        "LB.ADD web a 9",
        "LB.WEIGHT web a 0",
        "LB.STATE web a down",
        "LB.POLICY web lc",
    ]
    + ["RENAME web other", "COPY web other", "DEBUG RELOAD"],
)
def test_limits_stay_with_their_backend(lb, command):
    lb("LB.LIMIT web BACKEND a MAX 1 RATE 5 1000 BURST 7 TIER 2")
    before = limits(lb, "BACKEND a")
    lb(command)
    key = "other" if "other" in command else "web"
    assert dict_of(lb(f"LB.LIMIT {key} BACKEND a")) == before


NONE = {"max": 0, "rate": 0, "rate-ms": 0, "burst": 0, "tokens": 0}


def standing(lb, look):
    """What LB.STATS or LB.INFO says of limits."""
    told = dict_of(lb(look))
    return {field: told[field] for field in [*NONE, "tier"] if field in told}


@pytest.mark.parametrize(("look", "where"), [("LB.INFO web", ""), ("LB.STATS web a", "BACKEND a")])
def test_looks_show_limits_and_the_tokens_that_are_left(lb, look, where):
    tier = {"tier": 0} if where else {}
    assert standing(lb, look) == NONE | tier
    lb(f"LB.LIMIT web {where} MAX 3")
    assert standing(lb, look) == NONE | tier | {"max": 3}
    lb(f"LB.LIMIT web {where} MAX 0 RATE 3 100 BURST 5")
    rate = {"rate": 3, "rate-ms": 100, "burst": 5}
    for _ in range(5):
        lb("LB.PICK web EXCLUDE 2 b c")
    tokens = []
    for clock in (1000, 1033, 1034, 1066, 1067, 1100, 9000):
        lb(f"LB.TICK web {clock}")
        tokens.append(standing(lb, look)["tokens"])
        assert standing(lb, look) == NONE | tier | rate | {"tokens": tokens[-1]}
    assert tokens == [0, 0, 1, 1, 2, 3, 5]
    if where:
        lb("LB.LIMIT web BACKEND a TIER 7")
        assert standing(lb, look)["tier"] == 7
        assert dict_of(dict_of(lb("LB.STATS web"))["a"])["tokens"] == 5
        assert standing(lb, "LB.STATS web b") == NONE | tier
        assert standing(lb, "LB.INFO web") == NONE
    lb(f"LB.LIMIT web {where} RATE 0 0")
    assert standing(lb, look)["tokens"] == 0


def test_replicas_and_full_servers_show_limits(new_server):
    primary = new_server()
    replica = new_server(**replica_of(primary))
    eventually(lambda: is_linked(replica))
    with primary.client() as here, replica.client() as there:
        here.execute_command("LB.ADD web a")
        here.execute_command("LB.LIMIT web MAX 9 RATE 1 3600000 BURST 7")
        here.execute_command("LB.LIMIT web BACKEND a MAX 3 RATE 1 3600000 BURST 5")
        here.execute_command("LB.PICK web COUNT 2")
        assert here.wait(1, 30_000) == 1
        for client in (here, there):
            client.config_set("maxmemory", 1)
            rate = {"rate": 1, "rate-ms": 3600000}
            pool = standing(client.execute_command, "LB.INFO web")
            assert pool == rate | {"max": 9, "burst": 7, "tokens": 5}
            backend = standing(client.execute_command, "LB.STATS web a")
            assert backend == rate | {"max": 3, "burst": 5, "tokens": 3, "tier": 0}


def test_a_full_server_takes_limits_away_and_sets_none(new_server):
    server = new_server(maxmemory_policy="noeviction")
    with server.client() as client:
        lb = client.execute_command
        lb("LB.ADD web a")
        lb("LB.ADD free a")
        for where in ("", "BACKEND a"):
            lb(f"LB.LIMIT web {where} MAX 3 RATE 5 3600000")
        client.config_set("maxmemory", 1)
        size = dict_of(lb("LB.INFO free"))["bytes"]
        before = lb("DEBUG DIGEST-VALUE web"), lb("DEBUG DIGEST-VALUE free")
        setting = ["MAX 4", "RATE 5 100", "MAX 0 RATE 5 100", "BACKEND a MAX 2", "BACKEND a TIER 1"]
        for options in [*setting, "BACKEND a TIER 0", "BACKEND a MAX 0 TIER 0", "MAX 3"]:
            for key in ("web", "free", "none"):
                with pytest.raises(redis.OutOfMemoryError):
                    lb(f"LB.LIMIT {key} {options}")
        assert (lb("DEBUG DIGEST-VALUE web"), lb("DEBUG DIGEST-VALUE free")) == before
        assert lb("EXISTS none") == 0
        assert limits(lb) == limits(lb, "BACKEND a") == {"max": 3, "rate": 5, "rate-ms": 3600000, "burst": 1}
        assert [lb("LB.LIMIT free MAX 0"), lb("LB.LIMIT free BACKEND a MAX 0 RATE 0 0")] == ["OK", "OK"]
        assert dict_of(lb("LB.INFO free"))["bytes"] == size
        for where in ("", "BACKEND a"):
            assert lb(f"LB.LIMIT web {where} MAX 0") == "OK"
            assert limits(lb, where) == {"rate": 5, "rate-ms": 3600000, "burst": 1}
            assert lb(f"LB.LIMIT web {where} RATE 0 0") == "OK"
            assert limits(lb, where) == {}
        assert len(lb("LB.PICK web COUNT 50")) == 50


# LB.WHEN


def at(lb, clock):
    """What LB.WHEN tells at that time."""
    lb(f"LB.TICK web {clock}")
    return lb("LB.WHEN web")


def test_when_a_lease_makes_room(lb):
    lb("LB.LIMIT web MAX 2")
    lb("LB.PICK web LEASE 500")
    assert lb("LB.WHEN web") == ["available", 0]
    lb("LB.PICK web LEASE 90")
    assert lb("LB.WHEN web") == ["limited", 100]
    assert at(lb, 1099) == ["limited", 1]
    assert at(lb, 1100) == ["available", 0]


def test_when_more_than_one_lease_has_to_end(lb):
    lb("LB.SET web a 1")
    for ms in (500, 90, 290):
        lb(f"LB.PICK web LEASE {ms}")
    lb("LB.LIMIT web BACKEND a MAX 2")
    assert lb("LB.WHEN web") == ["limited", 300]
    lb("LB.LIMIT web MAX 1")
    assert lb("LB.WHEN web") == ["limited", 510]
    lb("LB.LIMIT web BACKEND a MAX 1")
    assert lb("LB.WHEN web") == ["limited", 510]
    assert at(lb, 1509) == ["limited", 1]
    assert at(lb, 1510) == ["available", 0]


def test_when_a_token_comes(lb):
    lb("LB.SET web a 1 b 1")
    lb("LB.LIMIT web BACKEND a RATE 3 1000")
    lb("LB.LIMIT web BACKEND b RATE 1 700")
    lb("LB.PICK web COUNT 2")
    # A third of a second, in steps of a clock.
    assert lb("LB.WHEN web") == ["limited", 340]
    lb("LB.LIMIT web RATE 1 500")
    assert at(lb, 1333) == ["limited", 7]
    assert at(lb, 1334) == ["available", 0]
    assert lb("LB.PICK web") == "a"
    # Of the pool in 500 ms, though b is back in 366.
    assert lb("LB.WHEN web") == ["limited", 506]
    assert at(lb, 1833) == ["limited", 7]
    assert at(lb, 1834) == ["available", 0]


def test_when_both_leases_and_tokens_are_needed(lb):
    lb("LB.SET web a 1")
    lb("LB.LIMIT web BACKEND a MAX 1 RATE 1 2000")
    lb("LB.PICK web LEASE 500")
    assert lb("LB.WHEN web") == ["limited", 2000]
    lb("LB.LIMIT web RATE 1 3000")
    assert lb("LB.WHEN web") == ["limited", 2000]
    lb("LB.LIMIT web BACKEND a RATE 1 100")
    assert lb("LB.WHEN web") == ["limited", 510]


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        (["LB.STATE web a drain", "LB.STATE web b down", "LB.WEIGHT web c 0"], "drained"),
        (["LB.STATE web a down", "LB.STATE web b down", "LB.WEIGHT web c 0"], "down"),
        (["LB.WEIGHT web a 0 b 0 c 0"], "quiesced"),
        (["LB.POLICY web rr", "LB.REM web a b c"], "empty"),
        (["LB.LIMIT web MAX 1", "LB.REM web a b c"], "empty"),
        (["LB.PICK web LEASE 500", "LB.LIMIT web MAX 1", "LB.WEIGHT web a 0 b 0 c 0"], "quiesced"),
        (["LB.LIMIT web RATE 1 1000", "LB.PICK web", "LB.SET web a 1", "LB.STATE web a drain"], "drained"),
        (["DEL web"], "empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_when_none_comes_back_by_itself(lb, commands, reason):
    for command in commands:
        lb(command)
    assert lb("LB.WHEN web") == [reason, -1]


def test_when_one_comes_back_and_others_do_not(lb):
    lb("LB.STATE web a drain")
    lb("LB.STATE web b down")
    lb("LB.LIMIT web BACKEND c MAX 1")
    lb("LB.PICK web LEASE 500")
    assert lb("LB.WHEN web") == ["limited", 510]


def test_when_is_right_to_the_step(lb):
    """Whatever the limits: a clock that moves in steps of 10 ms shows it then, and not a step earlier."""
    chance = random.Random(4)
    waited = 0
    clock = 1000
    for _ in range(400):
        backend = chance.choice("abc")
        rate = f"RATE {chance.randrange(1, 9)} {chance.randrange(1, 300)}"
        lb(
            chance.choice(
                [
                    f"LB.LIMIT web BACKEND {backend} MAX {chance.randrange(4)}",
                    f"LB.LIMIT web BACKEND {backend} {rate}",
                    f"LB.LIMIT web BACKEND {backend} RATE 0 0 TIER {chance.randrange(3)}",
                    f"LB.LIMIT web MAX {chance.randrange(6)}",
                    f"LB.LIMIT web {rate} BURST 2",
                    f"LB.STATE web {backend} {chance.choice(['up', 'up', 'drain'])}",
                ]
            )
        )
        for _ in range(4):
            lb(f"LB.PICK web {chance.choice(ALGORITHMS)} LEASE {chance.randrange(1, 900)}")
        reason, ms = lb("LB.WHEN web")
        if reason == "available":
            assert (ms, bool(lb("LB.PEEK web"))) == (0, True)
        elif reason == "limited":
            waited += 1
            assert ms >= 1 and (clock + ms) % 10 == 0
            if ms > 10:
                assert at(lb, clock + ms - 10) == ["limited", 10]
                assert lb("LB.PEEK web") is None
            clock += ms
            assert at(lb, clock) == ["available", 0]
            assert lb("LB.PEEK web")
    assert waited > 50


def test_when_counts_from_now_though_the_clock_stands_while_nothing_is_due(client):
    client.execute_command("LB.ADD web a")
    client.execute_command("LB.LIMIT web RATE 1 60000")
    client.execute_command("LB.PICK web")
    clock = dict_of(client.execute_command("LB.INFO web"))["clock"]
    _, first = client.execute_command("LB.WHEN web")
    eventually(lambda: client.execute_command("LB.WHEN web")[1] <= first - 100)
    assert dict_of(client.execute_command("LB.INFO web"))["clock"] == clock


@pytest.mark.parametrize(
    ("limit", "options", "rounds"),
    [
        ("RATE 1 3", "", 100),
        ("RATE 1 7", "", 100),
        ("BACKEND a RATE 1 7", "", 50),
        ("RATE 3 100", "", 50),
        ("RATE 1 1000", "", 2),
        ("MAX 1", "LEASE 50", 30),
        ("BACKEND a MAX 1 RATE 1 73", "LEASE 50", 20),
    ],
)
def test_whoever_sleeps_as_long_as_told_is_served(client, limit, options, rounds):
    client.execute_command("LB.ADD web a")
    client.execute_command(f"LB.LIMIT web {limit}")
    slept = 0
    for _ in range(rounds):
        # Nearly always that is one pick.
        while client.execute_command(f"LB.PICK web {options}"):
            pass
        reason, ms = client.execute_command("LB.WHEN web")
        assert reason == "limited" or ms == 0
        slept += ms
        time.sleep(ms / 1000)
        assert client.execute_command(f"LB.PICK web {options}"), (slept, ms)
    assert slept > rounds
