"""Servers of tests start although others start beside them."""

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
