"""A pool as a gateway uses it: shared picks and leases, and local picks while Redis is away."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import redis

from . import replies
from .commands import Algorithm, Commands, Hash, Name, Outcome, Place, Sticky, pick_words, several
from .flow import Flow, Sync, method
from .lease import A, Attempt, Held, L, Lease, Leasing, NoBackendError, Terms
from .link import AWAY, Command, Link, SyncLink, log
from .local import Ahead, Memory
from .replies import When

T = TypeVar("T")
# To read the backends of a larger pool would hold up the caller that does it: a thousand take 50 ms of processor time.
LISTED = 1_000


class PoolFlows(Commands, Leasing[L, A]):
    """The pool at one key.

    `client` tells where Redis is. The pool makes connections of its own, which wait `timeout_ms` for an answer and
    never retry. While Redis is away, picks are local: by the weights that were read last, which happens every
    `refresh_ms` at most; for up to `fallback_ms` after the last answer (0: never); and one caller asks Redis again
    every `retry_ms`. With `prefetch` n, pick() makes up to n picks at a time and hands them out, for `prefetch_ms`.
    """

    _link_to: Callable[[Any, Name, int], Link]

    def __init__(
        self,
        client: Any,
        key: Name,
        *,
        timeout_ms: int = 500,
        retry_ms: int = 1_000,
        refresh_ms: int = 5_000,
        fallback_ms: int = 60_000,
        prefetch: int = 1,
        prefetch_ms: int = 1_000,
    ) -> None:
        super().__init__(type(self)._link_to(client, key, timeout_ms), key)
        self._memory = Memory(retry_ms, refresh_ms, fallback_ms)
        self._ahead = Ahead(prefetch, prefetch_ms)

    @property
    def is_away(self) -> bool:
        """Whether Redis did not answer when it was last asked, so that picks are local."""
        return self._memory.is_away

    @method
    def pick(
        self,
        algorithm: Algorithm | Hash | None = None,
        *,
        exclude: Iterable[Name] = (),
        sticky: Sticky | None = None,
        wait_ms: int = 0,
        prio: int = 0,
        tenant: Name | None = None,
    ) -> Flow[str | None]:
        """The next backend, or that of a session; None if none is eligible within `wait_ms`. 0 does not wait.

        See lease() for the rest.
        """
        names = several(exclude)
        asking = self._picking(algorithm, names, sticky, Place(wait_ms, prio, tenant))
        return (yield from self._unless_away(asking, partial(self._local, names, algorithm)))

    def _picking(
        self, algorithm: Algorithm | Hash | None, exclude: tuple[Name, ...], sticky: Sticky | None, place: Place
    ) -> Flow[str | None]:
        if self._ahead.most == 1 or algorithm or exclude or sticky or place.wait_ms or place.prio:
            words = pick_words(algorithm, exclude=exclude, sticky=sticky, place=place)
            return replies.text_or_none((yield from self._shared(words, place.wait_ms)))
        picked = self._ahead.next()
        if picked is None:
            words = pick_words(None, count=self._ahead.batch())
            picks = replies.texts((yield from self._shared(words)))
            self._ahead.keep(picks[1:])
            picked = picks[0] if picks else None
        return picked

    def _granting(self, terms: Terms, exclude: tuple[Name, ...], place: Place) -> Flow[Held | None]:
        def undo(reply: Any) -> Command | None:
            granted = replies.granted(reply)
            return granted and Command(("LB.DONE", self.key, granted.lease))

        words = pick_words(
            terms.algorithm,
            exclude=exclude,
            sticky=terms.sticky,
            ttl_ms=terms.ttl_ms,
            owner=terms.owner,
            costs=terms.costs,
            place=place,
        )
        granted = replies.granted((yield from self._shared(words, place.wait_ms, undo)))
        return granted and Held(self, granted.backend, granted.lease)

    def _grant(self, terms: Terms, exclude: tuple[Name, ...]) -> Flow[Held]:
        asking = self._granting(terms, exclude, terms.place)
        held = yield from self._unless_away(asking, partial(self._local_lease, exclude, terms.algorithm))
        if held is None:
            raise NoBackendError(self.key, (yield from self._why()))
        return held

    def _why(self) -> Flow[When]:
        if self._memory.rests:
            return When("unknown", None)
        try:
            return (yield from Commands.when.flow(self))
        except AWAY:
            return When("unknown", None)

    def _shared(self, words: tuple[Any, ...], wait_ms: int = 0, undo: Any = None) -> Flow[Any]:
        """What Redis answers to LB.PICK. Some calls first read the backends, for the time when it is away."""
        try:
            if self._memory.wants_refresh():
                yield from self._refresh()
            reply = yield from self._link.ask(Command(("LB.PICK", self.key, *words), wait_ms, undo))
        except AWAY:
            self._memory.failed()
            raise
        self._memory.answered()
        return reply

    def _refresh(self) -> Flow[None]:
        started = time.monotonic()
        try:
            is_listed = (yield from Commands.card.flow(self)) <= LISTED
            backends = (yield from Commands.stats.flow(self)) if is_listed else {}
        except AWAY:
            raise
        except redis.ResponseError as error:
            log.warning("redis-lb: without LB.CARD and LB.STATS there are no local picks: %s", error)
        else:
            self._memory.learn(backends, time.monotonic() - started)

    def _unless_away(self, asking: Flow[T], local: Callable[[], T]) -> Flow[T]:
        if self._memory.goes_alone():
            return local()
        try:
            return (yield from asking)
        except AWAY:
            if not self._memory.can_go_alone:
                raise
            return local()

    def _local(self, exclude: tuple[Name, ...], algorithm: str | Hash | None = None) -> str | None:
        names = {replies.text(n) if isinstance(n, bytes) else n for n in exclude}
        return self._memory.pick(names, algorithm.item if isinstance(algorithm, Hash) else None)

    def _local_lease(self, exclude: tuple[Name, ...], algorithm: str | Hash | None = None) -> Held | None:
        backend = self._local(exclude, algorithm)
        return None if backend is None else Held(self, backend, None)

    def _renew(self, lease: str, ttl_ms: int) -> Flow[bool | None]:
        """Whether the lease is open; None if Redis is away."""
        return (yield from self._while_there(Commands.renew.flow(self, lease, ttl_ms)))

    def _end(self, lease: str, outcome: Outcome | None, **report: Any) -> Flow[None]:
        yield from self._while_there(Commands.done.flow(self, lease, outcome, **report))

    def _while_there(self, asking: Flow[bool]) -> Flow[bool | None]:
        """For what a request can do without: it asks no server that is away, and raises nothing."""
        if self._memory.rests:
            return None
        try:
            return (yield from asking)
        except AWAY as error:
            self._memory.failed()
            log.warning("redis-lb: %s", error)
            return None
        except (redis.RedisError, OSError) as error:
            log.warning("redis-lb: %s", error)
            return False


class Pool(Sync, PoolFlows[Lease, Attempt]):
    __doc__ = PoolFlows.__doc__
    _link: SyncLink
    _link_to = SyncLink
    _lease = Lease
    _attempt = Attempt

    def close(self) -> None:
        """Close the connections that no command uses."""
        self._link.close()
