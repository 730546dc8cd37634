"""The figures of budgets that are shared, the provider that keeps them, and the rules of the others."""

import json
import random
import sys
from pathlib import Path

import pytest

from documents import ROOT
from provider import MINUTE, Limits, Producing, Refusal, Reserving

sys.path.append(str(Path(__file__).parents[1]))
from bench import budgets, limiters  # noqa: E402
from bench.limiters import Later, Request  # noqa: E402

DOCUMENT = ROOT / "tests" / "bench" / "README.md"
SMALL = Limits(requests=4, tokens=100, at_once=2)


@pytest.fixture(scope="module")
def data():
    return json.loads((budgets.DATA / "budgets.json").read_text())


# The figures


def short_of(data, scenario, ways):
    return [row for row in data["short"] if row["scenario"] == scenario.title and row["way"] in ways]


@pytest.mark.once("the figures are those of one server")
@pytest.mark.parametrize("scenario", budgets.SCENARIOS, ids=lambda scenario: scenario.title)
def test_a_short_trace_gives_the_very_figures_of_this_module(manual, data, scenario):
    found = budgets.of_module(manual.port, budgets.short(scenario))
    assert found == short_of(data, scenario, budgets.OURS)


@pytest.mark.parametrize("scenario", budgets.SCENARIOS, ids=lambda scenario: scenario.title)
def test_a_short_trace_gives_the_very_figures_of_the_others(data, scenario):
    assert budgets.of_others(budgets.short(scenario)) == short_of(data, scenario, budgets.OTHERS)


def test_the_targets_are_reached(data):
    assert not [title for title, _, _, is_reached in budgets.reached(data["whole"]) if not is_reached]


def test_the_picture_and_the_document_show_the_figures(data):
    assert (budgets.DATA / "budgets.svg").read_text() == budgets.picture(data["whole"])
    _, _, rest = DOCUMENT.read_text().partition(budgets.MARKS[0])
    assert rest.partition(budgets.MARKS[1])[0] == budgets.shown(data)


# The provider


def test_the_provider_keeps_each_limit_of_each_key():
    provider = Reserving(SMALL)
    assert provider.begin(0, "a", 10, 10) is provider.begin(0, "a", 10, 10) is None
    assert provider.begin(0, "a", 10, 10) == Refusal("at once", 1)
    assert provider.begin(0, "b", 10, 101).limit == "tokens"
    for key in "aa":
        provider.end(1, key, 10, 10)
    assert provider.begin(1, "a", 10, 81) == Refusal("tokens", 60)
    assert provider.begin(1, "a", 10, 80) is None
    provider.end(2, "a", 80, 80)
    assert provider.begin(30_000, "a", 1, 0) is None
    assert provider.begin(30_000, "a", 1, 0) == Refusal("requests", 30)
    assert provider.refused == {"requests": 1, "tokens": 2, "at once": 1}


def test_providers_differ_in_when_they_count():
    reserving, producing = Reserving(SMALL), Producing(SMALL)
    for provider in reserving, producing:
        assert provider.begin(0, "a", 10, 100) is None
    assert reserving.begin(0, "a", 1, 1).limit == "tokens"
    assert producing.begin(0, "a", 1, 1) is None
    for provider in reserving, producing:
        provider.produce(1, "a", 40)
        provider.end(1, "a", 100, 50)
    assert reserving.begin(1, "a", 1, 51).limit == "tokens"
    assert reserving.begin(1, "a", 1, 50) is None
    assert producing.begin(1, "a", 50, 1).limit == "tokens"
    assert producing.begin(1, "a", 49, 1) is None


@pytest.mark.parametrize("kind", [Reserving, Producing])
def test_no_minute_has_more_than_the_limit_and_retry_after_is_long_enough(kind):
    chance = random.Random(1)
    provider, admitted, now = kind(Limits(requests=10, tokens=1000, at_once=50)), [], 0
    for _ in range(3000):
        now += chance.randrange(4000)
        prompt = chance.randrange(1, 400)
        refusal = provider.begin(now, "a", prompt, prompt)
        if refusal is None:
            admitted.append((now, prompt))
            provider.end(now, "a", prompt, prompt)
        else:
            now += 1000 * refusal.retry_after
            assert provider.begin(now, "a", prompt, prompt) is None
            admitted.append((now, prompt))
            provider.end(now, "a", prompt, prompt)
        window = [prompt for at, prompt in admitted if at > now - MINUTE]
        assert len(window) <= 10 and sum(window) <= 1000


# The rules of the others


def picks(limiter, now, count, estimate=10):
    return [limiter.pick(now, Request(0, estimate, estimate)) for _ in range(count)]


ONE = Request(0, 10, 10)


@pytest.mark.parametrize("kind", [limiters.KongFixed, limiters.EnvoyAIGateway])
def test_clock_minutes_begin_anew_and_tokens_count_after_the_response(kind):
    limiter = kind(1, Limits(requests=9, tokens=100, at_once=9), 1)
    assert picks(limiter, 50_000, 2) == [0, 0]
    limiter.done(50_000, 0, ONE, 101)
    assert picks(limiter, 50_000, 1) == [Later(10_000)]
    assert picks(limiter, 60_000, 1) == [0]
    # One that began in the minute before counts in that of its end.
    limiter.done(60_000, 0, ONE, 101)
    assert picks(limiter, 60_000, 1) == [Later(60_000)]


def test_a_sliding_window_of_kong_weighs_the_one_before():
    limiter = limiters.KongSliding(1, Limits(requests=9, tokens=100, at_once=9), 1)
    assert picks(limiter, 0, 1) == [0]
    limiter.done(0, 0, ONE, 100)
    assert picks(limiter, 60_000, 1) == [Later(limiters.SOON)]
    assert picks(limiter, 60_600, 1) == [0]
    limiter.done(60_600, 0, ONE, 50)
    assert picks(limiter, 89_000, 1) == [Later(limiters.SOON)]
    assert picks(limiter, 90_600, 1) == [0]


def test_a_window_of_higress_begins_with_a_request_and_may_be_overdrawn():
    limiter = limiters.Higress(1, Limits(requests=9, tokens=100, at_once=9), 1)
    assert picks(limiter, 50_000, 2) == [0, 0]
    limiter.done(50_000, 0, ONE, 100)
    assert picks(limiter, 70_000, 1) == [0]
    limiter.done(70_000, 0, ONE, 1)
    assert picks(limiter, 70_000, 1) == [Later(40_000)]
    assert picks(limiter, 110_000, 1) == [0]


def test_litellm_takes_the_deployment_with_the_fewest_tokens_and_lets_it_cool():
    limiter = limiters.LiteLLM(2, Limits(requests=9, tokens=100, at_once=9), 1)
    for used in 90, 80:
        key = limiter.pick(0, ONE)
        limiter.done(0, key, ONE, used)
    assert picks(limiter, 0, 3) == [key] * 3  # nothing is counted before the response
    limiter.refused(0, key, ONE, Refusal("tokens", 7))
    assert picks(limiter, 0, 1) == [1 - key]
    limiter.done(0, 1 - key, ONE, 10)
    assert picks(limiter, 0, 1) == [Later(7_000)]
    assert picks(limiter, 7_000, 1) == [key]


def test_counters_by_hand_reserve_and_correct_in_the_minute_of_the_end():
    limiter = limiters.Reserved(1, Limits(requests=9, tokens=100, at_once=9), 1)
    assert picks(limiter, 59_000, 2, 50) == [0, 0]
    assert picks(limiter, 59_000, 1) == [Later(1_000)]
    limiter.done(60_000, 0, Request(0, 50, 50), 10)
    # So this minute has more than its tokens, and the one before had fewer.
    assert picks(limiter, 60_000, 3, 70) == [0, 0, Later(60_000)]
    limiter.refused(60_000, 0, Request(0, 70, 70), Refusal("tokens", 1))
    assert picks(limiter, 60_000, 1, 70) == [0]


def test_each_has_requests_a_minute_and_its_share_of_those_at_once():
    limiter = limiters.KongFixed(1, Limits(requests=5, tokens=100, at_once=6), 3)
    assert picks(limiter, 0, 3) == [0, 0, Later(limiters.SOON)]
    for gateway in 1, 2, 1:
        assert limiter.pick(0, Request(gateway, 1, 1)) == 0
    assert limiter.pick(0, Request(2, 1, 1)) == Later(MINUTE)
    limiter.refused(0, 0, Request(1, 1, 1), Refusal("requests", 1))
    assert limiter.pick(0, Request(2, 1, 1)) == 0
