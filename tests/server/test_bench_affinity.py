"""The figures of affinity. That its program still computes them `cargo test` shows, by their short form."""

import json
import sys
from pathlib import Path

import pytest

from documents import ROOT

sys.path.append(str(Path(__file__).parents[1]))
from bench import affinity  # noqa: E402

DOCUMENT = ROOT / "tests" / "bench" / "README.md"


@pytest.fixture
def data():
    return json.loads((affinity.DATA / "affinity.json").read_text())


def test_the_targets_are_reached(data):
    targets = [*affinity.reached(data)]
    assert len(targets) == 9
    assert not [title for title, _, _, is_reached in targets if not is_reached]


def test_the_picture_and_the_document_show_the_figures(data):
    assert (affinity.DATA / "affinity.svg").read_text() == affinity.picture(data["conversations"])
    _, _, rest = DOCUMENT.read_text().partition(affinity.MARKS[0])
    assert rest.partition(affinity.MARKS[1])[0] == affinity.shown(data)


def test_an_error_of_shares_that_chance_cannot_hide_is_no_reached_target(data):
    row = next(row for row in data["maps"] if row["map"] == "hash")
    row["chi-squared"] += 4 * affinity.deviation(row)
    assert [is_reached for *_, is_reached in affinity.reached(data)].count(False) == 1
