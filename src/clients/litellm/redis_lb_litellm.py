"""LiteLLM's Router asks pools of redis-lb which deployment gets each request. README.md tells how."""

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

import redis_lb
import redis_lb.asyncio

# The fault of the deployment. RateLimitError says that it is busy; other errors are the fault of the request.
FAILURES = (litellm.APIConnectionError, litellm.AuthenticationError, litellm.InternalServerError)
FAILURES += (litellm.PermissionDeniedError, litellm.ServiceUnavailableError, litellm.Timeout)
LEFT = GeneratorExit, GeneratorExit(), None


class Attempt:
    """A lease in the metadata of a request. It ends with them if nobody reads the answer to its end."""

    def __init__(self, lease: Any, leave: Callable[[Any], Any]) -> None:
        self.lease, self.watch = lease, weakref.finalize(self, leave, lease)
        self.watch.atexit = False

    def __deepcopy__(self, _: Any) -> "Attempt":
        return self


class PoolRouting(CustomLogger):
    """Routes `router` by the pools `llm:MODEL`, over a client of redis-py and one of redis.asyncio.

    `terms` are those of Pool.lease(): `algorithm`, `wait_ms`, `ttl_ms`, `owner`, `failures`.
    """

    def __init__(
        self, router: litellm.Router, client: Any, async_client: Any, prefix: str = "llm:", **terms: Any
    ) -> None:
        super().__init__()
        self._router, self._prefix, self._terms = router, prefix, {"failures": FAILURES} | terms
        self._clients = {redis_lb.Pool: client, redis_lb.asyncio.Pool: async_client}
        self._pools: dict[Any, Any] = {}
        router.set_custom_routing_strategy(self)  # type: ignore[arg-type]
        litellm.logging_callback_manager.add_litellm_callback(self)

    def get_available_deployment(self, model: str, *_: Any, request_kwargs: dict, **__: Any) -> Any:
        with self._lease(redis_lb.Pool, model, request_kwargs) as (lease, tried):
            lease.__enter__()
        return self._given(lease, tried, leave_in_thread)

    async def async_get_available_deployment(self, model: str, *_: Any, request_kwargs: dict, **__: Any) -> Any:
        with self._lease(redis_lb.asyncio.Pool, model, request_kwargs) as (lease, tried):
            await lease.__aenter__()
        return self._given(lease, tried, leave_in_loop(asyncio.get_running_loop()))

    @contextmanager
    def _lease(self, kind: Any, model: str, request_kwargs: dict) -> Iterator[Any]:
        metadata = request_kwargs.setdefault("metadata", {})
        if not metadata.get("attempted_retries"):  # a new request, perhaps with the metadata of an earlier one
            metadata["redis_lb"] = {}
        tried = metadata["redis_lb"]
        if (kind, model) not in self._pools:
            self._pools[kind, model] = kind(self._clients[kind], self._prefix + model)
        try:
            yield self._pools[kind, model].lease(exclude=tried, **self._terms), tried
        except redis_lb.NoBackendError as nobody:
            raise litellm.RateLimitError(str(nobody), "redis-lb", model) from nobody

    def _given(self, lease: Any, tried: dict[str, Attempt | None], leave: Callable[[Any], Any]) -> Any:
        tried[lease.backend] = Attempt(lease, leave)
        return {of["model_info"]["id"]: of for of in self._router.model_list}[lease.backend]

    def log_success_event(self, kwargs: dict, response_obj: Any, start_time: Any, end_time: Any) -> None:
        for lease, error in ended(kwargs, start_time):
            lease.__exit__(type(error), error, None)

    async def async_log_success_event(self, kwargs: dict, response_obj: Any, start_time: Any, end_time: Any) -> None:
        for lease, error in ended(kwargs, start_time):
            await lease.__aexit__(type(error), error, None)

    log_failure_event, async_log_failure_event = log_success_event, async_log_success_event


def ended(kwargs: dict, start_time: Any) -> Iterator[Any]:
    """The lease of the attempt that is over, if it has not ended yet, and the exception."""
    params, error = kwargs["litellm_params"], kwargs.get("exception")
    tried = (params.get("metadata") or {}).get("redis_lb") or {}
    name = (params.get("model_info") or {}).get("id")
    attempt, tried[name] = tried.get(name), None
    if attempt and attempt.watch.detach():
        header = (getattr(error, "litellm_response_headers", None) or {}).get("retry-after")
        if header:
            attempt.lease.retry_after(header)
        if first := kwargs.get("completion_start_time"):  # of a stream the first chunk
            attempt.lease.latency_us = int((first - start_time).total_seconds() * 1_000_000)
        yield attempt.lease, error


def leave_in_thread(lease: Any) -> None:
    threading.Thread(target=lease.__exit__, args=LEFT).start()


def leave_in_loop(loop: asyncio.AbstractEventLoop) -> Callable[[Any], Any]:
    return lambda lease: loop.is_closed() or asyncio.run_coroutine_threadsafe(lease.__aexit__(*LEFT), loop)
