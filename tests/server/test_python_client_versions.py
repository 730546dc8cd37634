"""The Python client runs on every version of Python and of redis-py that it says it does.

Its tests run once more, in environments of their own (target/client-*), on each of those Pythons with the
oldest and the newest redis-py. A Python is found in $PATH, or where pyenv keeps its versions; one that this
machine lacks is skipped.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from script import ROOT
from servers import installed

PACKAGE = ROOT / "src" / "clients" / "python"
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
REQUIRED = (ROOT / "tests" / "requirements.txt").read_text()
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
OLDEST_REDIS = "5.0.0"
NEWEST_REDIS = re.search(r"^redis==(.*)$", REQUIRED, re.M)[1]

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def python(version: str) -> Path | None:
    """A Python of that version."""
    in_path = shutil.which(f"python{version}")
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for program in [*([Path(in_path)] if in_path else []), *kept]:
        told = subprocess.run([program, "-c", "import venv, ensurepip"], capture_output=True)
        if told.returncode == 0:
            return program
    return None


def test_the_package_says_the_oldest_versions_that_are_tested():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert PROJECT["dependencies"] == [f"redis>={OLDEST_REDIS.removesuffix('.0')}"]


def environment(version: str, redis_py: str) -> Path:
    """The Python of an environment with these versions, made where it is not there yet."""
    program = python(version)
    if program is None:
        pytest.skip(f"this machine has no Python {version}")
    folder = ROOT / "target" / f"client-{version}-{redis_py}"
    inside = folder / "bin" / "python"
    if not inside.exists():
        run([program, "-m", "venv", folder])
    names = "prometheus_client", "pytest", "pytest-timeout", "typing_extensions"
    tools = [f"{name}=={re.search(f'^{name}==(.*)$', REQUIRED, re.M)[1]}" for name in names]
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, *tools, f"redis=={redis_py}"])
    return inside


def run(command: list[str | Path], folder: Path = ROOT) -> None:
    """It must succeed, in ten minutes."""
    done = subprocess.run(
        ["timeout", "600", "env", f"REDIS_LB_SERVERS={installed().name}", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("redis_py", [OLDEST_REDIS, NEWEST_REDIS])
@pytest.mark.parametrize("version", PYTHONS)
def test_the_tests_of_the_client_pass(version, redis_py):
    inside = environment(version, redis_py)
    run([inside, "-m", "pytest", "-q", ROOT / "tests" / "server" / "test_python_client.py"])


@pytest.mark.parametrize("redis_py", [OLDEST_REDIS, NEWEST_REDIS])
@pytest.mark.parametrize("version", PYTHONS)
def test_the_types_hold(version, redis_py):
    inside = environment(version, redis_py)
    options = [f"--python-executable={inside}", f"--python-version={version}"]
    run([sys.executable, "-m", "mypy", *options], PACKAGE)
