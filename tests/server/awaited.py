"""The pools of redis_lb for sync and for asyncio, alike: so each test of the client is written once.

`Flavour("asyncio")` makes pools whose methods are those of redis_lb.asyncio, run to their end by a loop in a
thread of its own; `Flavour("sync")` makes those of redis_lb as they are.
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff

import redis_lb
import redis_lb.asyncio

FLAVOURS = ("sync", "asyncio")


class Flavour:
    """How to make clients and pools, and how to end them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._clients: list[Any] = []
        self._loop = None
        if name == "asyncio":
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def client(self, **options: Any) -> Any:
        """A client of redis-py."""
        kind = redis.asyncio.Redis if self._loop else redis.Redis
        return self._keep(kind(**{"host": "127.0.0.1"} | options))

    def cluster(self, **options: Any) -> Any:
        """A client of a cluster."""
        kind = redis.asyncio.RedisCluster if self._loop else redis.RedisCluster
        return self._keep(kind(**options))

    def master(self, sentinels: list[tuple[str, int]], service: str) -> Any:
        """A client of the primary that the sentinels name."""
        kind = redis.asyncio.sentinel.Sentinel if self._loop else redis.sentinel.Sentinel
        options = {"socket_timeout": 5, "socket_connect_timeout": 5}
        return self._keep(kind(sentinels, sentinel_kwargs=options, **options).master_for(service))

    def pool(self, client: Any, key: str, **options: int) -> Any:
        """A Pool. A machine that is busy for a moment shall not look like a server that is away."""
        options = {"timeout_ms": 30_000} | options
        return self.alike((redis_lb.asyncio if self._loop else redis_lb).Pool(client, key, **options))

    def sharded(self, clients: list[Any], name: str, k: int, **options: int) -> Any:
        """A ShardedPool."""
        options = {"timeout_ms": 30_000} | options
        return self.alike(
            (redis_lb.asyncio if self._loop else redis_lb).ShardedPool(clients, name, k, **options)
        )

    def retry(self, times: int) -> Any:
        """What makes a client of redis-py try again."""
        kind = redis.asyncio.retry.Retry if self._loop else redis.retry.Retry
        return kind(NoBackoff(), times)

    def alike(self, value: Any) -> Any:
        """The value, or what behaves as that of the other flavour does."""
        of = redis_lb.asyncio
        awaited = (of.Pool, of.ShardedPool, of.Lease, of.Attempt)
        if isinstance(value, awaited):
            return Awaited(self, value)
        if isinstance(value, tuple) and any(isinstance(part, awaited) for part in value):
            return tuple(map(self.alike, value))
        if inspect.iscoroutine(value):
            return self.result(value)
        if isinstance(value, Iterator):
            return map(self.alike, value)
        return value

    def result(self, coroutine: Any) -> Any:
        """Run it to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(100)

    def on_loop(self, function: Callable[[], Any]) -> Any:
        """Call that where a loop runs, if there is one."""

        async def call() -> Any:
            return function()

        return self.result(call()) if self._loop else function()

    def _keep(self, client: Any) -> Any:
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Disconnect, and end the loop."""
        for client in self._clients:
            self.alike(getattr(client, "aclose", client.close)())  # redis-py 5.0.0 has close() alone
        if self._loop:
            self.result(cancelled_all())
            self._loop.call_soon_threadsafe(self._loop.stop)


async def cancelled_all() -> None:
    """No task of this loop is left but this one."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Awaited:
    """A pool or a lease of asyncio, used as one that is not."""

    def __init__(self, flavour: Flavour, of: Any) -> None:
        vars(self).update(flavour=flavour, of=of)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.of, name)
        if not callable(value):
            return self.flavour.alike(value)

        @functools.wraps(value)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.flavour.alike(value(*args, **kwargs))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.of, name, value)

    def __enter__(self) -> "Awaited":
        self.flavour.result(self.of.__aenter__())
        return self

    def __exit__(self, *error: Any) -> Any:
        return self.flavour.result(self.of.__aexit__(*error))
