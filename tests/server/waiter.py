"""Clients that wait at a pool until they are served, and what they are given."""

import select

from server import eventually
from wire import Wire, dict_of, pack, words

NEVER = "LB.PICK web LEASE 60000 BLOCK 0"


class Waiter(Wire):
    """A client that waits for what it asked for. The reply is read when it is there."""

    def __init__(self, server, command=NEVER, protocol=2):
        super().__init__(server.port, protocol)
        self.id = self.ask("CLIENT ID")
        with Wire(server.port) as other:
            self.send(pack(words(command)))
            # It may have its answer already, where time has passed on a machine that stood still.
            eventually(lambda: is_blocked(other, self.id) or not self.waits())

    def waits(self):
        """Whether it has no answer yet."""
        return not select.select([self._socket], [], [], 0)[0]


def is_blocked(wire, id):
    """Whether the server lets that client wait."""
    return b"b" in wire.ask(f"CLIENT LIST ID {id}").split(b" flags=")[1].split()[0]


def blocked(wire):
    """How many clients the server says wait."""
    info = wire.ask("INFO clients").decode()
    return int(info.split("blocked_clients:")[1].split()[0])


def lease(answer):
    """The id of the lease in a reply."""
    assert isinstance(answer, list) and b"-" in answer[1], answer
    return answer[1].decode()


def leases(wire, key):
    """How many leases are open there."""
    return dict_of(wire.ask(f"LB.INFO {key}"))[b"leases"]
