"""The same for asyncio: `Pool` and `ShardedPool` for the clients of redis.asyncio, with awaitable methods."""

from .flow import Async
from .lease import AsyncAttempt as Attempt
from .lease import AsyncLease as Lease
from .link import AsyncLink
from .pool import PoolFlows
from .shards import ShardFlows

__all__ = ["Attempt", "Lease", "Pool", "ShardedPool"]


class Pool(Async, PoolFlows[Lease, Attempt]):
    __doc__ = PoolFlows.__doc__
    _link: AsyncLink
    _link_to = AsyncLink
    _lease = Lease
    _attempt = Attempt

    async def aclose(self) -> None:
        """Close the connections that no command uses."""
        await self._link.aclose()


class ShardedPool(Async, ShardFlows[Pool, Lease, Attempt]):
    __doc__ = ShardFlows.__doc__
    _shard = Pool
    _lease = Lease
    _attempt = Attempt
