"""The module of floor.c, below which no module can go."""

from .compiled import compiled


def floor() -> str:
    """What a server's `loadmodule` needs to load it."""
    return f'"{compiled("floor.c", "-shared", "-fPIC")}"'
