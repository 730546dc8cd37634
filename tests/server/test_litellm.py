"""LiteLLM's Router goes by pools: litellm_cases.py passes in an environment that has LiteLLM, with hashes."""

import subprocess
import sys
from pathlib import Path

import pytest

from script import ROOT
from servers import installed

FILES = ROOT / "src" / "clients" / "litellm"
PYTHON = ROOT / "target" / "litellm" / "bin" / "python"
PATHS = f"{ROOT / 'src' / 'clients' / 'python' / 'src'}:{FILES}"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def run(*command: str | Path) -> None:
    """It must succeed, in ten minutes."""
    # LiteLLM would fetch a list of prices.
    env = [
        "env",
        f"REDIS_LB_SERVERS={installed().name}",
        "LITELLM_LOCAL_MODEL_COST_MAP=True",
        f"PYTHONPATH={PATHS}",
    ]
    done = subprocess.run(
        ["timeout", "600", *env, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_router_of_litellm_goes_by_pools():
    if not PYTHON.exists():
        run(sys.executable, "-m", "venv", PYTHON.parents[1])
    pip = PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"
    run(*pip, "--requirement", FILES / "requirements.txt")
    run(PYTHON, "-m", "pytest", "-q", ROOT / "tests" / "server" / "litellm_cases.py")


def test_the_strategy_is_short():
    lines = (FILES / "redis_lb_litellm.py").read_text().splitlines()
    assert len(lines) <= 110
