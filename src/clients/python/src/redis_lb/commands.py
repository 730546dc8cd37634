"""Every command of the module as a method with its types.

The methods have the names of the commands. If a command reads or sets, depending on its arguments, the method of
its name reads, and `set_` before it sets. If COUNT changes the type of the reply, there is a second method.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar

from . import replies
from .flow import Flow, method
from .link import Command, Link
from .replies import BackendStats, Granted, HealthSettings, Limits, OpenLease, PoolInfo, QueueInfo, When, Word

T = TypeVar("T")
Name: TypeAlias = str | bytes
# The methods below are called like some types.
Names: TypeAlias = list[str]
Amounts: TypeAlias = Mapping[str, int]
Weights: TypeAlias = Mapping[str, int] | Mapping[bytes, int] | Mapping[Name, int]
Leased: TypeAlias = list[Granted]
OpenLeases: TypeAlias = list[OpenLease]
State: TypeAlias = Literal["up", "drain", "down"]
Outcome: TypeAlias = Literal["OK", "FAIL"]
Algorithm: TypeAlias = Literal["rr", "wrr", "random", "wrandom", "lc", "p2c", "ewma"]
Order: TypeAlias = Literal["fifo", "fair"]
Foreseeable: TypeAlias = Literal["rr", "wrr", "lc", "ewma"]
NOTHING: Amounts = MappingProxyType({})


@dataclass(frozen=True)
class Sticky:
    """A session that stays on its backend, for `ms` after its last pick; if `strict`, on no other one meanwhile."""

    session: Name
    ms: int
    strict: bool = False


@dataclass(frozen=True)
class Hash:
    """In place of an algorithm: the item goes always to the same backend, as far as it can."""

    item: Name

    @property
    def words(self) -> tuple[Word, ...]:
        return ("hash", self.item)


class Commands:
    """The commands on the pool at one key. Each sends what it says, and nothing else."""

    def __init__(self, link: Link, key: Name) -> None:
        self._link = link
        self.key = key

    def _ask(self, name: str, *words: Word, parse: Callable[[Any], T], wait_ms: int = 0) -> Flow[T]:
        return parse((yield from self._link.ask(Command((name, self.key, *words), wait_ms))))

    # Membership and weights

    @method
    def add(self, backends: Name | Weights) -> Flow[int]:
        """Add backends with their weights; or one, of weight 1 if it is new. Returns how many are new."""
        words = [backends] if isinstance(backends, str | bytes) else flat(backends)
        return (yield from self._ask("LB.ADD", *words, parse=int))

    @method
    def set(self, backends: Weights) -> Flow[int]:
        """Make the pool exactly these backends. Returns how many were added or removed."""
        return (yield from self._ask("LB.SET", *flat(backends), parse=int))

    @method
    def rem(self, *backends: Name) -> Flow[int]:
        """Remove backends. Returns how many were removed."""
        return (yield from self._ask("LB.REM", *backends, parse=int))

    @method
    def weight(self, backend: Name) -> Flow[int | None]:
        """The weight of a backend; None if there is no such backend."""
        return (yield from self._ask("LB.WEIGHT", backend, parse=replies.number_or_none))

    @method
    def set_weight(self, weights: Weights) -> Flow[None]:
        """Set weights, of backends that are all there."""
        yield from self._ask("LB.WEIGHT", *flat(weights), parse=replies.nothing)

    @method
    def state(self, backend: Name) -> Flow[str | None]:
        """The state of a backend: up, drain or down; None if there is no such backend."""
        return (yield from self._ask("LB.STATE", backend, parse=replies.text_or_none))

    @method
    def set_state(self, backend: Name, state: State) -> Flow[None]:
        """Put a backend into service or out of it. `down` also ends its leases; `up` also ends ejection."""
        yield from self._ask("LB.STATE", backend, state, parse=replies.nothing)

    @method
    def policy(self) -> Flow[str | None]:
        """The algorithm of picks that name none; None if there is no pool."""
        return (yield from self._ask("LB.POLICY", parse=replies.text_or_none))

    @method
    def set_policy(self, algorithm: Algorithm) -> Flow[None]:
        """Set the algorithm of picks that name none."""
        yield from self._ask("LB.POLICY", algorithm, parse=replies.nothing)

    @method
    def list(self) -> Flow[Names]:
        """The backends, in order of addition."""
        return (yield from self._ask("LB.LIST", parse=replies.texts))

    @method
    def card(self) -> Flow[int]:
        """The number of backends."""
        return (yield from self._ask("LB.CARD", parse=int))

    # Picks. Pool.pick and Pool.lease do more than these

    @method
    def picks(
        self,
        count: int,
        algorithm: Algorithm | Hash | None = None,
        *,
        distinct: bool = False,
        exclude: Iterable[Name] = (),
        wait_ms: int = 0,
        prio: int = 0,
        tenant: Name | None = None,
    ) -> Flow[Names]:
        """Up to `count` picks, by one command; fewer if no more are eligible. Waits for the first one."""
        place = Place(wait_ms, prio, tenant)
        words = pick_words(algorithm, count=count, distinct=distinct, exclude=exclude, place=place)
        return (yield from self._ask("LB.PICK", *words, parse=replies.texts, wait_ms=wait_ms))

    @method
    def take_leases(
        self,
        count: int,
        ttl_ms: int,
        algorithm: Algorithm | Hash | None = None,
        *,
        owner: Name | None = None,
        distinct: bool = False,
        exclude: Iterable[Name] = (),
        wait_ms: int = 0,
        prio: int = 0,
        tenant: Name | None = None,
    ) -> Flow[Leased]:
        """Up to `count` picks with leases, which you end by done(). Pool.lease() does that by itself."""
        place = Place(wait_ms, prio, tenant)
        words = pick_words(
            algorithm, count=count, distinct=distinct, exclude=exclude, ttl_ms=ttl_ms, owner=owner, place=place
        )
        return (yield from self._ask("LB.PICK", *words, parse=replies.all_granted, wait_ms=wait_ms))

    @method
    def peek(
        self, algorithm: Foreseeable | Hash | None = None, *, exclude: Iterable[Name] = (), session: Name | None = None
    ) -> Flow[str | None]:
        """What the next pick would give, or that of a session. It changes nothing, and works on replicas."""
        words = pick_words(algorithm, exclude=exclude) + options(STICKY=session)
        return (yield from self._ask("LB.PEEK", *words, parse=replies.text_or_none))

    @method
    def peeks(
        self,
        count: int,
        algorithm: Foreseeable | Hash | None = None,
        *,
        distinct: bool = False,
        exclude: Iterable[Name] = (),
    ) -> Flow[Names]:
        """What the next picks would give."""
        words = pick_words(algorithm, count=count, distinct=distinct, exclude=exclude)
        return (yield from self._ask("LB.PEEK", *words, parse=replies.texts))

    @method
    def forget(self, session: Name) -> Flow[bool]:
        """End a session, so that its next pick goes by the algorithm. False if it was not pinned."""
        return (yield from self._ask("LB.FORGET", session, parse=replies.flag))

    # Leases and reports

    @method
    def done(
        self,
        lease: Name,
        outcome: Outcome | None = None,
        *,
        latency_us: int | None = None,
        load: float | None = None,
        cool_ms: int | None = None,
        costs: Amounts | None = None,
    ) -> Flow[bool]:
        """End a lease, and report how its request went, and what it cost. False if the lease was over."""
        words = report_words(outcome, latency_us, load, cool_ms) + options(COSTS=amounts(costs))
        return (yield from self._ask("LB.DONE", lease, *words, parse=replies.flag))

    @method
    def report(
        self,
        backend: Name,
        outcome: Outcome | None = None,
        *,
        latency_us: int | None = None,
        load: float | None = None,
        cool_ms: int | None = None,
    ) -> Flow[bool]:
        """Report how a backend does, without a lease. False if there is no such backend."""
        words = report_words(outcome, latency_us, load, cool_ms)
        return (yield from self._ask("LB.REPORT", backend, *words, parse=replies.flag))

    @method
    def renew(self, lease: Name, ttl_ms: int) -> Flow[bool]:
        """Let a lease end that long from now. False if it is over."""
        return (yield from self._ask("LB.RENEW", lease, ttl_ms, parse=replies.flag))

    @method
    def release(self, owner: Name) -> Flow[int]:
        """End all leases of an owner. Returns how many they were."""
        return (yield from self._ask("LB.RELEASE", "OWNER", owner, parse=int))

    @method
    def leases(
        self, *, backend: Name | None = None, owner: Name | None = None, count: int | None = None
    ) -> Flow[OpenLeases]:
        """The open leases, the oldest first."""
        words = options(BACKEND=backend, OWNER=owner, COUNT=count)
        return (yield from self._ask("LB.LEASES", *words, parse=replies.leases))

    # Limits and health

    @method
    def limit(self, backend: Name | None = None) -> Flow[Limits | None]:
        """The limits of a backend, or of the pool as a whole; None if there is no such backend."""
        return (yield from self._ask("LB.LIMIT", *options(BACKEND=backend), parse=replies.limits))

    @method
    def set_limit(
        self,
        backend: Name | None = None,
        *,
        max: int | None = None,
        rate: tuple[int, int] | None = None,
        burst: int | None = None,
        tier: int | None = None,
        balance_percent: int | None = None,
    ) -> Flow[None]:
        """Limit a backend, or the pool as a whole: `max` leases at once, `rate` picks in milliseconds.

        `rate=(600, 60_000)` is 600 picks a minute. `balance_percent` bounds what `Hash` gives a backend, as a
        percentage of its share of the leases. 0 removes a limit.
        """
        words = options(BACKEND=backend, MAX=max, RATE=rate, BURST=burst, TIER=tier, BALANCE=balance_percent)
        if len(words) <= 2 * (backend is not None):
            raise ValueError("set_limit() needs a limit; limit() reads them")
        yield from self._ask("LB.LIMIT", *words, parse=replies.nothing)

    @method
    def health(self) -> Flow[HealthSettings]:
        """The settings of ejection, slow start and adaptation."""
        return (yield from self._ask("LB.HEALTH", parse=replies.health))

    @method
    def set_health(
        self,
        *,
        fails: int | None = None,
        failrate_percent: int | None = None,
        min: int | None = None,
        window_ms: int | None = None,
        eject_ms: int | None = None,
        maxeject_percent: int | None = None,
        slowstart_ms: int | None = None,
        adapt_ms: int | None = None,
    ) -> Flow[None]:
        """Let the pool follow how its backends do. 0 turns a setting off."""
        words = options(FAILS=fails, FAILRATE=failrate_percent, MIN=min, WINDOW=window_ms, EJECT=eject_ms)
        words += options(MAXEJECT=maxeject_percent, SLOWSTART=slowstart_ms, ADAPT=adapt_ms)
        if not words:
            raise ValueError("set_health() needs a setting; health() reads them")
        yield from self._ask("LB.HEALTH", *words, parse=replies.nothing)

    @method
    def queue(self) -> Flow[QueueInfo]:
        """How clients wait, how many do at this server, and for how long."""
        return (yield from self._ask("LB.QUEUE", parse=replies.queue))

    @method
    def set_queue(self, *, max: int | None = None, order: Order | None = None) -> Flow[None]:
        """Let at most `max` clients wait (0 is any number), in the order in which they came, or by turns of tenants."""
        words = options(MAX=max, ORDER=order)
        if not words:
            raise ValueError("set_queue() needs a setting; queue() reads them")
        yield from self._ask("LB.QUEUE", *words, parse=replies.nothing)

    # Looking

    @method
    def when(self) -> Flow[When]:
        """Whether a backend can be picked; if not, why, and in how many milliseconds."""
        return (yield from self._ask("LB.WHEN", parse=replies.when))

    @method
    def info(self) -> Flow[PoolInfo | None]:
        """The pool as a whole; None if there is no pool."""
        return (yield from self._ask("LB.INFO", parse=replies.info))

    @method
    def stats(self) -> Flow[dict[str, BackendStats]]:
        """All backends."""
        return (yield from self._ask("LB.STATS", parse=replies.stats))

    @method
    def backend_stats(self, backend: Name) -> Flow[BackendStats | None]:
        """One backend; None if there is no such backend."""
        return (yield from self._ask("LB.STATS", backend, parse=replies.backend_stats))

    # What servers write themselves

    @method
    def tick(self, ms: int) -> Flow[None]:
        """Move the clock of the pool forward. Servers do this by themselves."""
        yield from self._ask("LB.TICK", ms, parse=replies.nothing)

    @method
    def seed(self, seed: int) -> Flow[None]:
        """Seed the generator of the pool. Servers do this by themselves."""
        yield from self._ask("LB.SEED", seed, parse=replies.nothing)

    @method
    def epoch(self, epoch: int) -> Flow[None]:
        """Begin a new epoch of lease ids. Servers do this by themselves."""
        yield from self._ask("LB.EPOCH", epoch, parse=replies.nothing)

    @method
    def rules(self, version: int) -> Flow[None]:
        """Give the pool the rules of a newer version. Servers do this by themselves."""
        yield from self._ask("LB.RULES", version, parse=replies.nothing)

    @method
    def load(self, payload: bytes, *, replace: bool = False) -> Flow[None]:
        """Put a whole pool at the key, as RESTORE does. AOF rewrites consist of it."""
        words = (payload, "REPLACE") if replace else (payload,)
        yield from self._ask("LB.LOAD", *words, parse=replies.nothing)


@dataclass(frozen=True)
class Place:
    """How long a pick may wait, and its place among those that wait: lower numbers come first, tenants take turns."""

    wait_ms: int = 0
    prio: int = 0
    tenant: Name | None = None

    def words(self) -> tuple[Word, ...]:
        """To the server a pick without BLOCK is one of number 0. So one of another number waits at least 1 ms."""
        if self.wait_ms < 0:
            raise ValueError(f"wait_ms is {self.wait_ms}; it is at least 0, and 0 does not wait")
        block = self.wait_ms or (1 if self.prio else None)
        return options(BLOCK=block, PRIO=self.prio or None, FOR=self.tenant if block else None)


def several(names: Iterable[Name]) -> tuple[Name, ...]:
    """The names. One alone is that name, not its letters."""
    return (names,) if isinstance(names, str | bytes) else tuple(names)


def flat(pairs: Mapping[Any, int]) -> Iterable[Word]:
    """Backend, weight, backend, weight …"""
    return [word for pair in pairs.items() for word in pair]


def options(**given: Word | tuple[Word, ...] | None) -> tuple[Word, ...]:
    """Keywords with their values, where there is one."""
    words: list[Word] = []
    for keyword, value in given.items():
        if value is not None:
            words += [keyword, *(value if isinstance(value, tuple) else (value,))]
    return tuple(words)


def pick_words(
    algorithm: str | Hash | None,
    *,
    count: int | None = None,
    distinct: bool = False,
    exclude: Iterable[Name] = (),
    sticky: Sticky | None = None,
    ttl_ms: int | None = None,
    owner: Name | None = None,
    costs: Amounts = NOTHING,
    place: Place = Place(),
) -> tuple[Word, ...]:
    """The words behind the key in LB.PICK and LB.PEEK."""
    names = several(exclude)
    words: tuple[Word, ...] = ()
    if algorithm is not None:
        words = algorithm.words if isinstance(algorithm, Hash) else (algorithm,)
    words += options(COUNT=count) + (("DISTINCT",) if distinct else ())
    words += options(EXCLUDE=(len(names), *names) if names else None)
    if sticky is not None:
        words += ("STICKY", sticky.session, sticky.ms) + (("STRICT",) if sticky.strict else ())
    return words + options(LEASE=ttl_ms, OWNER=owner, COSTS=amounts(costs)) + place.words()


def amounts(costs: Amounts | None) -> tuple[Word, ...] | None:
    """The words behind COSTS."""
    return (len(costs), *flat(costs)) if costs else None


def report_words(
    outcome: Outcome | None, latency_us: int | None, load: float | None, cool_ms: int | None
) -> tuple[Word, ...]:
    """The words behind the lease in LB.DONE, and behind the backend in LB.REPORT."""
    words: tuple[Word, ...] = () if outcome is None else (outcome,)
    decimal = None if load is None else f"{load:.6f}"
    return words + options(LATENCY=latency_us, LOAD=decimal, COOL=cool_ms)
