"""What one process decides by itself: picks that it holds ready, and picks while Redis is away.

Nothing here asks a server or waits.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from . import affinity, forks
from .replies import BackendStats

# A read of all backends takes at most this share of the time.
REFRESH_SHARE = 0.01


class Ahead:
    """Picks that were made n at a time, for pick() to hand out. What is too old is dropped.

    Batches have n/2 to n picks, by chance: batches of one size fall into step with the sequence of the pool, and
    all gateways would begin with the same backend.
    """

    def __init__(self, most: int, keep_ms: int) -> None:
        self.most = most
        self._keep_s = keep_ms / 1000
        forks.watch(self)
        self.after_fork()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._picks: deque[str] = deque()
        self._until = 0.0

    def next(self) -> str | None:
        """One of the picks, if there is one."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._picks.clear()
            return self._picks.popleft() if self._picks else None

    def batch(self) -> int:
        """How many to pick now."""
        return random.randint((self.most + 1) // 2, self.most)

    def keep(self, picks: Sequence[str]) -> None:
        """Hold these ready."""
        with self._lock:
            self._picks.extend(picks)
            self._until = time.monotonic() + self._keep_s


class Memory:
    """The backends as they were last seen, and whether Redis is away.

    After a failure nobody asks Redis for `retry_ms`. Then one caller asks, while the others go on alone. They do so
    for at most `fallback_ms` after the last answer.
    """

    def __init__(self, retry_ms: int, refresh_ms: int, fallback_ms: int) -> None:
        self._retry_s = retry_ms / 1000
        self._refresh_s = refresh_ms / 1000
        self._fallback_s = fallback_ms / 1000
        self._backends: dict[str, BackendStats] = {}
        self._credits: dict[str, int] = {}
        self._answered_at = self._refresh_at = float("-inf")
        self._ask_at: float | None = None
        self._lock = threading.Lock()
        forks.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    @property
    def is_away(self) -> bool:
        """Whether Redis did not answer when it was last asked."""
        return self._ask_at is not None

    @property
    def rests(self) -> bool:
        """Whether nobody should ask Redis now."""
        ask_at = self._ask_at
        return ask_at is not None and time.monotonic() < ask_at

    @property
    def can_go_alone(self) -> bool:
        """Whether it knows backends, and has heard of them not too long ago."""
        return bool(self._backends) and time.monotonic() - self._answered_at < self._fallback_s

    def goes_alone(self) -> bool:
        """Whether this caller is to pick without asking. If the time to ask has come, only one caller is told so."""
        with self._lock:
            if self._ask_at is None or not self.can_go_alone:
                return False
            if self.rests:
                return True
            self._ask_at = time.monotonic() + self._retry_s
            return False

    def failed(self) -> None:
        """Redis did not answer."""
        self._ask_at = time.monotonic() + self._retry_s

    def answered(self) -> None:
        """Redis did."""
        self._ask_at = None
        self._answered_at = time.monotonic()

    def wants_refresh(self) -> bool:
        """Whether this caller is to read the backends, for all others."""
        with self._lock:
            now = time.monotonic()
            if not self._fallback_s or now < self._refresh_at:
                return False
            self._refresh_at = now + self._refresh_s
            return True

    def learn(self, backends: Mapping[str, BackendStats], took_s: float) -> None:
        """Remember them. Each keeps its place in the order."""
        with self._lock:
            serving = {name: of for name, of in backends.items() if of.state == "up" and of.weight}
            well = {name: of for name, of in serving.items() if of.health not in ("ejected", "cooling")}
            self._backends = well or serving
            self._credits = {name: self._credits.get(name, 0) for name in self._backends}
            self._refresh_at = time.monotonic() + max(self._refresh_s, took_s / REFRESH_SHARE)

    def pick(self, exclude: Collection[str], item: str | bytes | None = None) -> str | None:
        """Over the lowest tier, smooth weighted round robin as the server does it, or the backend of an item."""
        with self._lock:
            eligible = {name: of for name, of in self._backends.items() if name not in exclude}
            lowest = min((of.tier for of in eligible.values()), default=0)
            weights = {name: of.weight for name, of in eligible.items() if of.tier == lowest}
            if item is not None:
                return affinity.winner(item if isinstance(item, bytes) else item.encode(), weights)
            for name, weight in weights.items():
                self._credits[name] += weight
            best = max(weights, key=self._credits.__getitem__, default=None)
            if best is not None:
                self._credits[best] -= sum(weights.values())
            return best
