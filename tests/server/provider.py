"""A provider of a language model that enforces the limits of each key strictly, by code of its own.

A key may send so many requests in any minute, use so many tokens in any minute, and have so many requests
running at once. A request that would be over a limit is refused, as by status 429, with the seconds after
which another attempt is worth it. Time is an argument, in milliseconds.

Providers differ in when they count a token:
    Reserving   counts all tokens that a request may use when it comes, and corrects that at its end. So do
                the Claude API ("Rate limits", 2025: output tokens are estimated by max_tokens when a request
                begins, adjusted when it ends) and Azure OpenAI ("Manage quota": an estimate at admission).
    Producing   counts the prompt when the request comes, and the answer while it is produced.
"""

from collections import deque
from dataclasses import dataclass

MINUTE = 60_000


@dataclass(frozen=True)
class Limits:
    """Those of a key: requests a minute, tokens a minute, requests at once."""

    requests: int
    tokens: int
    at_once: int


@dataclass(frozen=True)
class Refusal:
    """Status 429: which limit it was, and the header Retry-After, in whole seconds."""

    limit: str
    retry_after: int


class Minute:
    """The amounts of the last minute. A negative one corrects an earlier one."""

    def __init__(self) -> None:
        self._amounts: deque[tuple[int, int]] = deque()
        self._sum = 0

    def add(self, now: int, amount: int) -> None:
        """Counts it."""
        self._amounts.append((now, amount))
        self._sum += amount

    def sum(self, now: int) -> int:
        """All of them."""
        while self._amounts and self._amounts[0][0] <= now - MINUTE:
            self._sum -= self._amounts.popleft()[1]
        return self._sum

    def wait(self, now: int, most: int) -> int:
        """In how many milliseconds no more than that is left, if nothing is added; a minute if never."""
        if most < 0:
            return MINUTE
        left, wait = self.sum(now), 0
        for at, amount in self._amounts:
            if left <= most:
                break
            left -= amount
            wait = at + MINUTE - now
        return wait


class Key:
    """What was counted for a key."""

    def __init__(self) -> None:
        self.requests, self.tokens = Minute(), Minute()
        self.running = 0
        self.used = 0


class Provider:
    """All keys. `refused` counts the refusals by limit, `used` says which tokens were really used."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.came = 0
        self.refused = {"requests": 0, "tokens": 0, "at once": 0}
        self._keys: dict[str, Key] = {}

    def begin(self, now: int, key: str, prompt: int, estimate: int) -> Refusal | None:
        """A request comes, whose prompt has so many tokens, and that may use so many in all."""
        of = self._keys.setdefault(key, Key())
        self.came += 1
        counted = self._counted_first(prompt, estimate)
        refusal = self._refusal(now, of, counted)
        if refusal:
            self.refused[refusal.limit] += 1
            return refusal
        of.running += 1
        of.used += prompt
        of.requests.add(now, 1)
        of.tokens.add(now, counted)
        return None

    def _refusal(self, now: int, of: Key, tokens: int) -> Refusal | None:
        if of.running >= self.limits.at_once:
            return Refusal("at once", 1)
        wait, limit = max(
            (of.requests.wait(now, self.limits.requests - 1), "requests"),
            (of.tokens.wait(now, self.limits.tokens - tokens), "tokens"),
        )
        return Refusal(limit, -(-wait // 1000)) if wait else None

    def produce(self, now: int, key: str, tokens: int) -> None:
        """So many tokens of an answer were produced."""
        self._keys[key].used += tokens

    def end(self, now: int, key: str, estimate: int, used: int) -> None:
        """A request ends that might have used so many tokens, and has used so many."""
        self._keys[key].running -= 1

    def used(self, key: str) -> int:
        """The tokens that this key has really used."""
        return self._keys[key].used if key in self._keys else 0

    def running(self) -> int:
        """The requests that run now."""
        return sum(key.running for key in self._keys.values())

    def _counted_first(self, prompt: int, estimate: int) -> int:
        raise NotImplementedError


class Reserving(Provider):
    """Counts what may be used when a request comes, and the difference when it ends."""

    def _counted_first(self, prompt: int, estimate: int) -> int:
        return estimate

    def end(self, now: int, key: str, estimate: int, used: int) -> None:
        """Corrects what was counted first."""
        super().end(now, key, estimate, used)
        self._keys[key].tokens.add(now, used - estimate)


class Producing(Provider):
    """Counts what is used when it is used."""

    def _counted_first(self, prompt: int, estimate: int) -> int:
        return prompt

    def produce(self, now: int, key: str, tokens: int) -> None:
        """Counts these."""
        super().produce(now, key, tokens)
        self._keys[key].tokens.add(now, tokens)
