"""The memory of a server: how much it uses, and how much it may map."""

import resource
import time
from pathlib import Path

from server import eventually

# What the server may map beyond what it has mapped so far: to believe a length that is a lie takes far more.
ROOM = 256 << 20
# What it may keep when all keys are gone.
CRUMBS = 1 << 20


def used_when_empty(client) -> int:
    """used_memory once nothing is left to be freed in the background."""
    client.execute_command("FLUSHALL SYNC")
    eventually(lambda: client.info("memory")["lazyfree_pending_objects"] == 0)

    def stands_still() -> bool:
        before = client.info("memory")["used_memory"]
        time.sleep(0.2)
        return before - client.info("memory")["used_memory"] < CRUMBS // 16

    # The server has a client of its own for each one that a module blocked. It frees 50 of them at a time.
    eventually(stands_still, seconds=60)
    return client.info("memory")["used_memory"]


def limit(server):
    """From now on the server gets no memory for what a payload only claims to hold."""
    with server.client() as client:
        pid = client.info("server")["process_id"]
    mapped = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (mapped + ROOM, hard))


def used_memory(server):
    with server.client() as client:
        return client.info("memory")["used_memory"]
