"""What Prometheus sees of pools, by redis_lb.exporter and by Debian's exporter with our script; the alerts.

Debian's programs lie in target/monitoring, where scripts/setup unpacks them.
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dump import Dump
from redis_lb import exporter as metrics
from script import ROOT
from server import BOUND, eventually, free_port
from waiter import Waiter
from wire import Wire

DEBIAN = ROOT / "target" / "monitoring" / "usr" / "bin"
FILES = ROOT / "src" / "clients" / "monitoring"
PACKAGE = ROOT / "src" / "clients" / "python" / "src"
SCRIPT = FILES / "redis-exporter.lua"
README = ROOT / "src" / "server" / "README.md"
# What Debian's exporter cannot tell: words, and times of its own.
OURS_ALONE = {
    "redis_lb_server_info",
    "redis_lb_pool_info",
    "redis_lb_backend_info",
    "redis_lb_scrape_duration_seconds",
}

pytestmark = pytest.mark.once("the exporters ask all servers the same commands")


@contextmanager
def running(*command, port, path):
    """A program that answers HTTP at that path, for as long as the block."""
    environ = os.environ | {"PYTHONPATH": str(PACKAGE)}
    process = subprocess.Popen([*BOUND, *map(str, command)], stderr=subprocess.PIPE, text=True, env=environ)
    try:
        eventually(lambda: process.poll() is not None or answers(port, path))
        assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return answer.read().decode()


def answers(port, path):
    try:
        get(port, path)
    except OSError:
        return False
    return True


@contextmanager
def ours(server, *arguments, user=""):
    """The port of redis_lb.exporter."""
    port = free_port()
    url = f"redis://{user}127.0.0.1:{server.port}"
    command = [sys.executable, "-m", "redis_lb.exporter", "--url", url, "--listen", f"127.0.0.1:{port}"]
    # The first path that answers is no scrape.
    with running(*command, *arguments, port=port, path="/favicon.ico"):
        yield port


@contextmanager
def debians(server, script=SCRIPT):
    """The port of Debian's exporter with our script."""
    port = free_port()
    program = DEBIAN / "prometheus-redis-exporter"
    address = ["-redis.addr", f"redis://127.0.0.1:{server.port}", "-web.listen-address", f"127.0.0.1:{port}"]
    with running(program, *address, "-script", script, port=port, path="/health"):
        yield port


def ask(server, commands):
    with Wire(server.port) as wire:
        return [wire.ask(command) for command in commands.splitlines()]


def samples(port):
    """Each sample by its name and its labels in the order of their names."""
    families = text_string_to_metric_families(get(port, "/metrics"))
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("redis_lb_")
    }


def scripted(port):
    """The values of the script, as the rules in prometheus.yml name them."""
    families = text_string_to_metric_families(get(port, "/metrics"))
    (values,) = [family for family in families if family.name == "redis_script_values"]
    found = {}
    for sample in values.samples:
        name, pool, backend = sample.labels["key"].split("|")
        found[name, *(label for label in (backend, pool) if label)] = sample.value
    return found


POOLS = """\
LB.ADD web full 5 ejected 1 cooling 1 drained 1 away 0 well 2
LB.LIMIT web MAX 10 RATE 600 60000 BURST 30
LB.LIMIT web BACKEND full MAX 1 TIER 0
LB.HEALTH web FAILS 2 EJECT 3600000
LB.PICK web wrr LEASE 3600000
LB.REPORT web ejected FAIL
LB.REPORT web ejected FAIL
LB.REPORT web cooling COOL 1800000
LB.STATE web drained drain
LB.REPORT web well OK LATENCY 1234 LOAD 0.25
LB.ADD shop a 3 b 1
LB.PICK shop COUNT 7
LB.ADD odd |\\x|"ü" 1
SET text 1"""
ODD = b'\xff|\\x \n"'


def test_figures_become_metrics_with_labels(server):
    ask(server, POOLS)
    with ours(server) as port:
        found = samples(port)
        text = get(port, "/metrics")
        # All names are as Prometheus wants them.
        checked = subprocess.run(
            [DEBIAN / "promtool", "check", "metrics"], input=text, text=True, capture_output=True
        )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert (
        found["redis_lb_up",] == 1 and found["redis_lb_pools",] == 3 and found["redis_lb_scan_complete",] == 1
    )
    assert found["redis_lb_server_picks_total",] >= 8
    pool = {name: value for (name, *labels), value in found.items() if labels == ["web"]}
    wanted = "up 1, backends 6, available_backends 1, ejected_backends 1, cooling_backends 1, picks_total 1"
    wanted += ", leases 1, max_leases 10, max_picks_per_second 10, burst_picks 30"
    assert pool.items() >= {(f"redis_lb_pool_{n}", float(v)) for n, v in map(str.split, wanted.split(", "))}
    of = {name: value for (name, *labels), value in found.items() if labels == ["full", "web"]}
    assert of["redis_lb_backend_weight"] == 5 and of["redis_lb_backend_running_weight"] == 0
    assert of["redis_lb_backend_leases"] == of["redis_lb_backend_max_leases"] == 1
    assert found["redis_lb_backend_info", "ejected", "ejected", "web", "up"] == 1
    assert found["redis_lb_backend_info", "drained", "ok", "web", "drain"] == 1
    assert 3500 < found["redis_lb_backend_back_in_seconds", "ejected", "web"] < 3601
    assert ("redis_lb_backend_back_in_seconds", "well", "web") not in found
    assert found["redis_lb_backend_failures_total", "ejected", "web"] == 2
    assert found["redis_lb_backend_latency_seconds_total", "well", "web"] == 0.001234
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert {kind for name, kind in kinds.items() if name.endswith("_total")} == {"counter"}
    assert {kind for name, kind in kinds.items() if not name.endswith("_total")} == {"gauge"}


def test_both_exporters_tell_the_same(server):
    ask(server, POOLS)
    with Wire(server.port) as wire:
        wire.ask([b"LB.ADD", b"odd", ODD, b"1"])
        wire.ask([b"LB.PICK", b"odd", b"LEASE", b"60000"])
    with ours(server) as our_port, debians(server) as their_port:
        our, their = samples(our_port), scripted(their_port)
    assert ("redis_lb_backend_weight", r"\xff|\\x " + '\n"', "odd") in our
    assert {name for name, *_ in our} - {name for name, *_ in their} == OURS_ALONE
    # A script shows what is not ASCII, and the bar that separates, by their bytes.
    shown = {
        (name, *(re.sub(r"[^ -{}~]", escaped, label) for label in labels)): value
        for (name, *labels), value in our.items()
        if name not in OURS_ALONE
    }
    moves = {
        key for key in shown if "back_in" in key[0] or "tokens" in key[0] or "refused_commands" in key[0]
    }
    assert {key: shown[key] for key in shown.keys() - moves} == {
        key: their[key] for key in their.keys() - moves
    }
    assert moves <= their.keys() and len(moves) > 3


def escaped(match):
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode())


def test_a_large_pool_is_summed_up(server):
    ask(server, "LB.ADD large " + " ".join(f"b{i} 1" for i in range(21)))
    ask(server, "LB.ADD small " + " ".join(f"b{i} 1" for i in range(20)) + "\nLB.ADD small2 a 1")
    with ours(server, "--backends", "20") as port:
        found = samples(port)
    assert found["redis_lb_pool_backends", "large"] == 21
    assert {key[-1] for key in found if key[0] == "redis_lb_backend_weight"} == {"small", "small2"}
    script = (
        SCRIPT.read_text().replace("BACKENDS = 50", "BACKENDS = 20").replace("_OF_ALL = 50", "_OF_ALL = 20")
    )
    with server.client() as client:
        names = client.eval(script, 0)[::2]
    assert "redis_lb_pool_backends|large|" in names
    assert {name.split("|")[1] for name in names if "_backend_weight" in name} == {"small"}, (
        "all that it may list"
    )


def test_the_number_of_pools_is_bounded(server):
    ask(server, "\n".join(f"LB.ADD pool-{i} a 1" for i in range(60)))
    with ours(server, "--pools", "7") as port:
        found = samples(port)
    assert found["redis_lb_pools",] == 7 and found["redis_lb_pools_left_out",] == 1
    assert len([key for key in found if key[0] == "redis_lb_pool_up"]) == 7
    with server.client() as client:
        values = client.eval(SCRIPT.read_text(), 0)
    values = dict(zip(values[::2], values[1::2], strict=True))
    assert (values["redis_lb_pools||"], values["redis_lb_pools_left_out||"]) == ("50", "1")


@pytest.fixture
def exporter(server):
    """An Exporter of that server inside this process."""
    return metrics.Exporter(server.client(decode_responses=False), [], 100, 100)


def collected(exporter):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in exporter.collect()
        for sample in family.samples
    }


def test_the_search_for_pools_goes_on_in_the_next_scrape(server, exporter, monkeypatch):
    monkeypatch.setattr(metrics, "SCANS", 2)
    ask(server, "\n".join(f"LB.ADD pool-{i} a 1" for i in range(10)))
    with server.client() as client:
        client.mset({f"key-{i}": i for i in range(10_000)})
    first = collected(exporter)
    assert first["redis_lb_scan_complete",] == 0 and first["redis_lb_pools",] < 10
    for _ in range(5):
        last = collected(exporter)
    assert last["redis_lb_scan_complete",] == 1 and last["redis_lb_pools",] == 10


def test_pools_come_and_go(server, exporter):
    ask(server, "LB.ADD web a 1\nLB.ADD shop a 1")
    assert collected(exporter)["redis_lb_pools",] == 2
    ask(server, "DEL web\nDEL shop\nSET shop 1\nLB.ADD new a 1")
    found = collected(exporter)
    assert [key for key in found if key[0] == "redis_lb_pool_up"] == [("redis_lb_pool_up", "new")]
    assert found["redis_lb_pools",] == 1


def test_a_named_pool_that_is_missing_is_empty(server):
    ask(server, "LB.ADD web a 1\nLB.ADD other a 1\nSET text 1")
    script = SCRIPT.read_text().replace("NAMED = {}", "NAMED = {'web', 'gone', 'text'}")
    with ours(server, "--pool", "web", "--pool", "gone", "--pool", "text") as port, server.client() as client:
        found, values = samples(port), client.eval(script, 0)
    assert found["redis_lb_pool_available_backends", "web"] == 1
    assert found["redis_lb_pool_available_backends", "gone"] == 0
    assert found["redis_lb_pool_up", "text"] == 0 and ("redis_lb_pool_up", "other") not in found
    values = dict(zip(values[::2], values[1::2], strict=True))
    assert values["redis_lb_pool_available_backends|gone|"] == values["redis_lb_pool_up|text|"] == "0"


def test_the_rights_in_the_readme_are_enough(server):
    (rights,) = re.findall(r"^> (ACL SETUSER exporter .*)$", README.read_text(), re.MULTILINE)
    ask(server, f"LB.ADD web a 1\n{rights}")
    try:
        with ours(server, user="exporter:secret@") as port:
            assert ("redis_lb_backend_weight", "a", "web") in samples(port)
        # A pool that this user may not read is passed over.
        ask(server, "ACL SETUSER exporter resetkeys ~web\nLB.ADD other a 1")
        with ours(server, user="exporter:secret@") as port:
            found = samples(port)
        assert ("redis_lb_pool_up", "web") in found and ("redis_lb_pool_up", "other") not in found
        assert found["redis_lb_pools",] == 1
    finally:
        ask(server, "ACL DELUSER exporter")


def poison(server):
    """Makes a pool `hit` that a fault has hit."""
    with server.client(decode_responses=False) as client:
        client.execute_command("LB.ADD donor a 1")
        client.restore("hit", 0, Dump(client.dump("donor")).holding(b"\0"))
        client.delete("donor")


def test_a_poisoned_pool_is_named(server, exporter):
    poison(server)
    ask(server, "LB.ADD web a 1")
    found = collected(exporter)
    assert found["redis_lb_pool_up", "hit"] == 0 and found["redis_lb_pool_up", "web"] == 1
    assert ("redis_lb_pool_backends", "hit") not in found and ("redis_lb_pool_backends", "web") in found


def test_a_server_that_is_away_is_told_and_comes_back(new_server):
    server = new_server()
    with ours(server) as port:
        assert samples(port)["redis_lb_up",] == 1
        server.kill()
        assert samples(port).keys() == {("redis_lb_up",), ("redis_lb_scrape_duration_seconds",)}
        server.start()
        assert samples(port)["redis_lb_up",] == 1
        server.pause()
        assert samples(port)["redis_lb_up",] == 0
        server.go_on()
        assert samples(port)["redis_lb_up",] == 1


def test_a_server_without_the_module_is_told(new_server):
    with ours(new_server(module=None)) as port:
        assert samples(port)["redis_lb_up",] == 0


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_exporter(server, end):
    port = free_port()
    command = [sys.executable, "-m", "redis_lb.exporter", "--listen", f"127.0.0.1:{port}"]
    with running(*command, port=port, path="/favicon.ico") as process:
        process.send_signal(end)
        assert process.wait(30) == 0
        assert process.stderr.read() == f"redis_lb.exporter: listening on 127.0.0.1:{port}\n"


@pytest.mark.parametrize("arguments", ["--listen here", "--pools many", "--backends 2001", "--what"])
def test_wrong_arguments_are_refused_by_one_line(arguments, binary):
    command = [sys.executable, "-m", "redis_lb.exporter", *arguments.split()]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": PACKAGE}, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"redis_lb.exporter: .*; --help says more\n", done.stderr), done.stderr


def test_no_command_of_a_scrape_holds_the_server_for_long(server):
    exporter = metrics.Exporter(server.client(decode_responses=False), [], 100, metrics.MOST_BACKENDS)
    for pool in range(50):
        ask(server, f"LB.ADD pool-{pool} a 1")
    ask(server, "LB.ADD web " + " ".join(f"10.0.0.{i}:8080 1" for i in range(metrics.MOST_BACKENDS)))
    with server.client() as client:
        client.mset({f"key-{i}": i for i in range(20_000)})
        client.config_set("slowlog-log-slower-than", 5000)
        try:
            # Other processes may hold up the server too, but not each time.
            for scrape in (lambda: collected(exporter), lambda: client.eval(SCRIPT.read_text(), 0)):

                def is_short(scrape=scrape):
                    client.slowlog_reset()
                    scrape()
                    return client.slowlog_len() == 0

                eventually(is_short)
        finally:
            client.config_set("slowlog-log-slower-than", 10000)


# Alerts and the dashboard


def promtool(*arguments):
    return subprocess.run([DEBIAN / "promtool", *arguments], capture_output=True, text=True, cwd=FILES)


def test_the_rules_fire_when_they_should_and_only_then(binary):
    done = promtool("test", "rules", ROOT / "tests" / "data" / "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = re.findall(r"alert: (\w+)", (FILES / "alerts.yml").read_text())
    tested = re.findall(r"alertname: (\w+)", (ROOT / "tests" / "data" / "alerts.yml").read_text())
    assert set(alerts) == set(tested)
    assert all(f"`{alert}`" in README.read_text() for alert in alerts)


def names_in(text):
    return set(re.findall(r"redis_lb_\w+", text))


def expressions():
    """Those of the dashboard, with values for its variables."""
    board = json.loads((FILES / "grafana.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield re.sub(r"\$(job|instance|pool)", ".*", target["expr"]).replace("$__rate_interval", "1m")


def test_alerts_and_dashboard_name_metrics_that_exist(server):
    ask(server, POOLS)
    with ours(server) as port:
        exist = {name for name, *_ in samples(port)}
    for file in ("alerts.yml", "grafana.json"):
        assert names_in((FILES / file).read_text()) <= exist
    assert len(list(expressions())) > 15


class Prometheus:
    """A Prometheus that scrapes both exporters by our file, but every 2 s."""

    def __init__(self, port):
        self._port = port

    def ask(self, query):
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": query})
        return json.loads(get(self._port, path))["data"]["result"]

    def firing(self):
        """The alerts that fire: name, job, pool."""
        return {
            (alert["metric"]["alertname"], alert["metric"]["job"], alert["metric"].get("pool"))
            for alert in self.ask('ALERTS{alertstate="firing"}')
        }

    def times(self, query):
        """When the samples were taken that the range of this query holds, and their values."""
        (series,) = self.ask(query)
        return [(time, float(value)) for time, value in series["values"]]


@contextmanager
def prometheus(folder, our_port, their_port):
    port = free_port()
    text = (FILES / "prometheus.yml").read_text().replace("15s", "2s")
    text = text.replace("localhost:9379", f"127.0.0.1:{our_port}").replace(
        "localhost:9121", f"127.0.0.1:{their_port}"
    )
    (folder / "prometheus.yml").write_text(text)
    (folder / "alerts.yml").write_text((FILES / "alerts.yml").read_text().replace("for: 15s", "for: 2s"))
    command = [
        DEBIAN / "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
    ]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with running(*command, port=port, path="/-/ready"):
        yield Prometheus(port)


BEFORE = """\
LB.ADD emptied a 1
LB.ADD removed a 1
LB.ADD ejects a 1 b 1 c 1 d 1
LB.HEALTH ejects FAILS 1 EJECT 3600000 MAXEJECT 25
LB.ADD queue a 1
LB.LIMIT queue MAX 1
LB.ADD busy a 1
LB.LIMIT busy BACKEND a MAX 10
LB.PICK queue LEASE 3600000
LB.ADD waits a 1
LB.LIMIT waits MAX 1
LB.PICK waits LEASE 3600000
LB.ADD well a 1 b 1
LB.PICK well LEASE 3600000"""
# Of these the one lease that MAX allows is given from the start.
FULL = ("queue", "waits")
CAUSES = """\
LB.STATE emptied a drain
LB.PICK emptied
LB.REM removed a
LB.REPORT ejects a FAIL
LB.REPORT ejects b FAIL
LB.PICK busy LEASE 3600000 COUNT 9
LB.WRONG"""
FIRE = {
    "RedisLbPoolEmpty": ("emptied", *FULL),
    "RedisLbPoolGone": ("removed",),
    "RedisLbRefusals": ("emptied",),
    "RedisLbEjectedShare": ("ejects",),
    "RedisLbBudgetHeld": ("ejects",),
    "RedisLbQueueGrowing": ("queue",),
    "RedisLbOldestWait": ("waits",),
    "RedisLbLeasesNearMax": ("busy", *FULL),
    "RedisLbPoolPoisoned": ("hit",),
    "RedisLbErrors": (None,),
}
FIRE = {
    (alert, job, pool) for alert, pools in FIRE.items() for pool in pools for job in ("redis-lb", "redis")
}
# By which samples an alert's cause can be seen.
SEEN = {
    "RedisLbPoolEmpty": ("redis_lb_pool_available_backends", "emptied", lambda value: value == 0),
    "RedisLbEjectedShare": ("redis_lb_pool_ejected_backends", "ejects", lambda value: value == 1),
    "RedisLbQueueGrowing": ("redis_lb_pool_waiting_clients", "queue", lambda value: value >= 10),
}


def test_alerts_fire_in_prometheus(new_server, tmp_path):
    server = new_server()
    ask(server, BEFORE)
    with ExitStack() as stack:
        stack.enter_context(Waiter(server, "LB.PICK waits LEASE 60000 BLOCK 0"))
        ports = [stack.enter_context(exporter(server)) for exporter in (ours, debians)]
        it = stack.enter_context(prometheus(tmp_path, *ports))
        eventually(lambda: len(it.ask("count_over_time(redis_lb_up[1m]) >= 2")) == 2)
        assert {alert for alert in it.firing() if alert[2] not in FULL} == set()
        ask(server, CAUSES)
        poison(server)
        for _ in range(12):
            stack.enter_context(Waiter(server, "LB.PICK queue LEASE 60000 BLOCK 0"))
        fired = set()

        def all_fired():
            fired.update(it.firing())
            return fired >= FIRE

        try:
            eventually(all_fired)
        except AssertionError:
            raise AssertionError(f"did not fire: {FIRE - fired}") from None
        # The queue has an oldest wait too, after 5 s.
        assert {alert for alert in fired - FIRE if alert[::2] != ("RedisLbOldestWait", "queue")} == set()
        for alert, (metric, pool, shows) in SEEN.items():
            for job in ("redis-lb", "redis"):
                of = f'job="{job}", pool="{pool}"'
                fires = it.times(f'ALERTS{{alertname="{alert}", alertstate="firing", {of}}}[5m]')[0][0]
                seen = it.times(f"{metric}{{{of}}}[5m]")
                scrapes = [time for time, value in seen if shows(value) and time <= fires]
                # An evaluation may come late. The test of the rules says exactly when they fire.
                assert len(scrapes) <= 5, f"{alert} in {job}: {seen}, fires {fires}"
        assert [query for query in expressions() if not it.ask(query)] == []
        server.kill()
        eventually(lambda: ("RedisLbDown", "redis-lb", None) in it.firing())
