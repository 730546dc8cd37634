"""A pool over k keys, for more picks than one server can give."""

import itertools
import math
import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from .commands import Algorithm, Commands, Hash, Name, Place, Sticky, several
from .flow import Flow, Sync, method
from .lease import A, Attempt, Held, L, Lease, Leasing, NoBackendError, Terms
from .pool import Pool, PoolFlows

S = TypeVar("S", bound=PoolFlows[Any, Any])
T = TypeVar("T")
COUNT_MAX = 10_000


def tags(k: int) -> list[int]:
    """The i-th tag lies in the i-th of k equal parts of the slots, so each node of a cluster gets as many."""
    return [
        next(tag for tag in itertools.count() if key_slot(b"%d" % tag) * k // REDIS_CLUSTER_HASH_SLOTS == i)
        for i in range(k)
    ]


def bytes_of(name: Name) -> bytes:
    return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name


class ShardFlows(Leasing[L, A], Generic[S, L, A]):
    """One pool under k keys, each with all backends. `clients`: one of a cluster, or one for each server.

    Each pick goes to the next shard. If that has nobody, the others are asked; then the pick waits on the first one.
    A session has a shard of its own, where its picks begin; a strict one goes to no other. While the server of a shard
    is away, the shard is skipped. The options are those of Pool. A change of the pool goes
    to each of `shards`, and a limit counts for each shard by itself.
    """

    _shard: Callable[..., S]

    def __init__(self, clients: Sequence[Any], name: str, k: int, **options: int) -> None:
        shard = type(self)._shard
        self.shards: tuple[S, ...] = tuple(
            shard(clients[i % len(clients)], f"{name}:{{{tag}}}", **options) for i, tag in enumerate(tags(k))
        )
        self._turns = itertools.count(random.randrange(k))

    @method
    def create(self, weights: Mapping[str, int]) -> Flow[None]:
        """Add the backends to each shard, once, before the first pick. Shard i starts i/k of a period farther on."""
        period = sum(weights.values()) // math.gcd(*weights.values())
        for i, shard in enumerate(self.shards):
            yield from Commands.add.flow(shard, weights)
            ahead = period * i // len(self.shards)
            for start in range(0, ahead, COUNT_MAX):
                yield from Commands.picks.flow(shard, min(COUNT_MAX, ahead - start), "wrr")

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
        """As Pool.pick()."""
        names = several(exclude)
        return (
            yield from self._go_round(
                self._order(sticky),
                lambda shard, place: shard._picking(algorithm, names, sticky, place),
                lambda shard: shard._local(names, algorithm),
                Place(wait_ms, prio, tenant),
            )
        )

    @method
    def forget(self, session: Name) -> Flow[bool]:
        """End a session, on whichever shards it was pinned. False if it was on none."""
        was_pinned = False
        for shard in self.shards:
            was_pinned |= yield from Commands.forget.flow(shard, session)
        return was_pinned

    def _grant(self, terms: Terms, exclude: tuple[Name, ...]) -> Flow[Held]:
        order = self._order(terms.sticky)
        held = yield from self._go_round(
            order,
            lambda shard, place: shard._granting(terms, exclude, place),
            lambda shard: shard._local_lease(exclude, terms.algorithm),
            terms.place,
        )
        if held is None:
            raise NoBackendError(order[0].key, (yield from order[0]._why()))
        return held

    def _order(self, sticky: Sticky | None) -> list[S]:
        """The shards to ask, beginning with the next one, or with that of the session."""
        turn = next(self._turns) if sticky is None else zlib.crc32(bytes_of(sticky.session))
        turn %= len(self.shards)
        order = self.shards[turn:] + self.shards[:turn]
        if sticky is not None and sticky.strict:
            return [order[0]]
        return [shard for shard in order if not shard._memory.rests] or list(order)

    def _go_round(
        self, order: list[S], ask: Callable[[S, Place], Flow[T | None]], local: Callable[[S], T | None], place: Place
    ) -> Flow[T | None]:
        at_once = replace(place, wait_ms=0)
        for shard in order:
            found = yield from shard._unless_away(ask(shard, at_once), partial(local, shard))
            # A caller that has found out that a server is away has waited long enough.
            if found is not None or shard.is_away:
                return found
        if not place.wait_ms:
            return None
        return (yield from order[0]._unless_away(ask(order[0], place), partial(local, order[0])))


class ShardedPool(Sync, ShardFlows[Pool, Lease, Attempt]):
    __doc__ = ShardFlows.__doc__
    _shard = Pool
    _lease = Lease
    _attempt = Attempt
