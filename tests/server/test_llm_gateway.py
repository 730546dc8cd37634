"""The LLM gateway of the document: three processes, a strict provider, and tenants that want all of it."""

import asyncio
import os
import random
from collections.abc import Iterator
from statistics import median

import pytest

import redis_lb
from documents import ROOT, blocks_of
from provider import MINUTE, Limits, Reserving
from stage import Stage, Wish
from wire import Wire, dict_of

DOCUMENT = ROOT / "src" / "clients" / "gateway" / "README.md"
GATEWAYS = 3
KEYS = ["key-1", "key-2", "key-3"]
LIMITS = Limits(requests=200, tokens=60_000, at_once=12)
RATE, BURST = 58_006, 1_800  # of the bucket in which a key has its tokens, as the document says
# What runs at the end has reserved more than it has used by then: a twentieth of the budget of two minutes.
MINUTES, SHARE = (10, 0.95) if os.environ.get("REDIS_LB_LONG") == "1" else (2, 0.9)
TENANTS = 60  # each with one request at a time


def wishes(seed: int) -> Iterator[Wish]:
    """Those of a tenant: prompts and answers of lognormal length, cut."""
    chance = random.Random(seed)
    name = "batch" if seed % 15 else "chat"
    while True:
        prompt, answer = (round(mean * chance.lognormvariate(-0.5, 1)) for mean in (200, 300))
        yield Wish(name, min(400, max(1, prompt)), 700, min(700, max(1, answer)))


@pytest.fixture
def program(tmp_path):
    """The gateway as it stands there."""
    (block,) = [block for block in blocks_of(DOCUMENT) if block.kind == "gateway"]
    path = tmp_path / "gateway.py"
    path.write_text(block.text)
    return str(path)


def set_up(port):
    """The pool as it stands there."""
    (block,) = [block for block in blocks_of(DOCUMENT) if block.language == "redis"]
    typed = [line.removeprefix("> ") for line in block.text.splitlines() if line.startswith("> ")]
    with Wire(port) as wire:
        for command in typed[:-1]:  # the last one deletes it
            assert wire.ask(command) in ("OK", len(KEYS)), command


def played(stage, program):
    """After some minutes in which there is less than the tenants want."""
    set_up(stage.port)
    asyncio.run(stage.play(program, GATEWAYS, [wishes(i) for i in range(TENANTS)], MINUTES * MINUTE))
    assert {*stage.statuses} == {200} and stage.provider.running() == 0
    return stage


class Bucket:
    """That of a cost, as the contract says. It counts in sixty thousandths of a token."""

    def __init__(self, rate, burst):
        self.rate, self.full = rate, burst * MINUTE
        self.level, self.now = self.full, 0

    def at(self, now):
        if self.level < self.full:
            self.level = min(self.full, self.level + (now - self.now) * self.rate)
        self.now = now
        return self.level

    def take(self, entry):
        self.level = min(self.full, self.at(entry.now) - entry.tokens * MINUTE)


def nothing_is_forgotten(stage):
    """What the pool said was left is what the log of the gateways leaves, debts too. The least of it."""
    buckets = {key: Bucket(RATE, BURST) for key in KEYS}
    log = iter([*stage.log, None])
    entry = next(log)
    for now, left in stage.looks:
        while entry and entry.now <= now:
            buckets[entry.key].take(entry)
            entry = next(log)
        for key, bucket in buckets.items():
            assert 0 <= bucket.at(now) // MINUTE - left[key] <= 1, (now, key)
    return min(min(left.values()) for _, left in stage.looks)


@pytest.mark.once("the gateway is the same on all servers")
@pytest.mark.timeout(600)
def test_no_request_is_refused_where_estimates_are_bounds(manual, program):
    stage = played(Stage(manual.port, Reserving(LIMITS), lambda wish, estimate: wish.answer), program)
    assert stage.provider.refused == dict.fromkeys(stage.provider.refused, 0)
    used = [of / (LIMITS.tokens * MINUTES) for of in stage.used.values()]
    assert min(used) >= SHARE
    assert nothing_is_forgotten(stage) >= 0
    assert max(stage.waits["chat"]) < median(stage.waits["batch"])


@pytest.mark.once("the gateway is the same on all servers")
@pytest.mark.timeout(600)
def test_debts_are_paid_where_estimates_are_half_of_what_is_used(manual, program):
    stage = played(
        Stage(manual.port, Reserving(LIMITS), lambda wish, estimate: 2 * estimate - wish.prompt), program
    )
    assert stage.provider.refused == dict.fromkeys(stage.provider.refused, 0)
    assert nothing_is_forgotten(stage) < 0


@pytest.mark.once("the client is the same on all servers")
def test_a_lease_settles_what_the_request_has_cost(manual):
    with manual.client() as client:
        pool = redis_lb.Pool(client, "llm", timeout_ms=30_000)
        pool.add("key")
        client.execute_command("LB.LIMIT llm COST tokens 1000 60000 BURST 1000")

        def left():
            return dict_of(dict_of(dict_of(client.execute_command("LB.INFO llm"))["costs"])["tokens"])["left"]

        with pool.lease(costs={"tokens": 600}) as lease:
            assert left() == 400
            lease.costs = {"tokens": 100}
        assert left() == 900
        with pool.lease(costs={"tokens": 600}):
            pass
        assert left() == 300, "the estimate stays"
        with pytest.raises(redis_lb.NoBackendError):
            pool.lease(costs={"tokens": 301}).__enter__()
        for attempt in pool.attempts(1, costs={"tokens": 300}):
            with attempt as lease:
                lease.costs = {"tokens": 700}
        assert left() == -400
        pool.close()
