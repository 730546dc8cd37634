"""A lease for as long as a block runs: renewed while it runs, ended and reported when it ends."""

import asyncio
import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import redis

from . import forks
from .commands import NOTHING, Algorithm, Amounts, Hash, Name, Outcome, Place, Sticky, several
from .flow import Flow
from .link import in_background, log
from .replies import When

COOL_MS_MAX = 2**40
A = TypeVar("A")
E = TypeVar("E", bound="SyncLease")
F = TypeVar("F", bound="AwaitedLease")
L = TypeVar("L")
Kind: TypeAlias = type[BaseException] | None


class NoBackendError(redis.RedisError):
    """Nothing can be picked: `reason` is that of LB.WHEN, and it may end in `ms` milliseconds."""

    def __init__(self, key: Name, when: When) -> None:
        self.reason, self.ms = when
        back = "" if self.ms is None else f", back in {self.ms} ms"
        super().__init__(f"no backend of {key!r} can be picked: {self.reason}{back}")


class Granter(Protocol):
    """The pool that granted a lease, as the lease sees it."""

    def _renew(self, lease: str, ttl_ms: int) -> Flow[bool | None]: ...

    def _end(self, lease: str, outcome: Outcome | None, **report: Any) -> Flow[None]: ...


@dataclass(frozen=True)
class Held:
    """A backend that was granted. Without an id nobody counts it: Redis was away."""

    pool: Granter
    backend: str
    id: str | None


@dataclass(frozen=True)
class Terms:
    """What to lease."""

    ttl_ms: int
    algorithm: Algorithm | Hash | None
    owner: Name | None
    exclude: tuple[Name, ...]
    place: Place
    failures: tuple[type[Exception], ...]
    sticky: Sticky | None
    costs: Amounts


@dataclass
class Series:
    """The attempts at one request."""

    left: int
    tried: list[str] = field(default_factory=list)
    error: Exception | None = None


class LeaseFlows:
    """The lease of a block. See Pool.lease()."""

    backend: str
    #: Opaque. None while Redis is away: then nobody counts this request.
    id: str | None
    #: The time that the request took; measured over the block, unless you set it.
    latency_us: int | None = None
    #: The utilisation that the backend told; 1 is fully used.
    load: float | None = None
    #: What the request really cost, by the name of the cost. A cost that is not named here keeps its estimate.
    costs: Amounts | None = None
    #: Whether the server has ended it, by its deadline or by an operator, while the block runs.
    is_lost = False

    def __init__(self, pool: Any, terms: Terms, series: Series | None) -> None:
        self._pool = pool
        self._terms = terms
        self._series = series
        self._held: Held | None = None
        self._has_failed = False
        self._cool_ms: int | None = None

    def fail(self) -> None:
        """Report a failure, though the block raises nothing."""
        self._has_failed = True

    def cool(self, ms: int) -> None:
        """Let the backend have no picks for that long. It is no failure."""
        self._cool_ms = min(max(ms, self._cool_ms or 1), COOL_MS_MAX)

    def retry_after(self, value: str) -> None:
        """The same, by the value of an HTTP header Retry-After: seconds, or a date."""
        ms = retry_after_ms(value)
        if ms:
            self.cool(ms)

    def _enter(self) -> Flow[None]:
        if self._held is not None:
            raise RuntimeError("this lease has been entered; pool.lease() makes another one")
        series = self._series
        try:
            exclude = self._terms.exclude + tuple(series.tried if series else ())
            self._held = yield from self._pool._grant(self._terms, exclude)
        except NoBackendError as nobody:
            if series and series.error:
                raise series.error from nobody
            raise
        self.backend, self.id = self._held.backend, self._held.id
        self._since = time.monotonic()
        self._pid = os.getpid()
        self._is_open = True

    def _leave(self, error: BaseException | None) -> Flow[bool]:
        self._is_open = False
        is_failure = isinstance(error, self._terms.failures)
        if is_failure and (header := retry_after_of(error)):
            self.retry_after(header)
        outcome: Outcome | None = None
        if self._has_failed or is_failure:
            outcome = "FAIL" if self._cool_ms is None else None
        elif error is None:
            outcome = "OK"
        latency_us = self.latency_us
        if latency_us is None:
            latency_us = int((time.monotonic() - self._since) * 1_000_000)
        # In the child of a fork the lease is still that of the parent.
        if self._held and self.id is not None and os.getpid() == self._pid:
            told = latency_us if outcome == "OK" else None
            report = {"latency_us": told, "load": self.load, "cool_ms": self._cool_ms, "costs": self.costs}
            yield from self._held.pool._end(self.id, outcome, **report)
        if self._series is None:
            return False
        if not isinstance(error, self._terms.failures):
            self._series.left = 0
            return False
        self._series.error = error
        self._series.tried.append(self.backend)
        return self._series.left > 0

    def _prolong(self) -> Flow[float | None]:
        """Renews it; the seconds until that is due again, or None if it never is."""
        assert self._held and self.id is not None
        is_alive = yield from self._held.pool._renew(self.id, self._terms.ttl_ms)
        if is_alive is False:
            self.is_lost = self._is_open
            return None
        return self._first_s if is_alive else self._first_s / 4

    @property
    def _first_s(self) -> float:
        """A third of the time, so that two renewals may fail."""
        return self._terms.ttl_ms / 3000


class SyncLease(LeaseFlows):
    def __enter__(self: E) -> E:
        self._pool._run(self._enter())
        if self.id is not None:
            _renewer.watch(self, self._first_s)
        return self

    def _finish(self, error: BaseException | None) -> bool:
        try:
            return bool(self._pool._run(self._leave(error)))
        finally:
            if self.id is not None:
                _renewer.forget_one()


class Lease(SyncLease):
    """The lease of a `with` block."""

    def __exit__(self, kind: Kind, error: BaseException | None, trace: TracebackType | None) -> None:
        self._finish(error)


class Attempt(SyncLease):
    """The same, of a block that is tried again."""

    def __exit__(self, kind: Kind, error: BaseException | None, trace: TracebackType | None) -> bool:
        return self._finish(error)


class AwaitedLease(LeaseFlows):
    async def __aenter__(self: F) -> F:
        await self._pool._run(self._enter())
        if self.id is not None:
            self._renewing = in_background(self._keep())
        return self

    async def _finish(self, error: BaseException | None) -> bool:
        if self.id is not None:
            self._renewing.cancel()
            del self._renewing  # which has the lease in its frames
        # Shielded: a block that is cancelled is reported all the same.
        return bool(await asyncio.shield(in_background(self._pool._run(self._leave(error)))))

    async def _keep(self) -> None:
        delay: float | None = self._first_s
        while delay is not None:
            await asyncio.sleep(delay)
            delay = await self._pool._run(self._prolong())


class AsyncLease(AwaitedLease):
    """The lease of an `async with` block."""

    async def __aexit__(self, kind: Kind, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._finish(error)


class AsyncAttempt(AwaitedLease):
    """The same, of a block that is tried again."""

    async def __aexit__(self, kind: Kind, error: BaseException | None, trace: TracebackType | None) -> bool:
        return await self._finish(error)


class Leasing(Generic[L, A]):
    """What pools and sharded pools have alike, with `L` the leases and `A` the attempts that they make."""

    _lease: Callable[[Any, Terms, Series | None], L]
    _attempt: Callable[[Any, Terms, Series | None], A]

    def lease(
        self,
        algorithm: Algorithm | Hash | None = None,
        *,
        ttl_ms: int = 10_000,
        wait_ms: int = 0,
        prio: int = 0,
        tenant: Name | None = None,
        owner: Name | None = None,
        exclude: Iterable[Name] = (),
        sticky: Sticky | None = None,
        failures: tuple[type[Exception], ...] = (Exception,),
        costs: Amounts = NOTHING,
    ) -> L:
        """A backend for as long as the block runs: `with pool.lease() as lease: call(lease.backend)`.

        The lease ends `ttl_ms` after this process has died; while the block runs it is renewed. At its end it is
        reported: OK and the latency; FAIL if the block raises one of `failures`; neither if it raises something
        else, as when it is cancelled. An error with an HTTP response that has Retry-After cools the backend.
        With `sticky` it is the backend of that session.
        Raises NoBackendError if nothing can be picked within `wait_ms`; 0 does not wait. Waiters with a lower `prio`, 0
        to 255, are served first. If set_queue() says so, those of one `prio` take turns by their `tenant`.
        `costs` estimates what the request costs, as {"tokens": 1200}; set `lease.costs` to what it really was.
        """
        place = Place(wait_ms, prio, tenant)
        terms = Terms(ttl_ms, algorithm, owner, several(exclude), place, failures, sticky, costs)
        return type(self)._lease(self, terms, None)

    def attempts(
        self,
        most: int,
        algorithm: Algorithm | Hash | None = None,
        *,
        ttl_ms: int = 10_000,
        wait_ms: int = 0,
        prio: int = 0,
        tenant: Name | None = None,
        owner: Name | None = None,
        exclude: Iterable[Name] = (),
        sticky: Sticky | None = None,
        failures: tuple[type[Exception], ...] = (Exception,),
        costs: Amounts = NOTHING,
    ) -> Iterator[A]:
        """Leases for one request, each on another backend, until a block raises none of `failures`.

        `for attempt in pool.attempts(3): with attempt as lease: …`. The error of the last attempt is raised.
        """
        place = Place(wait_ms, prio, tenant)
        terms = Terms(ttl_ms, algorithm, owner, several(exclude), place, failures, sticky, costs)
        series = Series(most)
        while series.left:
            series.left -= 1
            yield type(self)._attempt(self, terms, series)


class Renewer:
    """One thread that renews the leases of all `with` blocks of this process."""

    def __init__(self) -> None:
        self._number = itertools.count()
        forks.watch(self)
        self.after_fork()

    def after_fork(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, SyncLease]] = []
        self._ended = 0  # at least as many of them as are still in there
        self._thread: threading.Thread | None = None

    def watch(self, lease: SyncLease, delay_s: float) -> None:
        """Renew it then, and again, while it is open."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._number), lease))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="redis-lb-renewer", daemon=True)
                self._thread.start()
            elif self._due[0][2] is lease:
                self._changed.notify()

    def forget_one(self) -> None:
        """A lease has ended. Those that have ended are taken out when they may be half of all."""
        with self._changed:
            self._ended += 1
            if self._ended * 2 > len(self._due):
                self._due = [entry for entry in self._due if entry[2]._is_open]
                heapq.heapify(self._due)
                self._ended = 0

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                lease = heapq.heappop(self._due)[2]
            if not lease._is_open:
                continue
            try:
                delay_s = lease._pool._run(lease._prolong())
            except Exception:  # the thread is that of all other leases, too
                log.exception("redis-lb: a lease on %s is not renewed", lease.backend)
            else:
                if delay_s is not None:
                    self.watch(lease, delay_s)


_renewer = Renewer()


def retry_after_of(error: Any) -> str | None:
    """The header of the response that an error of an HTTP library carries, or is."""
    response = getattr(error, "response", None)
    headers = getattr(error if response is None else response, "headers", None)
    get = getattr(headers, "get", None)
    value = get("Retry-After") if get else None
    return value if isinstance(value, str) else None


def retry_after_ms(value: str) -> int | None:
    """Milliseconds from now; None if the value is neither seconds nor a date."""
    try:
        if value.strip().isdecimal():
            return int(value) * 1000
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return max(0, int((date - datetime.now(timezone.utc)).total_seconds() * 1000))
    except (ValueError, OverflowError):
        return None
