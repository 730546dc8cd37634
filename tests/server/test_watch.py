"""scripts/watch: what it shows of a pool, once and live in a terminal.

The README's picture of it is written anew by REDIS_LB_UPDATE=1 scripts/test -k picture_of_watch.
"""

import os
import pty
import re
import select
import signal
import subprocess
import time
from html import escape, unescape

import pytest

from script import ROOT
from server import SECONDS
from wire import Wire

OUT = """\
LB.ADD web full 5 ejected 1 cooling 1 drained 1 away 0 well 2
LB.LIMIT web MAX 10
LB.LIMIT web BACKEND full MAX 1
LB.HEALTH web FAILS 2 EJECT 3600000
LB.PICK web wrr LEASE 3600000
LB.REPORT web ejected FAIL
LB.REPORT web ejected FAIL
LB.REPORT web cooling COOL 1800000
LB.STATE web drained drain
LB.REPORT web well OK LATENCY 1234"""


pytestmark = pytest.mark.heavy


def address(server):
    return ["--url", f"redis://localhost:{server.port}"]


def once(server, *words):
    done = subprocess.run(
        [ROOT / "scripts" / "watch", "--once", *address(server), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "\x1b" not in done.stdout
    return done.stdout.splitlines()


def ask(server, commands):
    with Wire(server.port) as wire:
        return [wire.ask(command) for command in commands.splitlines()]


class Screen:
    """The script in a terminal, and the page that it shows."""

    def __init__(self, server, *words):
        command = [ROOT / "scripts" / "watch", "--interval", "0.1", *address(server), *words]
        self.process, self._terminal = started(command)
        self._written = ""

    def eventually(self, pattern, meanwhile=lambda: None):
        """Waits until a page has the pattern. Meanwhile something is done again and again."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            meanwhile()
            if select.select([self._terminal], [], [], 0.1)[0]:
                self._written += os.read(self._terminal, 65536).decode()
            page = self._written.split("\x1b[H")[-1]
            if "\x1b[J" in page and re.search(pattern, page):
                return page
        raise AssertionError(f"no page has {pattern}: {self._written[-2000:]}")

    def end(self, by):
        """Ends it, and answers all that was written."""
        os.killpg(self.process.pid, by)
        try:
            while text := os.read(self._terminal, 65536):
                self._written += text.decode()
        except OSError:
            pass  # So a terminal says that nobody writes to it any more.
        os.close(self._terminal)
        assert self.process.wait(30) == 0
        return self._written


def started(command):
    """A process that has a terminal of its own."""
    terminal, its = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "160"},
    )
    os.close(its)
    return process, terminal


def test_one_look_says_which_backend_is_out_and_why(server):
    ask(server, OUT)
    head, troubles, *table = once(server, "web")
    assert head == "web  wrr  1 of 6 backends available  1 picks  leases 1/10"
    assert troubles == "1 ejected, 1 cooling"
    columns, *rows = [re.split(r"\s{2,}", line.strip()) for line in table]
    assert columns[:6] == ["backend", "state", "weight", "running", "asked", "got"]
    shown = {row[0]: row[1:] for row in rows}
    assert shown["full"] == ["full", "5", "0", "50.0%", "100.0%", "-", "1/1", "-", "-", "-"]
    assert shown["ejected"][0] == "ejected, probe in 60 min" and shown["ejected"][-1] == "100.0%"
    assert shown["cooling"][0] == "cooling, back in 30 min"
    assert (shown["drained"][0], shown["away"][0]) == ("drain", "weight 0")
    assert shown["well"] == ["up", "2", "2", "20.0%", "0.0%", "-", "0", "-", "1.23 ms", "-"]
    assert list(shown)[-1] == "well", "those that are out come first"


def test_without_a_key_all_pools_are_listed(server):
    assert once(server) == ["There is no pool. LB.ADD makes one."]
    ask(server, f"{OUT}\nLB.ADD shop a 1\nSET other 1")
    head, *rows = [line.split() for line in once(server)]
    assert head[:4] == ["pool", "policy", "backends", "available"]
    assert [row[:4] for row in rows] == [["shop", "wrr", "1", "1"], ["web", "wrr", "6", "1"]]


def test_a_large_pool_is_summed_up(server):
    ask(server, "LB.ADD web " + " ".join(f"backend-{i} 1" for i in range(1001)))
    head, note = [line for line in once(server, "web") if line]
    assert "1001 of 1001 backends" in head and "up to 1,000" in note


def test_names_do_not_steer_the_terminal(server):
    with Wire(server.port) as wire:
        wire.ask([b"LB.ADD", b"web", b"\x1b[2Jgone\r\n", b"1", b"\xff" + b"x" * 500, b"1"])
    text = "\n".join(once(server, "web"))
    assert r"\x1b[2Jgone\r\n" in text and r"\xffxxx" in text and "…" in text


def test_no_pool_and_no_server_are_told(server):
    assert "There is no pool at this key." in once(server, "none")[0]
    ask(server, "SET text 1")
    done = subprocess.run(
        [ROOT / "scripts" / "watch", "--once", *address(server), "text"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.fullmatch(r"scripts/watch: WRONGTYPE .*\n", done.stderr), done.stderr


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_live_table_follows_the_pool(server, end):
    ask(server, "LB.ADD web a 3 b 1\nLB.HEALTH web FAILS 1 EJECT 3600000")
    screen = Screen(server, "web")
    screen.eventually(r"a +up +3 +3 +75.0%")
    ask(server, "LB.REPORT web b FAIL")
    page = screen.eventually(r"ejected, probe in 60 min")
    assert "\x1b[31m" in page and "1 ejected" in page
    for _ in range(20):
        ask(server, "LB.PICK web COUNT 100")
    screen.eventually(r"2,000 picks")
    ask(server, "DEL web")
    screen.eventually("There is no pool at this key")
    ask(server, "LB.ADD web c 1")
    screen.eventually(r"c +up")
    written = screen.end(end)
    assert written.startswith("\x1b[?1049h") and written.rstrip().endswith("\x1b[?1049l"), (
        "the screen is given back"
    )


PICTURE = ROOT / "tests" / "data" / "watch.svg"
SHOP = """\
LB.ADD shop 10.0.0.1:8080 5 10.0.0.2:8080 3 10.0.0.3:8080 2 10.0.0.4:8080 2 10.0.0.5:8080 1 10.0.0.6:8080 4
LB.LIMIT shop MAX 40
LB.LIMIT shop BACKEND 10.0.0.2:8080 MAX 8
LB.HEALTH shop FAILS 5 EJECT 30000
LB.STATE shop 10.0.0.5:8080 drain"""
COLOURS = {"1": "#f0f6fc", "2": "#8b949e", "31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "0": "#c9d1d9"}
STYLE = "text { font: 13px ui-monospace, monospace; white-space: pre } rect { fill: #0d1117 }"


def picture(page):
    """A page as SVG."""
    lines = re.sub(r"\x1b\[[KJ]", "", page).rstrip().split("\r\n")
    colour, rows = COLOURS["0"], []
    for at, line in enumerate(lines, 1):
        spans = ""
        for part in re.split(r"(\x1b\[\d+m)", line):
            if code := re.fullmatch(r"\x1b\[(\d+)m", part):
                colour = COLOURS[code[1]]
            elif part:
                spans += f'<tspan fill="{colour}">{escape(part)}</tspan>'
        rows.append(f'<text x="16" y="{at * 20 + 10}">{spans}</text>')
    width = 32 + 8 * max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in lines)
    height = 20 * len(lines) + 24
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
    background = f'<rect width="{width}" height="{height}" rx="6"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", background, *rows, "</svg>\n"])


def words_of(page):
    """The states and the columns; the figures differ from run to run."""
    text = unescape(re.sub(r"<[^>]*>|\x1b\[\d*\w", "", page))
    return [words for words in re.findall(r"[a-z]+|10\.0\.0\.\d", text) if words not in ("s", "ms", "px")]


def test_the_picture_of_watch_is_of_what_it_shows(server):
    ask(server, SHOP)
    screen = Screen(server, "shop")
    with Wire(server.port) as wire:
        others = " ".join(f"10.0.0.{n}:8080" for n in (1, 3, 4, 6))
        wire.ask(f"LB.PICK shop EXCLUDE 4 {others} COUNT 8 LEASE 60000")
        for _ in range(5):
            wire.ask("LB.REPORT shop 10.0.0.3:8080 FAIL")
        wire.ask("LB.REPORT shop 10.0.0.4:8080 COOL 30000")
        micros = {f"10.0.0.{n}:8080": 2000 + n * 137 for n in range(1, 7)}
        for backend in micros:
            wire.ask(f"LB.REPORT shop {backend} OK LATENCY {micros[backend]}")

        def work():
            for _ in range(20):
                backend, id = wire.ask("LB.PICK shop LEASE 60000")
                wire.ask(f"LB.DONE shop {id.decode()} OK LATENCY {micros[backend.decode()]}")

        out = "full.*ejected, probe.*cooling"
        page = screen.eventually(rf"(?s)[1-9]\d* picks/s.*{out}.*6:8080 +up", meanwhile=work)
    screen.end(signal.SIGINT)
    if os.environ.get("REDIS_LB_UPDATE") == "1":
        PICTURE.write_text(picture(page))
    recorded = PICTURE.read_text()
    assert words_of(recorded.split("</style>")[1]) == words_of(page)
