"""What sync and asyncio share: all logic is written once, as generators that yield steps.

A flow yields a step wherever something must be waited for, and is sent what came of it, or is thrown the
error. `Sync` calls the steps, `Async` awaits what they return. `@method` makes a method of a flow: it returns T
where the object is `Sync`, and a coroutine of T where it is `Async`.
"""

from collections.abc import Callable, Coroutine, Generator
from functools import partial, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")
Step: TypeAlias = Callable[[], Any]
Flow: TypeAlias = Generator[Step, Any, T]


class Sync:
    """Runs flows whose steps return what is waited for."""

    def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    result = step()
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


class Async:
    """Runs flows whose steps return awaitables."""

    async def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    result = await step()
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


class method(Generic[P, T]):
    """A method that is written as a flow. Other flows call the flow itself: `Class.name.flow(self, …)`."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self.flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, runner: None, owner: Any) -> "method[P, T]": ...
    @overload
    def __get__(self, runner: Sync, owner: Any) -> Callable[P, T]: ...
    @overload
    def __get__(self, runner: Async, owner: Any) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, runner: Any, owner: Any) -> Any:
        return self if runner is None else update_wrapper(partial(self._call, runner), self.flow)

    def _call(self, runner: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        return runner._run(self.flow(runner, *args, **kwargs))
