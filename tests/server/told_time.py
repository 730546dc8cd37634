"""Runs a program of asyncio whose time is told to it: python told_time.py PROGRAM [ARGUMENT …]

Each line of input is the time in milliseconds. The same line is printed when all that was due by then has
been done, and Redis has answered all commands but those that wait.
"""

import asyncio
import runpy
import sys
from typing import Any

from redis_lb import link


class ToldTime(asyncio.SelectorEventLoop):
    """Time stands still until it is told."""

    millis = 0
    unanswered = 0

    def __init__(self) -> None:
        super().__init__()
        self.add_reader(sys.stdin, self._hear)

    def time(self) -> float:
        """In seconds, as the loop counts."""
        return self.millis / 1000

    def _hear(self) -> None:
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self.millis = int(line)
        self.call_soon(self._tell)

    def _tell(self) -> None:
        if self._ready or self.unanswered:  # what is due now has become ready before this was called
            self.call_soon(self._tell)
        else:
            print(self.millis, flush=True)


class Policy(asyncio.DefaultEventLoopPolicy):
    """For asyncio.run()."""

    def new_event_loop(self) -> ToldTime:
        """The loop of the program."""
        return ToldTime()


exchange = link.AsyncLink._exchange


async def counted(self: link.AsyncLink, pool: Any, command: link.Command, *more: Any) -> Any:
    """A command, and its answer."""
    loop: Any = asyncio.get_running_loop()
    loop.unanswered += not command.wait_ms
    try:
        return await exchange(self, pool, command, *more)
    finally:
        loop.unanswered -= not command.wait_ms


link.AsyncLink._exchange = counted  # type: ignore[method-assign]
asyncio.set_event_loop_policy(Policy())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
