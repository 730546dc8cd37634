"""What a server writes into its files, and the ways in which its pools come back from them."""

from contextlib import suppress

from server import Server, eventually
from wire import read

# Each command is in the file as it came, before its reply.
AOF = {"appendonly": "yes", "appendfsync": "always", "aof_use_rdb_preamble": "no"}


def stream(server):
    """The commands in its AOF. Those that only say where and how they belong together are left out."""
    commands = []
    for path in sorted(server.folder.glob("**/appendonly*.aof")):
        # A rewrite may have replaced the file since it was listed.
        with suppress(FileNotFoundError), path.open("rb") as file:
            while file.peek(1):
                commands.append(read(file))
    return [c for c in commands if c[0].upper() not in (b"SELECT", b"MULTI", b"EXEC")]


def saved(server):
    server.client().save()
    server.kill()
    server.start()


def saved_in_background(server):
    client = server.client()
    client.bgsave()
    eventually(lambda: not client.info("persistence")["rdb_bgsave_in_progress"])
    server.kill()
    server.start()


def reloaded(server):
    assert server.client().execute_command("DEBUG RELOAD") == "OK"


def killed(server):
    server.kill()
    server.start()


def rewritten(server):
    client = server.client()
    client.bgrewriteaof()
    pending = ["aof_rewrite_scheduled", "aof_rewrite_in_progress"]
    eventually(lambda: not any(client.info("persistence")[field] for field in pending))
    server.restart()


WAYS = {
    "SAVE": (saved, {}),
    "BGSAVE": (saved_in_background, {}),
    "DEBUG RELOAD": (reloaded, {}),
    "AOF": (Server.restart, {"appendonly": "yes"}),
    "AOF and kill -9": (killed, {"appendonly": "yes", "appendfsync": "always"}),
    "AOF rewritten as RDB": (rewritten, {"appendonly": "yes", "aof_use_rdb_preamble": "yes"}),
    "AOF rewritten as commands": (rewritten, {"appendonly": "yes", "aof_use_rdb_preamble": "no"}),
}
