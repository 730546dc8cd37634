"""Replicas: how a server becomes one, and how far it is."""

from server import eventually


def replica_of(server):
    """An option of a server."""
    return {"replicaof": f"127.0.0.1 {server.port}"}


def is_linked(server):
    """Whether a replica has its first copy and follows."""
    return server.client().info("replication").get("master_link_status") == "up"


def in_step(chain):
    """Wait until all servers of the chain are at one place in the stream of commands."""
    eventually(lambda: len({position(server) for server in chain}) == 1, seconds=60)


def position(server):
    """How far in the stream a server is; unlike any other's as long as its link is down."""
    with server.client() as client:
        told = client.info("replication")
    if told["role"] == "master":
        return told["master_repl_offset"]
    return told["slave_repl_offset"] if told["master_link_status"] == "up" else server
