"""A real server as an object of a test. It never outlives the test process."""

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from servers import Binary, environment

# Deadlines only keep a test from waiting in vain: a machine may stand still for seconds.
START_SECONDS = 60.0
STOP_SECONDS = 60.0
SECONDS = 60.0
CRASH = "BUG REPORT START"
# The kernel kills the server when the test process dies, however it dies.
BOUND = ("setpriv", "--pdeathsig", "KILL")
# The ports that were given last.
GIVEN: deque[int] = deque(maxlen=200)


class Server:
    """One server process with the module loaded, in a folder of its own, on a free loopback port.

    `options` are lines of redis.conf: `appendonly="yes"`, `maxmemory_policy="noeviction"` (`_` stands for
    `-`). Nothing is persisted unless they say so. `folder` starts it on the data of another server.
    Clients get str, not bytes, never retry by themselves and give up after 100 s, unless told otherwise.
    Start it in the main thread: the kernel ends it with the thread that started it. One that shall go on when
    this process ends has another `launcher`. `arguments` are further words of its command line.
    """

    def __init__(
        self,
        binary: Binary,
        module: Path | None,
        module_args: Sequence[str] = (),
        folder: Path | None = None,
        launcher: Sequence[str] = BOUND,
        arguments: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.binary = binary
        self.port: int | None = None
        self._own_folder = None if folder else tempfile.TemporaryDirectory(prefix="redis-lb-")
        self.folder = folder or Path(self._own_folder.name)
        self._log = self.folder / "log"
        self._process: subprocess.Popen | None = None
        self._launcher = launcher
        self._arguments = arguments
        self._password = options.get("requirepass")
        self._write_config(module, module_args, options)

    def _write_config(self, module: Path | None, module_args: Sequence[str], options: dict[str, Any]) -> None:
        defaults = {"bind": "127.0.0.1", "save": '""', "appendonly": "no", "crash_memcheck_enabled": "no"}
        defaults["repl_diskless_sync_delay"] = 0  # a replica's first copy at once
        if self.binary.satisfies("7.0"):
            defaults["enable_debug_command"] = "local"
        lines = [f"{key.replace('_', '-')} {value}" for key, value in (defaults | options).items()]
        if module:
            lines.append(" ".join([f'loadmodule "{module}"', *module_args]))
        (self.folder / "redis.conf").write_text("\n".join(lines) + "\n")

    def start(self) -> "Server":
        """Start it, on its old port if it had one, and wait until it answers."""
        for _ in range(20):
            port = self.port or free_port()
            log_before = len(self.log())
            self._launch(port)
            if self._answers(port):
                self.port = port
                return self
            self.kill()
            if "Address already in use" not in self.log()[log_before:]:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{self} did not start:\n{self.log_tail()}")

    def _launch(self, port: int) -> None:
        command = [
            *self._launcher,
            str(self.binary.path),
            "redis.conf",
            "--port",
            str(port),
            *self._arguments,
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(self.binary.path),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _answers(self, port: int) -> bool:
        """Wait until it has loaded its data; False when it ends before, or takes too long."""
        with self._client(port) as client:
            for _ in waiting(START_SECONDS):
                if not self.alive():
                    return False
                try:
                    client.ping()
                    # Another server may have been faster on that port. Then this one soon says so, and ends.
                    if client.info("server")["process_id"] == self._process.pid:
                        return True
                except (redis.ConnectionError, redis.TimeoutError):  # the first includes "is loading"
                    pass
        return False

    def client(self, **options: Any) -> redis.Redis:
        """A new client; the options are redis.Redis's own."""
        return self._client(self.port, **options)

    def _client(self, port: int | None, **options: Any) -> redis.Redis:
        defaults = {
            "decode_responses": True,
            "password": self._password,
            # A retry would pick twice and hide a crash.
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": 100,
        }
        return redis.Redis(host="127.0.0.1", port=port, **(defaults | options))

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def crashed(self) -> bool:
        """Whether it ever printed the report that servers print when they crash."""
        return CRASH in self.log()

    def restart(self) -> None:
        """Stop it as an operator does, and start it on the same port and data."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """SIGTERM: saves if it is configured to, and ends."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"{self} did not stop:\n{self.log_tail()}") from None

    def kill(self) -> None:
        """SIGKILL, as a power failure. `start` starts it again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP, as a machine that stands still. `go_on` lets it run again."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "Server":
        """Start it, and close it in the end."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and remove its folder, if that is its own."""
        self.kill()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def log(self) -> str:
        """All it ever logged, restarts included."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def log_tail(self) -> str:
        """The last 30 lines of its log; after a crash what led to it and where it was."""
        lines = self.log().splitlines()
        crash = next((number for number, line in enumerate(lines) if CRASH in line), None)
        return "\n".join(lines[-30:] if crash is None else lines[max(0, crash - 15) : crash + 45])

    def __repr__(self) -> str:
        return f"{self.binary.name} on port {self.port}"


def free_port() -> int:
    """A port nobody listens on. It and its cluster port (+10000) lie below those the kernel gives out, and it
    below the cluster ports of scripts/cluster, which begin at 17000.

    Each process of the tests has ports of its own: a server that is started again finds its port free. The
    ports do not follow from a seed that a test has set for both. None is given again soon: who got it may not
    listen there yet, or be down for a moment.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.SystemRandom().randrange(10000 + process, 17000, processes)
        if port not in GIVEN and is_free(port):
            GIVEN.append(port)
            return port


def is_free(port: int) -> bool:
    """Whether nobody listens on that port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def waiting(seconds: float, pause: float = 0.02):
    """Go round a loop until the time is over: `for _ in waiting(5): …`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(pause)


def eventually(holds: Callable[[], Any], seconds: float = SECONDS, pause: float = 0.02) -> None:
    """Wait until `holds()` is true; fail when it is not by then."""
    for _ in waiting(seconds, pause):
        if holds():
            return
    raise AssertionError(f"not true within {seconds} s: {holds}")
