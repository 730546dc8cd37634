"""Connections of our own to the server that has the key: with a deadline for each answer, and without retries.

A retry of a pick takes a second lease, and a socket timeout below BLOCK gives up a pick that waits. So these
connections go where those of the given client go, but they have the timeout of the pool for each command, and the time
of a wait on top of it. Each command has a connection for itself.

In a cluster the given client tells which node has the key. When it looks that up, its own timeouts hold.
"""

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, RedisClusterException, ResponseError

from .flow import Async, Flow
from .replies import Word, encode

log = logging.getLogger("redis_lb")
# Redis is not there, or is not the one to ask now.
AWAY = (redis.ConnectionError, redis.TimeoutError, ClusterDownError, RedisClusterException, ReadOnlyError)
# It became a replica while we waited; it is a primary that its replicas may have left for another one.
NO_WRITES = ("UNBLOCKED", "NOREPLICAS")
REDIRECTIONS = 5
at_once: Any = NoBackoff  # redis-py 5 does not declare its types
# Before 5.3 a pool of connections wanted to know what a connection is for; since then it warns.
PURPOSE: tuple[str, ...] = () if redis.VERSION >= (5, 3) else ("LB",)
# What such a pool has put among the options of its connections, for itself.
OF_ITS_POOL = {"connection_pool", "event_dispatcher", "himport_registry", "maint_notifications_pool_handler"}
OF_ITS_POOL |= {"orig_host_address", "orig_socket_timeout", "orig_socket_connect_timeout", "max_connections"}


class QueueFullError(ResponseError):
    """No more clients can wait at the pool: this one could not begin to, or has made room for one of a lower number."""


@dataclass(frozen=True)
class Command:
    """The words of a command, and the time that the server may let it wait."""

    words: tuple[Word, ...]
    wait_ms: int = 0
    # What takes it back, made of the reply: for a caller that is cancelled while the command is on its way.
    undo: "Callable[[Any], Command | None] | None" = None

    def check_time(self, deadline: float) -> None:
        """Raises redis.TimeoutError if nobody waits for its lease any longer: then it must not be sent."""
        if self.undo is not None and time.monotonic() >= deadline:
            raise redis.TimeoutError(f"{self.words[0]!s}: its time was over before it could be sent")


# By client; then by its node in a cluster, and by the timeout.
_pools: "weakref.WeakKeyDictionary[Any, dict[tuple[str, int], Any]]" = weakref.WeakKeyDictionary()


class Link:
    """The way to the server that has the key."""

    _Pool: Any
    _SentinelPool: Any
    _Retry: Any
    _read_timeout_s: float | None

    def __init__(self, client: Any, key: str | bytes, timeout_ms: int) -> None:
        self._client = client
        self._key = encode(key)
        self._timeout_ms = timeout_ms
        self._timeout_s = timeout_ms / 1000
        self._is_cluster = hasattr(client, "nodes_manager")
        self._is_unsure = False  # which node has the key
        # All pools of backends on one client share its connections.
        self._pools = _pools.setdefault(client, {})

    def ask(self, command: Command) -> Flow[Any]:
        """The reply. Raises redis.TimeoutError if there is none in time."""
        deadline = time.monotonic() + self._timeout_s + command.wait_ms / 1000
        node, is_asking = None, False
        try:
            for _ in range(REDIRECTIONS):
                pool = yield from self._connections(node)
                try:
                    return (yield partial(self._exchange, pool, command, is_asking, deadline))
                # A node that sends us to another one has done nothing.
                except MovedError:
                    yield partial(self._client.execute_command, "LB.CARD", self._key)
                    node, is_asking = None, False
                except AskError as elsewhere:
                    node, is_asking = self._client.get_node(elsewhere.host, elsewhere.port), True
                    self._is_unsure = node is None
            raise redis.ConnectionError(f"more than {REDIRECTIONS} redirections")
        except AWAY:
            self._is_unsure = True
            raise
        except ResponseError as error:
            if str(error).startswith(NO_WRITES):
                raise ReadOnlyError(str(error)) from None
            if str(error).startswith("QUEUEFULL"):
                raise QueueFullError(str(error)) from None
            raise

    def _connections(self, node: Any) -> Flow[Any]:
        if not self._is_cluster:
            return self._pool_like("", self._client.connection_pool)
        if hasattr(self._client, "initialize"):
            yield self._client.initialize
        if self._is_unsure:
            self._is_unsure = False
            yield self._client.nodes_manager.initialize
        node = node or self._client.get_node_from_key(self._key)
        return self._pool_like(node.name, self._source(node))

    def _source(self, node: Any) -> Any:
        raise NotImplementedError

    def _exchange(self, pool: Any, command: Command, is_asking: bool, deadline: float) -> Any:
        raise NotImplementedError

    def _pool_like(self, name: str, source: Any) -> Any:
        """A pool of connections to the same place, with timeouts of our own."""
        place = (name, self._timeout_ms)
        if place in self._pools:
            return self._pools[place]
        options = {name: value for name, value in source.connection_kwargs.items() if name not in OF_ITS_POOL}
        options |= {"retry": self._Retry(at_once(), 0), "retry_on_error": [], "health_check_interval": 0}
        options |= {"socket_timeout": self._read_timeout_s}
        if "path" not in options:
            options["socket_connect_timeout"] = self._timeout_s
        if "maint_notifications_config" in options:
            # A notification would look like the beginning of the answer.
            options["maint_notifications_config"] = type(options["maint_notifications_config"])(enabled=False)
        options |= {"connection_class": source.connection_class, "max_connections": 2**31}
        if hasattr(source, "sentinel_manager"):
            options |= {"is_master": source.is_master, "check_connection": source.check_connection}
            pool = self._SentinelPool(source.service_name, source.sentinel_manager, **options)
        else:
            pool = self._Pool(**options)
        return self._pools.setdefault(place, pool)


def leaves_it_in_order(error: BaseException) -> bool:
    """Whether a connection can be used after that error. A server that takes no writes is not asked again."""
    is_refused = isinstance(error, ReadOnlyError) or str(error).startswith(NO_WRITES)
    return isinstance(error, ResponseError) and not is_refused


class SyncLink(Link):
    """For redis.Redis, redis.RedisCluster and what Sentinel.master_for() returns."""

    _Pool = redis.ConnectionPool
    _SentinelPool = redis.sentinel.SentinelConnectionPool
    _Retry = redis.retry.Retry

    @property
    def _read_timeout_s(self) -> float | None:  # type: ignore[override]
        return self._timeout_s

    def _source(self, node: Any) -> Any:
        return self._client.get_redis_connection(node).connection_pool

    def _exchange(self, pool: Any, command: Command, is_asking: bool, deadline: float) -> Any:
        connection = pool.get_connection(*PURPOSE)
        try:
            if is_asking:
                connection.send_command("ASKING")
                connection.read_response()
            command.check_time(deadline)
            connection.send_command(*map(encode, command.words))
            if not connection.can_read(timeout=max(0.001, deadline - time.monotonic())):
                raise redis.TimeoutError(f"{command.words[0]!s}: no answer in time")
            return connection.read_response(disable_decoding=True)
        except BaseException as error:
            if not leaves_it_in_order(error):
                connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def close(self) -> None:
        """Close the connections that no command uses."""
        for pool in self._pools.values():
            pool.disconnect(inuse_connections=False)


Task: TypeAlias = "asyncio.Task[Any]"
_background: set[Task] = set()


def in_background(work: Coroutine[Any, Any, Any]) -> Task:
    """A task that goes on when its caller is cancelled."""
    task = asyncio.ensure_future(work)
    _background.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: Task) -> None:
    _background.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.debug("redis-lb: in the background", exc_info=task.exception())


@dataclass
class Use:
    """The connection of a command, once it has one; and whether no other command may have it."""

    connection: Any = None
    is_last: bool = False


class AsyncLink(Link, Async):
    """For the clients of redis.asyncio."""

    _Pool = redis.asyncio.ConnectionPool
    _SentinelPool = redis.asyncio.sentinel.SentinelConnectionPool
    _Retry = redis.asyncio.retry.Retry
    _read_timeout_s = None  # the deadline is over all

    def _source(self, node: Any) -> Any:
        return node

    async def _exchange(self, pool: Any, command: Command, is_asking: bool, deadline: float) -> Any:
        use = Use()
        task = in_background(self._on_connection(pool, command, is_asking, deadline, use))
        try:
            done, _ = await asyncio.wait({task}, timeout=max(0.001, deadline - time.monotonic()))
        except asyncio.CancelledError:
            if command.undo is None:
                task.cancel()
            else:
                in_background(self._take_back(command, task, use))
            raise
        if not done:
            task.cancel()
            raise redis.TimeoutError(f"{command.words[0]!s}: no answer in time")
        return task.result()

    async def _on_connection(self, pool: Any, command: Command, is_asking: bool, deadline: float, use: Use) -> Any:
        connection = use.connection = await pool.get_connection(*PURPOSE)
        try:
            if is_asking:
                await connection.send_command("ASKING")
                await connection.read_response()
            command.check_time(deadline)
            await connection.send_command(*map(encode, command.words))
            return await connection.read_response(disable_decoding=True)
        except BaseException as error:
            if not leaves_it_in_order(error):
                await connection.disconnect(nowait=True)
            raise
        finally:
            use.connection = None
            if use.is_last:
                await connection.disconnect(nowait=True)
            await pool.release(connection)

    async def _take_back(self, command: Command, task: Task, use: Use) -> None:
        """End what was granted to a caller that is gone.

        We say that we send nothing more, so the server drops a pick that waits. A reply that it sent before it noticed
        still reaches us, and what it grants is given back.
        """
        if command.wait_ms and use.connection is not None and not task.done():
            use.is_last = True
            writer = use.connection._writer
            if writer is not None and writer.can_write_eof():
                writer.write_eof()
            else:
                task.cancel()
        await asyncio.wait({task}, timeout=self._timeout_s)
        if not task.done() or task.cancelled() or task.exception() is not None:
            task.cancel()
            return
        undo = command.undo(task.result()) if command.undo else None
        if undo is not None:
            await self._run(self.ask(undo))

    async def aclose(self) -> None:
        """Close the connections that no command uses."""
        for pool in self._pools.values():
            await pool.disconnect(inuse_connections=False)
