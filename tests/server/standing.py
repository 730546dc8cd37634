"""Servers that a script starts and leaves running: scripts/NAME start | status | stop.

Each process has a folder below --folder, named by its port; that is how `status` and `stop` find it.
"""

import os
import shlex
import shutil
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from script import ROOT, Parser, module
from server import STOP_SECONDS, Server, eventually, is_free, waiting
from servers import Binary, installed

HOST = "127.0.0.1"
PIDFILE = "redis.pid"
LAST_PORT = 65535


class Script(ABC):
    """One of these scripts. A subclass says what is started, and how to look at it."""

    name: str  # the script's, and that of its folder in target/
    ports: int  # how many it takes, one after the other
    above: tuple[int, ...] = (0,)  # what else is taken beside each of them, as a distance

    folder: Path
    program: Path | None = None  # the server's, once it is started

    @abstractmethod
    def build(self, start: Callable[..., Server]) -> None:
        """Start all, by `start(**options)` as `new_server` of a test has it, and wait until it is up."""

    @abstractmethod
    def greeting(self, ports: list[int]) -> str:
        """How to talk to what runs there."""

    @abstractmethod
    def show(self, processes: dict[int, int | None]) -> list[str]:
        """Print how they are, from port to process; answer what is wrong beside those that do not run."""

    # What is there

    def homes(self) -> list[Path]:
        """The folders of what was started."""
        return sorted(path.parent for path in self.folder.glob("[0-9]*/redis.conf"))

    def taken(self, first: int) -> list[int]:
        """Which of the ports that are needed from `first` on are in use."""
        ports = range(first, first + self.ports)
        return [port + above for above in self.above for port in ports if not is_free(port + above)]

    def why_highest(self) -> str:
        """Why the first port cannot be higher."""
        beside = "".join(
            f", and the {self.ports} that are {above} above them" for above in self.above if above
        )
        return f": {self.ports} ports are needed{beside}"

    def line(self, verb: str) -> str:
        """The command line for what is in this folder."""
        usual = self.folder == ROOT / "target" / self.name
        return f"scripts/{self.name} {verb}" + ("" if usual else f" --folder {shlex.quote(str(self.folder))}")

    # What is done

    def start(self, program: str | None, first: int | None) -> None:
        """Start it so that it goes on when this process has ended."""
        if self.folder.exists() and any(self.folder.iterdir()):
            sys.exit(f"{self.folder} is not empty; what was started there ends by: {self.line('stop')}")
        if program and not shutil.which(program):
            sys.exit(f"there is no program {program}")
        binary = Binary.at(Path(shutil.which(program)).absolute()) if program else installed()
        self.program = binary.path
        first = first or next(port for port in range(7000, 10000, 10) if not self.taken(port))
        if taken := self.taken(first):
            sys.exit(f"these ports are needed, but taken: {', '.join(map(str, taken))}")
        library = module()
        made: list[Server] = []

        def start_one(module: Path | None = library, **options: object) -> Server:
            home = self.folder / str(first + len(made))
            home.mkdir(parents=True)
            server = Server(binary, module, folder=home, launcher=["setsid"], pidfile=PIDFILE, **options)
            server.port = int(home.name)
            made.append(server)
            return server.start()

        try:
            self.build(start_one)
        except BaseException:
            for server in made:
                server.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        print(self.greeting([server.port for server in made]))

    def status(self) -> None:
        """Show it; an error unless all is well."""
        homes = self.homes()
        if not homes:
            sys.exit(f"nothing was started in {self.folder}")
        processes = {int(home.name): process(home) for home in homes}
        wrong = self.show(processes)
        wrong += [f"{HOST}:{port} does not run" for port, process in processes.items() if not process]
        if lost := self.ports - len(homes):
            wrong.append(f"{lost} of {self.ports} folders are gone from {self.folder}")
        print(f"not all is well: {'; '.join(wrong)}" if wrong else "all is well")
        if wrong:
            sys.exit(1)

    def stop(self) -> None:
        """End it and remove its folder."""
        homes = self.homes()
        if not homes:
            sys.exit(f"nothing was started in {self.folder}")
        # Sentinels would act on nodes that end, and primaries wait for replicas: all of them at once.
        processes = [number for home in homes if (number := process(home))]
        for number in processes:
            os.kill(number, signal.SIGTERM)
            os.kill(number, signal.SIGCONT)  # one that stands still would not hear it
        for home in homes:
            end(home)
            shutil.rmtree(home)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def main(self) -> None:
        # What they mean is told by the script itself, without Python.
        parser = Parser(prog=f"scripts/{self.name}", add_help=False)
        parser.add_argument("verb", choices=["start", "status", "stop"])
        parser.add_argument("--folder", type=Path, default=ROOT / "target" / self.name)
        parser.add_argument("--server")
        parser.add_argument("--port", type=int)
        asked = parser.parse_args()
        if asked.verb != "start" and (asked.server or asked.port is not None):
            parser.error(f"--server and --port are for start, not for {asked.verb}")
        highest = LAST_PORT - max(self.above) - self.ports + 1
        if asked.port is not None and not 1 <= asked.port <= highest:
            parser.error(f"--port {asked.port} is not between 1 and {highest}{self.why_highest()}")
        self.folder = asked.folder.absolute()
        # An end that is asked for tidies up like any other.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(1))
        if asked.verb == "start":
            self.start(asked.server, asked.port)
        else:
            {"status": self.status, "stop": self.stop}[asked.verb]()


def process(home: Path) -> int | None:
    """The process of the server in that folder, if it runs."""
    try:
        number = int((home / PIDFILE).read_text())
        # The file may be left of a process that is no more, and its number another's.
        return number if Path(os.readlink(f"/proc/{number}/cwd")) == home.resolve() else None
    except (FileNotFoundError, PermissionError, ValueError):
        return None


def end(home: Path) -> None:
    """Wait for the end of the server in that folder, and kill it when that takes too long."""
    for _ in waiting(STOP_SECONDS):
        number = process(home)
        if number is None:
            return
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)
    eventually(lambda: process(home) is None)
