"""The tests as a house: what several of them share stands in a module of its own."""

import ast
from pathlib import Path

import pytest

from matrix import is_on

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))


def imported(source):
    """The modules that a source imports, each by the last part of its name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name.rpartition(".")[2] for name in names)
            case ast.ImportFrom(module=module, names=names):
                # Of `from . import x` too: x may be a module.
                yield from ((module or "").rpartition(".")[2], *(name.name for name in names))


def forbidden(source):
    """The test files among the modules that a source imports."""
    return {module for module in imported(source) if module.startswith("test_")}


@pytest.mark.parametrize(
    "source",
    [
        "from test_leases import lease",
        "import test_leases",
        "import os, test_leases as leases",
        "from server import test_leases",
        "from . import test_leases",
        "import server.test_leases",
        "def f():\n    from test_leases import lease",
    ],
)
def test_an_import_of_a_test_file_is_found(source):
    assert forbidden(source) == {"test_leases"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_imports_a_test_file(path):
    assert not forbidden(path.read_text())


@pytest.mark.parametrize(
    "test",
    ["a[redis-7.0.15]", "a[redis-7.0.15-POST]", "a[2-sync-redis-7.0.15]"],
    ids=["alone", "first", "last"],
)
def test_the_table_of_servers_counts_a_test_wherever_its_server_is_named(test):
    assert is_on("redis-7.0.15", test)
    assert not is_on("redis-7.0.1", test) and not is_on("redis-7.0.15", test.replace("redis", "old.redis"))
