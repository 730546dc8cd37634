"""A gateway as a process of its own, which a test can kill: takes leases, holds each for a while, ends it.

    python gateway.py NAME PORT [PORT …]

It asks the first of these servers that takes its command. At a first line of input it takes no more, and
prints what it holds, `["lease", …]`; at a second one it ends all that, and prints how many the server knew.
"""

import json
import random
import select
import sys
import time

from wire import Refused, Wire

LEASE_MS = 5_000
HELD_SECONDS = 0.15


class Gateway:
    """What it holds, and where its leases are."""

    def __init__(self, name: str, ports: list[int]) -> None:
        self.name = name
        self.ports = ports
        self.wire: Wire | None = None
        self.held: list[tuple[float, bytes]] = []

    def ask(self, command: str) -> object:
        """The reply of whichever server takes the command; waits for one until it is killed."""
        while True:
            try:
                self.wire = self.wire or Wire(self.ports[0])
                reply = self.wire.ask(command)
                if not isinstance(reply, Refused):
                    return reply
            except (OSError, AssertionError):
                pass
            self.wire = None
            self.ports.append(self.ports.pop(0))
            time.sleep(0.05)

    def end(self, until: float) -> int:
        """Ends what was held long enough by then; answers how many the server knew."""
        due = [lease for end, lease in self.held if end <= until]
        self.held = [(end, lease) for end, lease in self.held if end > until]
        return sum(self.ask(f"LB.DONE pool {lease.decode()} OK LATENCY 1000") for lease in due)

    def run(self) -> None:
        """Until there is input."""
        while not select.select([sys.stdin], [], [], 0.01)[0]:
            given = self.ask(f"LB.PICK pool lc LEASE {LEASE_MS} OWNER {self.name} BLOCK 20")
            if given:
                held = random.expovariate(1 / HELD_SECONDS)
                self.held.append((time.monotonic() + held, given[1]))
            self.end(time.monotonic())


if __name__ == "__main__":
    gateway = Gateway(sys.argv[1], [int(port) for port in sys.argv[2:]])
    gateway.run()
    sys.stdin.readline()
    print(json.dumps([lease.decode() for _, lease in gateway.held]), flush=True)
    sys.stdin.readline()
    print(gateway.end(float("inf")), flush=True)
