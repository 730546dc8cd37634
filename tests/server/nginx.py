"""A real nginx with the files that a reader of its README copies, servers behind it, clients before it."""

import asyncio
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from awaited import cancelled_all
from script import ROOT
from server import BOUND, eventually, free_port

FILES = ROOT / "src" / "clients" / "nginx"
# Where scripts/setup has unpacked Debian's nginx.
DEBIAN = ROOT / "target" / "nginx"
ENVIRONMENT = os.environ | {
    "LD_LIBRARY_PATH": ":".join(str(path) for path in sorted(DEBIAN.glob("**/*-linux-gnu")))
}
MODULES = ("ndk_http", "ngx_http_lua")
# SIGTERM, unlike SIGKILL, lets the master end its workers.
LAUNCHER = (*BOUND[:-1], "TERM")


def copied(redis_port: int, port: int, locations: str = "", **settings: object) -> str:
    """The file nginx.conf, edited as a reader would: for these ports, with `settings` of lb.lua.

    `locations` are further lines of the `server` block.
    """
    set_more = " ".join(f"lb.{name} = {value}" for name, value in settings.items())
    edits = {
        "/etc/nginx/?.lua;;": f"{FILES}/?.lua;{DEBIAN}/usr/share/lua/5.1/?.lua;;",
        '"127.0.0.1", 6379': f'"127.0.0.1", {redis_port} {set_more}',
        "listen 8080;": f"listen 127.0.0.1:{port}; {locations}",
    }
    conf = (FILES / "nginx.conf").read_text()
    for written, edited in edits.items():
        assert conf.count(written) == 1, written
        conf = conf.replace(written, edited)
    return conf


def command(folder: Path, conf: str, workers: int, modules: Sequence[str] = MODULES) -> list[str | Path]:
    """What starts nginx in that folder, to which it writes its files: `conf` is all in `http { }`."""
    (folder / "lb.conf").write_text(conf)
    loaded = "\n".join(f"load_module {DEBIAN}/usr/lib/nginx/modules/{name}_module.so;" for name in modules)
    temporary = "\n".join(
        f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""{loaded}
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off; worker_processes {workers}; pid pid; error_log log;
        events {{ worker_connections 2048; }}
        http {{ access_log off; {temporary} include lb.conf; }}"""
    )
    return [DEBIAN / "usr" / "sbin" / "nginx", "-p", folder, "-c", "nginx.conf", "-e", "log"]


class Nginx:
    """nginx with lb.lua and nginx.conf, at the pool `web` of a server.

    `locations` and `settings` are those of `copied`. Open it by `with`; nothing of it outlives the test.
    """

    def __init__(self, redis_port: int, workers: int = 2, locations: str = "", **settings: object) -> None:
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="redis-lb-nginx-")
        self.folder = Path(self._folder.name)
        self._process: subprocess.Popen | None = None
        # A machine that is busy for a moment shall not look like a server that is away.
        conf = copied(redis_port, self.port, locations, **({"timeout_ms": 5_000} | settings))
        self._command = command(self.folder, conf, workers)

    def __enter__(self) -> "Nginx":
        self._process = subprocess.Popen(
            [*LAUNCHER, *self._command], env=ENVIRONMENT, stdin=subprocess.DEVNULL
        )
        eventually(lambda: self._process.poll() is not None or self._listens())
        assert self._process.poll() is None, self.log()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._folder.cleanup()

    def _listens(self) -> bool:
        return bool(self.workers()) and "/pid" not in self.log() and (self.folder / "pid").exists()

    def workers(self) -> set[int]:
        """The processes of its workers, with those that are about to exit."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def reload(self) -> None:
        """Have new workers serve. The old ones finish what they have begun."""
        before = self.workers()
        self._process.send_signal(signal.SIGHUP)
        eventually(lambda: self.workers() - before)

    def log(self) -> str:
        """All that it has logged."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def errors(self) -> list[str]:
        """Lines of its log that nobody expects: errors of Lua, crashes of workers."""
        return [line for line in self.log().splitlines() if re.search(r"lua|alert|emerg|signal 11", line)]


@dataclass(frozen=True)
class Answer:
    """The answer that a client got."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """The answer of a server, and its delay. Without a status it closes the connection."""

    status: int | None = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0


class Backend:
    """An HTTP server on loopback. It counts requests by method, and replies by status."""

    def __init__(self, port: int, reply: Callable[[], Reply]) -> None:
        self.name = f"127.0.0.1:{port}"
        self.reply = reply
        self.asked: Counter[str] = Counter()
        self.said: Counter[int | None] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await head_of(reader):
                await reader.readexactly(int(head.headers.get("content-length", 0)))
                self.asked[head.first.split()[0]] += 1
                reply = self.reply()
                self.said[reply.status] += 1
                await asyncio.sleep(reply.seconds)
                if reply.status is None:
                    break
                body = reply.body or self.name.encode()
                headers = {"Content-Length": len(body)} | reply.headers
                lines = [
                    f"HTTP/1.1 {reply.status} x",
                    *(f"{name}: {value}" for name, value in headers.items()),
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a message."""

    first: str
    headers: dict[str, str]


async def head_of(reader: asyncio.StreamReader) -> Head | None:
    """The next head, or None at the end of the connection."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = text.strip().split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return Head(first, {name.lower(): value.strip() for name, value in pairs})


class Client:
    """A client of nginx with one connection, which it keeps."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str = "GET", path: str = "/", body: bytes = b"") -> Answer:
        """One request. A kept connection that nginx has closed is opened anew, as any client does."""
        while True:
            is_kept = self._streams is not None
            self._streams = self._streams or await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self._streams
            try:
                length = f"Content-Length: {len(body)}\r\n" if body else ""
                writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode() + body)
                head = await head_of(reader)
                if head:
                    break
            except ConnectionError:
                pass
            self.close()
            assert is_kept, "nginx closed a new connection without an answer"
        if "content-length" in head.headers:
            answer = await reader.readexactly(int(head.headers["content-length"]))
        else:
            answer = await chunks_of(reader)
        if head.headers.get("connection") == "close":
            self.close()
        return Answer(int(head.first.split()[1]), head.headers, answer)

    def close(self) -> None:
        """Disconnect, in the middle of a request too."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def chunks_of(reader: asyncio.StreamReader) -> bytes:
    """A body that comes in chunks."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


class Internet:
    """The loop in which servers and clients of a test live."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: object, seconds: float = 100) -> object:
        """Run it to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    def begin(self, coroutine: object) -> object:
        """Run it meanwhile; `.result()` waits for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def backend(self, reply: Reply | Callable[[], Reply] | None = None) -> Backend:
        """A server that says that to each request."""
        answer = reply if callable(reply) else lambda: reply or Reply()
        backend = Backend(free_port(), answer)
        self.run(self._listen(backend))
        return backend

    async def _listen(self, backend: Backend) -> None:
        port = int(backend.name.rpartition(":")[2])
        await asyncio.start_server(backend.serve, "127.0.0.1", port, backlog=1024)

    def ask(self, nginx: Nginx, *request: object) -> Answer:
        """The answer to one request of a client of its own."""

        async def asked() -> Answer:
            client = Client(nginx.port)
            try:
                return await client.ask(*request)
            finally:
                client.close()

        return self.run(asked())

    def load(self, nginx: Nginx, connections: int, seconds: float) -> object:
        """So many clients ask one request after the other; `.result()` is the list of their answers."""

        async def one(until: float) -> list[Answer]:
            client, answers = Client(nginx.port), []
            while time.monotonic() < until:
                answers.append(await client.ask())
            client.close()
            return answers

        async def all_of_them() -> list[Answer]:
            until = time.monotonic() + seconds
            return sum(await asyncio.gather(*(one(until) for _ in range(connections))), [])

        return self.begin(all_of_them())

    def close(self) -> None:
        """End all of it."""
        self.run(cancelled_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def sums_of(client: redis.Redis) -> dict[str, int]:
    """The counts of all backends of the pool `web`, summed up."""
    names = ("picks", "leases", "done", "failures", "expired")
    stats = client.execute_command("LB.STATS web").values()
    return {name: sum(of[name] for of in stats) for name in names}


@contextmanager
def internet() -> Iterator[Internet]:
    """It is gone afterwards."""
    made = Internet()
    try:
        yield made
    finally:
        made.close()
