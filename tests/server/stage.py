"""Where the LLM gateway is tried: its processes, a strict provider, tenants, and the time of them all.

The provider and the tenants live in this process, and speak HTTP with the gateways. Time goes on in steps, in
all processes and in the pool. It never goes on before all that the last step has caused is done:
every request that a tenant has open either waits in the pool, or holds a lease and runs at the provider.
"""

import asyncio
import heapq
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from documents import CLIENT
from provider import Provider
from server import BOUND, free_port
from wire import Refused, Wire, dict_of

STEP = 200  # milliseconds
FIRST_TOKEN, EACH_TOKEN, TOLD = 500, 10, 2_000  # milliseconds; a stream tells what it has produced so often
LOOK = 2_000  # milliseconds
REAL_SECONDS, PAUSE_SECONDS = 30.0, 0.0002  # A step takes milliseconds.
TOLD_TIME = Path(__file__).with_name("told_time.py")


@dataclass(frozen=True)
class Wish:
    """A request of a tenant, and the tokens of its answer."""

    tenant: str
    prompt: int
    most: int
    answer: int


@dataclass(frozen=True)
class Entry:
    """What a key's bucket loses, or gets back where it is negative; and when."""

    now: int
    key: str
    tokens: int


@dataclass
class Stage:
    """`answered` says how many tokens the answer to a request of that estimate has.

    Afterwards `log` tells what gateways took and settled, `looks` what the pool said was left from time to
    time, `used` the tokens of each key until the end, `waits` how long each tenant waited, in milliseconds.
    """

    port: int
    provider: Provider
    answered: Callable[[Wish, int], int]
    now: int = 0
    open: int = 0
    log: list[Entry] = field(default_factory=list)
    looks: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    waits: dict[str, list[int]] = field(default_factory=dict)
    _due: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0

    # The provider

    def _at(self, millis: int, what: Callable[[], None]) -> None:
        on_step = self.now + max(1, -(-millis // STEP)) * STEP
        heapq.heappush(self._due, (on_step, self._number, what))
        self._number += 1

    async def _provide(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers, body = await message(reader)
        request = json.loads(body)
        key = headers["authorization"].removeprefix("Bearer ")
        wish = Wish(**request["metadata"])
        estimate = len(body) // 4 + wish.most
        answer = self.answered(wish, estimate)
        # It knows the prompt better than the gateway does.
        refusal = self.provider.begin(self.now, key, wish.prompt, wish.prompt + wish.most)
        self.log.append(Entry(self.now, key, estimate))
        if refusal:
            self.log.append(Entry(self.now, key, -estimate))
            writer.write(b"HTTP/1.0 429 Too Many Requests\r\nRetry-After: %d\r\n\r\n" % refusal.retry_after)
            writer.close()
            return
        self.waits.setdefault(wish.tenant, []).append(self.now - request["created"])
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        each = TOLD // EACH_TOKEN
        for i, produced in enumerate(range(0, answer, each)):
            tokens = min(each, answer - produced)
            told = event(choices=[{"delta": {"content": "word " * (tokens // 50)}}])
            at = FIRST_TOKEN + i * TOLD if produced + each < answer else FIRST_TOKEN + answer * EACH_TOKEN
            self._at(at, lambda told=told, tokens=tokens: self._produce(writer, key, told, tokens))
        self._at(FIRST_TOKEN + answer * EACH_TOKEN, lambda: self._end(writer, key, wish, estimate, answer))

    def _produce(self, writer: asyncio.StreamWriter, key: str, told: bytes, tokens: int) -> None:
        self.provider.produce(self.now, key, tokens)
        writer.write(told)

    def _end(self, writer: asyncio.StreamWriter, key: str, wish: Wish, estimate: int, answer: int) -> None:
        used = wish.prompt + answer
        self.log.append(Entry(self.now, key, used - estimate))
        self.provider.end(self.now, key, wish.prompt + wish.most, used)
        writer.write(event(choices=[], usage={"total_tokens": used}) + b"data: [DONE]\n\n")
        writer.close()

    # The tenants

    async def _tenant(self, wishes: Iterator[Wish], port: int) -> None:
        for wish in wishes:
            text = json.dumps(
                {
                    "messages": [{"role": "user", "content": "abc " * wish.prompt}],
                    "max_tokens": wish.most,
                    "metadata": vars(wish),
                    "created": self.now,
                }
            ).encode()
            self.open += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.0\r\nX-Tenant: %b\r\n" % wish.tenant.encode())
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
            answer = await reader.read()
            writer.close()
            self.statuses.append(int(answer.split()[1]))
            self.open -= 1

    # The time

    async def play(self, program: str, gateways: int, tenants: list[Iterator[Wish]], until: int) -> None:
        """Lets that many gateways serve the tenants until that time, and on until all streams have ended."""
        server = await asyncio.start_server(self._provide, "127.0.0.1", 0, limit=1 << 20)
        to = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ports = [free_port() for _ in range(gateways)]
        with Wire(self.port) as wire, Gateways(program, ports, self.port, to) as processes:
            for port in ports:
                await reachable(port)
            tasks = [
                asyncio.create_task(self._tenant(self._while_open(wishes, until), ports[i % gateways]))
                for i, wishes in enumerate(tenants)
            ]
            while self.now < until or self.open:
                self.now += STEP
                processes.tell(self.now)
                ask(wire, f"LB.TICK llm {self.now}")
                await self._settled(wire, tasks)
                while self._due and self._due[0][0] <= self.now:
                    running_before = self.provider.running()
                    heapq.heappop(self._due)[2]()
                    # One end after the other: so the log has the order in which the pool hears of them.
                    if self.provider.running() < running_before:
                        await self._settled(wire, tasks)
                self._look(wire, until)
            await asyncio.gather(*tasks)
        server.close()

    def _look(self, wire: Wire, until: int) -> None:
        if self.now % LOOK == 0:
            stats = dict_of(ask(wire, "LB.STATS llm"))
            left = {key.decode(): tokens_left(dict_of(of)) for key, of in stats.items()}
            self.looks.append((self.now, left))
        if self.now == until:
            self.used = {key: self.provider.used(key) for key in left}

    def _while_open(self, wishes: Iterator[Wish], until: int) -> Iterator[Wish]:
        for wish in wishes:
            if self.now >= until:
                return
            yield wish

    async def _settled(self, wire: Wire, tasks: list[asyncio.Task[None]]) -> None:
        """Waits until all has been done that this step has caused so far."""
        deadline = time.monotonic() + REAL_SECONDS
        while True:
            await asyncio.sleep(0)
            info = dict_of(ask(wire, "LB.INFO llm"))
            waiting, leases, picks = (info[name] for name in (b"waiting", b"leases", b"picks"))
            runs = leases == self.provider.running() and picks == self.provider.came
            if runs and waiting + leases == self.open:
                return
            for task in tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, (self.now, info, self.open, self.provider.running())
            await asyncio.sleep(PAUSE_SECONDS)


def tokens_left(stats: dict[bytes, Any]) -> int:
    """Of a key, as LB.STATS says."""
    return dict_of(dict_of(stats[b"costs"])[b"tokens"])[b"left"]


def ask(wire: Wire, command: str) -> Any:
    """What is no error."""
    answer = wire.ask(command)
    assert not isinstance(answer, Refused), f"{command}: {answer}"
    return answer


def event(**about: Any) -> bytes:
    """One of a stream, as OpenAI sends them."""
    return b"data: %b\n\n" % json.dumps(about).encode()


async def message(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    """The headers of a request, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().strip()
    pairs = [line.partition(": ") for line in head.split("\r\n")[1:]]
    headers = {name.lower(): value for name, _, value in pairs}
    return headers, await reader.readexactly(int(headers["content-length"]))


async def reachable(port: int) -> None:
    """Waits until something listens there."""
    deadline = time.monotonic() + REAL_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the gateway does not start"
            await asyncio.sleep(0.02)


class Gateways:
    """Processes of the gateway, to which the time is told."""

    def __init__(self, program: str, ports: list[int], redis: int, provider: str) -> None:
        more = {"REDIS": f"redis://127.0.0.1:{redis}", "PROVIDER": provider, "PYTHONPATH": str(CLIENT)}
        self._processes = [
            subprocess.Popen(
                [*BOUND, sys.executable, str(TOLD_TIME), program, str(port)],
                env=os.environ | more,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for port in ports
        ]

    def tell(self, now: int) -> None:
        """Tells it to all, and waits until all have done what is due."""
        for process in self._processes:
            process.stdin.write(f"{now}\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout.readline() == f"{now}\n"

    def __enter__(self) -> "Gateways":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
