"""The rules by which other gateways keep within the budgets of a provider's keys.

They are simulated by what the projects publish. The source of each rule stands beside it. Times are in
milliseconds. Each is given more than it publishes:
    - it counts exactly and for the whole fleet, without a round trip;
    - it counts for each key, also where the project counts for a consumer or a model;
    - a request passes over keys that are at a limit, where some would refuse it;
    - what the provider has refused is not counted as a request;
    - each gateway knows the requests that it runs, and runs its share of those that a key may run at once.
"""

import random
from collections import Counter
from dataclasses import dataclass

from provider import MINUTE, Limits, Refusal

SOON = 1_000


@dataclass(frozen=True)
class Request:
    """What a gateway knows of a request: its own number, the prompt in tokens, and the estimate of all."""

    gateway: int
    prompt: int
    estimate: int


@dataclass(frozen=True)
class Later:
    """There is no key now: it is worth another attempt in so many milliseconds."""

    millis: int


class Limiter:
    """What all have in common: they try keys in turn, and count requests and tokens in the clock's minutes.
    Tokens count when the response has ended.
    """

    def __init__(self, keys: int, limits: Limits, gateways: int) -> None:
        self._keys = keys
        self._limits = limits
        self._share = limits.at_once // gateways
        self._requests: Counter[tuple[int, int]] = Counter()
        self._tokens: Counter[tuple[int, int]] = Counter()
        self._running: Counter[tuple[int, int]] = Counter()
        self._turn = 0

    def pick(self, now: int, request: Request) -> int | Later:
        """The first key that is at no limit."""
        is_any_busy = False
        for key in self._order(now):
            if not self._has_room(now, key, request):
                continue
            if self._running[key, request.gateway] >= self._share:
                is_any_busy = True
                continue
            self._running[key, request.gateway] += 1
            self._requests[key, self._window(now, key)] += 1
            self._begin(now, key, request)
            return key
        return Later(SOON if is_any_busy else self._reset(now))

    def done(self, now: int, key: int, request: Request, used: int) -> None:
        """The response has ended, and says how many tokens it used."""
        self._running[key, request.gateway] -= 1
        self._tokens[key, self._window(now, key)] += used

    def refused(self, now: int, key: int, request: Request, refusal: Refusal) -> None:
        """The provider has refused it."""
        self._running[key, request.gateway] -= 1
        self._requests[key, self._window(now, key)] -= 1

    def _order(self, now: int) -> list[int]:
        self._turn += 1
        return [(self._turn + key) % self._keys for key in range(self._keys)]

    def _window(self, now: int, key: int) -> int:
        return now // MINUTE

    def _reset(self, now: int) -> int:
        """Until the next window."""
        return MINUTE - now % MINUTE

    def _has_room(self, now: int, key: int, request: Request) -> bool:
        window = self._window(now, key)
        return self._requests[key, window] < self._limits.requests and self._has_tokens(now, key, request)

    def _has_tokens(self, now: int, key: int, request: Request) -> bool:
        return self._tokens[key, self._window(now, key)] < self._limits.tokens

    def _begin(self, now: int, key: int, request: Request) -> None:
        """It is sent with that key."""


class Reserved(Limiter):
    """By hand: INCRBY of the estimate in a counter of this minute, undone where that is too much. At the end
    INCRBY of the difference, in the counter of the minute that it is then.
    """

    def _has_tokens(self, now: int, key: int, request: Request) -> bool:
        return self._tokens[key, self._window(now, key)] + request.estimate <= self._limits.tokens

    def _begin(self, now: int, key: int, request: Request) -> None:
        self._tokens[key, self._window(now, key)] += request.estimate

    def done(self, now: int, key: int, request: Request, used: int) -> None:
        """Corrects the estimate."""
        super().done(now, key, request, used - request.estimate)

    def refused(self, now: int, key: int, request: Request, refusal: Refusal) -> None:
        """Gives it back."""
        super().refused(now, key, request, refusal)
        self._tokens[key, self._window(now, key)] -= request.estimate


class LiteLLM(Limiter):
    """`usage-based-routing-v2`: litellm/router_strategy/lowest_tpm_rpm_v2.py. Of the deployments that have
    room for the prompt, the one with the fewest tokens in this minute, or one of these by chance. Requests
    are counted before the call, tokens after it, in the minute of its end.

    A deployment that answers 429 cools for its Retry-After (litellm/router_utils/cooldown_handlers.py).
    """

    def __init__(self, keys: int, limits: Limits, gateways: int) -> None:
        super().__init__(keys, limits, gateways)
        self._cools_until = [0] * keys
        self._chance = random.Random(1)

    def _order(self, now: int) -> list[int]:
        keys = [key for key in range(self._keys) if self._cools_until[key] <= now]
        return sorted(
            keys, key=lambda key: (self._tokens[key, self._window(now, key)], self._chance.random())
        )

    def _reset(self, now: int) -> int:
        """Until the next window, or until a key has cooled."""
        return min([super()._reset(now), *(until - now for until in self._cools_until if until > now)])

    def _has_tokens(self, now: int, key: int, request: Request) -> bool:
        return self._tokens[key, self._window(now, key)] + request.prompt <= self._limits.tokens

    def refused(self, now: int, key: int, request: Request, refusal: Refusal) -> None:
        """Lets it cool."""
        super().refused(now, key, request, refusal)
        self._cools_until[key] = now + 1000 * refusal.retry_after


class KongFixed(Limiter):
    """`ai-rate-limiting-advanced` with `window_type: fixed` (developer.konghq.com/gateway/rate-limiting), and
    `ai-proxy-advanced` with its balancer's default, round-robin.
    """


class KongSliding(Limiter):
    """The same with `window_type: sliding`, the default: of the window before counts the share that the last
    minute has of it.
    """

    def _has_tokens(self, now: int, key: int, request: Request) -> bool:
        window = self._window(now, key)
        before = self._tokens[key, window - 1] * (1 - now % MINUTE / MINUTE)
        return self._tokens[key, window] + before < self._limits.tokens

    def _reset(self, now: int) -> int:
        """There may be room soon."""
        return SOON


class Higress(Limiter):
    """`ai-token-ratelimit`: plugins/wasm-go/extensions/ai-token-ratelimit/main.go. A window begins with the
    first request after the one before. A request passes unless the window is overdrawn. Its tokens are
    deducted at the end of the response, from the window that it is then.
    """

    def __init__(self, keys: int, limits: Limits, gateways: int) -> None:
        super().__init__(keys, limits, gateways)
        self._begun = [-MINUTE] * keys

    def _window(self, now: int, key: int) -> int:
        if self._begun[key] + MINUTE <= now:
            self._begun[key] = now
        return self._begun[key]

    def _reset(self, now: int) -> int:
        """Until the first window ends."""
        return min(self._begun) + MINUTE - now

    def _has_tokens(self, now: int, key: int, request: Request) -> bool:
        return self._tokens[key, self._window(now, key)] <= self._limits.tokens


class EnvoyAIGateway(Limiter):
    """Usage-based rate limiting: site/docs/capabilities/traffic/usage-based-ratelimiting.md. The cost of a
    request is 0, that of the response its tokens. The rate limit service counts in the clock's minutes, and a
    request passes unless the count is above the limit (envoyproxy/ratelimit: src/limiter/base_limiter.go).
    """

    def _has_tokens(self, now: int, key: int, request: Request) -> bool:
        return self._tokens[key, self._window(now, key)] <= self._limits.tokens
