"""The client for redis-lb, a module for Redis and Valkey that balances the load of a whole fleet.

`Pool(client, key)` for the clients of redis-py; `redis_lb.asyncio.Pool` for those of redis.asyncio.
"""

from pathlib import Path

from .commands import Hash, Sticky
from .lease import Attempt, Lease, NoBackendError
from .link import QueueFullError
from .pool import Pool
from .replies import (
    BackendStats,
    CostLimit,
    CostStats,
    Granted,
    HealthSettings,
    Limits,
    OpenLease,
    PoolInfo,
    QueueInfo,
    When,
)
from .shards import ShardedPool

__all__ = [
    "Attempt",
    "BackendStats",
    "CostLimit",
    "CostStats",
    "Granted",
    "Hash",
    "HealthSettings",
    "Lease",
    "Limits",
    "NoBackendError",
    "OpenLease",
    "Pool",
    "PoolInfo",
    "QueueFullError",
    "QueueInfo",
    "ShardedPool",
    "Sticky",
    "When",
    "path",
]


def path() -> Path:
    """The library of the module that came with this package, for `loadmodule` in redis.conf."""
    library = Path(__file__).with_name("libredis_lb.so")
    if not library.exists():
        raise FileNotFoundError(
            f"{library}: this installation of redis-lb has the client only; wheels for Linux carry the module"
        )
    return library
