"""What a command costs in instructions, counted by valgrind's callgrind: on a busy machine as on an idle one.

All is counted in one server. callgrind writes out its counters whenever the server runs ECHO; a cost is what
2 n commands took less what n took, so that what happens once is not in it. Three things would make it depend
on the clock after all, and are kept out:
- serverCron and the timers of modules run by the clock, so a slow valgrind sees more of them, and of the
  LB.TICKs that go into the stream before a command. What they took, with all that they called, is taken off
  by the call graph. (A low `hz` alone leaves 1 % of noise, this 0.1.)
- Commands that come in pieces cost further rounds of the event loop. A batch goes out in one piece, and the
  next one when all replies are here.
- jemalloc's background thread, and the rehashing of tables in spare time.
What is left is luck: every server draws a seed for its hash tables, so in some a command stands behind
another one in the table of commands, which costs up to 4 %, on Redis 7.0 INCR in every fourth. Take the least
of several servers.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from server import Server
from servers import environment
from wire import Refused, Wire, pack, words

PIPELINE = 64
VALGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=counts", "--dump-before=echoCommand"]
VALGRIND += ["--compress-strings=no", "--compress-pos=no"]
OPTIONS = {
    "hz": 1,
    "dynamic_hz": "no",
    "activerehashing": "no",
    "jemalloc_bg_thread": "no",
    "slowlog_log_slower_than": 60_000_000,  # Compared as ever; nothing is that slow.
}


def missing() -> str | None:
    """Why nothing can be counted here, or None."""
    return None if shutil.which("valgrind") else "there is no valgrind here (Debian's package valgrind)"


class Callgrind(Server):
    """A server whose instructions are counted."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **OPTIONS | options)
        self._counts = 0

    def _launch(self, port: int) -> None:
        program = [str(self.binary.path), "redis.conf", "--port", str(port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *VALGRIND, *program],
                cwd=self.folder,
                env=environment(self.binary.path),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def cost(self, commands: Sequence[str], n: int) -> float:
        """The instructions of one of these commands, which are sent in turn, n times in all or a few more."""
        batch = list(commands) * max(1, min(n, PIPELINE) // len(commands))
        packed = b"".join(pack(words(command)) for command in batch)
        rounds = -(-n // len(batch))
        with Wire(self.port) as wire:

            def run(rounds: int) -> None:
                for _ in range(rounds):
                    wire.send(packed)
                    for command in batch:
                        if isinstance(reply := wire.read(), Refused):
                            raise RuntimeError(f"{command}: {reply}")

            run(1)
            once, twice = (self._instructions(wire, lambda k=k: run(k)) for k in (rounds, 2 * rounds))
        return (twice - once) / (rounds * len(batch))

    def each(self, run: Callable[[int], None], n: int) -> float:
        """The instructions of one of what `run` does as often as it is told, asked for n of them."""
        with Wire(self.port) as wire:
            run(n)
            once, twice = (self._instructions(wire, lambda k=k: run(k)) for k in (n, 2 * n))
        return (twice - once) / n

    def calls(self, function: str, wire: Wire, command: str, n: int) -> int:
        """How often functions whose names match are called, by anybody, while such a command runs n times."""

        def work() -> None:
            wire.send(pack(words(command)) * n)
            for _ in range(n):
                assert not isinstance(wire.read(), Refused)

        self._instructions(wire, work)
        profile = (self.folder / f"counts.{self._counts}").read_text()
        return sum(int(calls) for calls in re.findall(rf"^cfn=(?:{function})\ncalls=(\d+)", profile, re.M))

    def _instructions(self, wire: Wire, work: Callable[[], None]) -> int:
        """How many instructions the server ran for `work`."""
        wire.ask("ECHO begin")
        work()
        wire.ask("ECHO end")
        self._counts += 2
        return without_timers((self.folder / f"counts.{self._counts}").read_text())


def without_timers(profile: str) -> int:
    """The instructions of a profile, less those of what runs by the clock and all that it called."""
    total = int(re.search(r"^totals: (\d+)", profile, re.M)[1])
    timers = "serverCron|moduleTimerHandler|[RV]M_Replicate"
    timed = re.findall(rf"^cfn=(?:{timers})\n(?:c\w+=.*\n)*\S+ (\d+)", profile, re.M)
    return total - sum(map(int, timed))
