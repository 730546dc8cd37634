"""Servers of tests start although others start beside them, and what must not run side by side does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import server as servers_of_tests
from server import free_port

pytestmark = pytest.mark.once("it concerns the tests, no server")


def test_a_server_takes_another_port_where_one_was_faster(new_server, monkeypatch):
    faster = new_server(module=None)
    ports = [faster.port, free_port()]
    monkeypatch.setattr(servers_of_tests, "free_port", lambda: ports.pop(0))
    later = new_server(module=None)
    assert not ports
    assert later.port != faster.port


def test_processes_of_tests_have_ports_of_their_own(monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    for process in range(3):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{process}")
        assert {(free_port() - 10000) % 3 for _ in range(20)} == {process}


def test_the_tests_of_a_file_run_in_one_process():
    """Else two of them make the same packages, or take the same usual port, at the same time."""
    two = ["-n", "2", "--dist", "loadgroup", "-v"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *two, Path(__file__).with_name("test_house.py")],
        stdout=subprocess.PIPE,
        text=True,
    )
    processes = re.findall(r"^\[(gw\d+)\] .*PASSED .*test_house", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and len(processes) > 50 and len(set(processes)) == 1
