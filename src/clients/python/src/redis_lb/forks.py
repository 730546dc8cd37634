"""Forks: the child of a process must not use the locks, the picks and the leases of its parent."""

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What stands in the memory of a child as it was in its parent."""

    def after_fork(self) -> None:
        """Begin anew, in the child."""


_known: "weakref.WeakSet[Forked]" = weakref.WeakSet()


def watch(state: Forked) -> None:
    """Let it begin anew in each child of this process."""
    _known.add(state)


def _after_fork() -> None:
    for state in list(_known):
        state.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
