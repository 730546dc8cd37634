"""The attack of attack.py: for a few seconds; with REDIS_LB_LONG=1 for an hour, shared by the servers."""

import os

import pytest

from attack import attack
from conftest import module
from servers import chosen

SECONDS = 3600 / len(chosen()) if os.environ.get("REDIS_LB_LONG") == "1" else 15


@pytest.mark.timeout(SECONDS + 300)
def test_nothing_gives_way(binary):
    attack(binary, module(), SECONDS, os.environ.get("REDIS_LB_SEED", "1"))
