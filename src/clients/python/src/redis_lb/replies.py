"""The replies of the module as typed values, the same in RESP2 and RESP3.

Names come as bytes, whatever `decode_responses` says, and become str. A name that is not UTF-8 becomes a str
with surrogates, as file names do in `os`; given back to a command it is the same bytes again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast, get_args, get_type_hints

# The type of pools, for SCAN.
TYPE = "lbpool---"
R = TypeVar("R")
Word: TypeAlias = str | bytes | int | float


class Granted(NamedTuple):
    """A backend, and the id of the lease on it."""

    backend: str
    lease: str


class When(NamedTuple):
    """Why nothing can be picked, or `available`; and the time until something can, or None."""

    reason: str
    ms: int | None


@dataclass(frozen=True)
class CostLimit:
    """How much of a cost comes in `rate_ms` milliseconds, and how much of it at once."""

    rate: int
    rate_ms: int
    burst: int


@dataclass(frozen=True)
class CostStats(CostLimit):
    """And how much is left. Below zero it is a debt."""

    left: int


def _no_limits() -> Mapping[str, CostLimit]:
    return {}


def _no_costs() -> Mapping[str, CostStats]:
    return {}


@dataclass(frozen=True)
class BackendStats:
    """LB.STATS: one backend. In limits 0 is no limit."""

    weight: int
    state: str
    picks: int
    running_weight: float = 0.0
    health: str = "ok"
    back_in_ms: int | None = None
    leases: int = 0
    done: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    ejections: int = 0
    expired: int = 0
    max: int = 0
    rate: int = 0
    rate_ms: int = 0
    burst: int = 0
    tokens: int = 0
    tier: int = 0
    latency_us: int = 0
    latency_sum_us: int = 0
    latencies: int = 0
    sessions: int = 0
    load: float = 0.0
    costs: Mapping[str, CostStats] = field(default_factory=_no_costs)


@dataclass(frozen=True)
class PoolInfo:
    """LB.INFO: the pool as a whole. In limits 0 is no limit."""

    policy: str
    backends: int
    available: int
    total_weight: int
    picks: int
    leases: int = 0
    max: int = 0
    rate: int = 0
    rate_ms: int = 0
    burst: int = 0
    tokens: int = 0
    waiting: int = 0
    oldest_wait_ms: int = 0
    refused: int = 0
    ejected: int = 0
    cooling: int = 0
    held: int = 0
    balance: int = 0
    sessions: int = 0
    clock_ms: int = 0
    rules_version: int = 1
    bytes: int = 0
    costs: Mapping[str, CostStats] = field(default_factory=_no_costs)


@dataclass(frozen=True)
class Limits:
    """LB.LIMIT: the limits that are set; None is not set."""

    max: int | None = None
    rate: int | None = None
    rate_ms: int | None = None
    burst: int | None = None
    tier: int | None = None
    balance: int | None = None
    costs: Mapping[str, CostLimit] = field(default_factory=_no_limits)


@dataclass(frozen=True)
class HealthSettings:
    """LB.HEALTH: 0 turns a setting off."""

    fails: int = 0
    failrate_percent: int = 0
    min: int = 0
    window_ms: int = 0
    eject_ms: int = 0
    maxeject_percent: int = 0
    slowstart_ms: int = 0
    adapt_ms: int = 0


@dataclass(frozen=True)
class QueueInfo:
    """LB.QUEUE: how clients wait, and how many do at the server that answers. `max` 0 is any number."""

    max: int
    order: str
    waiting: int = 0
    oldest_wait_ms: int = 0


@dataclass(frozen=True)
class OpenLease:
    """LB.LEASES: one lease."""

    lease: str
    backend: str | None
    owner: str | None
    age_ms: int
    remaining_ms: int


def encode(word: Word) -> Word:
    """A word to send: text as UTF-8, with the bytes that were not UTF-8 when they came."""
    return word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word


def text(reply: bytes) -> str:
    return reply.decode("utf-8", "surrogateescape")


def text_or_none(reply: bytes | None) -> str | None:
    return None if reply is None else text(reply)


def number_or_none(reply: int | None) -> int | None:
    return reply


def texts(reply: Iterable[bytes]) -> list[str]:
    return [text(name) for name in reply]


def flag(reply: int) -> bool:
    return reply == 1


def nothing(reply: Any) -> None:
    """Of OK, where an error would have been raised."""


def granted(reply: list[bytes] | None) -> Granted | None:
    return None if reply is None else Granted(*texts(reply))


def all_granted(reply: list[list[bytes]]) -> list[Granted]:
    return [Granted(*texts(pair)) for pair in reply]


def when(reply: list[Any]) -> When:
    reason, ms = reply
    return When(text(reason), None if ms < 0 else ms)


def leases(reply: list[Any]) -> list[OpenLease]:
    return [_record(OpenLease, lease) for lease in reply]


def limits(reply: Any) -> Limits | None:
    return None if reply is None else _record(Limits, reply)


def limits_of_each(reply: Any) -> Limits:
    return _record(Limits, reply)


def health(reply: Any) -> HealthSettings:
    return _record(HealthSettings, reply)


def queue(reply: Any) -> QueueInfo:
    return _record(QueueInfo, reply)


def info(reply: Any) -> PoolInfo | None:
    return None if reply is None else _record(PoolInfo, reply)


def backend_stats(reply: Any) -> BackendStats | None:
    return None if reply is None else _record(BackendStats, reply)


def stats(reply: Any) -> dict[str, BackendStats]:
    return {text(name): _record(BackendStats, of) for name, of in pairs(reply)}


def pairs(reply: Any) -> Iterator[tuple[bytes, Any]]:
    """Of a map, which is a flat list in RESP2, and before Redis 7.0."""
    return iter(reply.items()) if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)


def _record(record: type[R], reply: Any) -> R:
    """The fields that the record has. A newer module may answer more of them, and an older one fewer."""
    known = _by_field(cast(Any, record))
    found = (known[field] + (value,) for field, value in pairs(reply) if field in known)
    return record(**{name: _value(hint, value) for name, hint, value in found})


@cache
def _by_field(record: Any) -> dict[bytes, tuple[str, Any]]:
    """The name and the type of what each field of the reply becomes. Our names have units."""
    hints = get_type_hints(record)
    names = {of.name.replace("_", "-"): of.name for of in fields(record)}
    for shown, name in list(names.items()):
        names.setdefault(shown.removesuffix("-ms").removesuffix("-percent"), name)
    return {shown.encode(): (name, hints[name]) for shown, name in names.items()}


def _value(hint: Any, value: Any) -> Any:
    if hint is float:
        return float(value)
    if hint in (Mapping[str, CostLimit], Mapping[str, CostStats]):
        record = get_args(hint)[1]
        return {text(name): _record(record, of) for name, of in pairs(value)}
    if hint == int | None:
        return None if value is None or value < 0 else value
    return text(value) if isinstance(value, bytes) else value
