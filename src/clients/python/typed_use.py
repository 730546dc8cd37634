"""The types that users see. mypy checks this file; nobody runs it."""

from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from typing_extensions import assert_type

import redis_lb
import redis_lb.asyncio
from redis_lb import Attempt, BackendStats, Granted, Limits, Pool, ShardedPool, Sticky, When


def sync(client: redis.Redis) -> None:
    pool = redis_lb.Pool(client, "web", timeout_ms=100, prefetch=10)
    assert_type(pool.pick("lc", exclude=["a"], wait_ms=10), str | None)
    assert_type(pool.pick(sticky=Sticky("alice", 60_000, strict=True)), str | None)
    assert_type(pool.forget("alice"), bool)
    assert_type(pool.picks(3), list[str])
    assert_type(pool.add({"a": 5}), int)
    assert_type(pool.add({b"a": 5}), int)
    assert_type(pool.stats(), dict[str, BackendStats])
    assert_type(pool.limit("a"), Limits | None)
    assert_type(pool.when(), When)
    assert_type(pool.take_leases(2, 1_000), list[Granted])
    assert_type(pool.attempts(3), Iterator[Attempt])
    with pool.lease(failures=(OSError,)) as lease:
        assert_type(lease.backend, str)
        assert_type(lease.id, str | None)
    sharded = redis_lb.ShardedPool([client], "web", 4)
    assert_type(sharded, ShardedPool)
    assert_type(sharded.pick(), str | None)
    assert_type(sharded.forget(b"alice"), bool)
    assert_type(sharded.shards, tuple[Pool, ...])
    assert_type(redis_lb.path(), Path)
    pool.pick("fastest")  # type: ignore[arg-type]
    pool.set_state("a", "off")  # type: ignore[arg-type]


def returns(pool: Pool) -> str:
    """A lease lets the error of its block through, so nothing has to follow it."""
    with pool.lease() as lease:
        return lease.backend


async def awaited(client: redis.asyncio.Redis) -> None:
    pool = redis_lb.asyncio.Pool(client, "web")
    picking: Coroutine[Any, Any, str | None] = pool.pick()
    assert_type(await picking, str | None)
    assert_type(await pool.pick(), str | None)
    async with pool.lease() as lease:
        assert_type(lease.backend, str)
    for attempt in pool.attempts(3):
        assert_type(attempt, redis_lb.asyncio.Attempt)
    sharded = redis_lb.asyncio.ShardedPool([client], "web", 4)
    assert_type(await sharded.pick(), str | None)
