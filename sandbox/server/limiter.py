"""Fixed-window rate limiting: a number of requests per second, minute and day, for each endpoint."""

import math
from collections.abc import Callable, Mapping
from time import time

from sandbox.api.limits import Limit


class Limiter:
    """A counter of requests in windows that start at whole seconds, minutes and days of the clock.

    `overrides` are limits by name that replace the limits passed with the requests.
    """

    def __init__(self, clock: Callable[[], float] = time, overrides: Mapping[str, Limit] | None = None) -> None:
        self._clock, self._overrides = clock, overrides or {}
        self._used: dict[tuple[str, int], tuple[int, int]] = {}

    def take(self, name: str, limit: Limit) -> int:
        """Count a request and return 0. If a window is full, count nothing and return the seconds to wait."""
        now, limit = self._clock(), self._overrides.get(name, limit)
        waits = [
            math.ceil((now // length + 1) * length - now)
            for length, allowed in limit.windows
            if self._count(name, length, now) >= allowed
        ]
        if waits:
            return max(waits)
        for length, _ in limit.windows:
            self._used[name, length] = int(now // length), self._count(name, length, now) + 1
        return 0

    def _count(self, name: str, length: int, now: float) -> int:
        window, used = self._used.get((name, length), (-1, 0))
        return used if window == int(now // length) else 0

    def headers(self, name: str, limit: Limit) -> dict[str, str]:
        """Return the ratelimit headers of a response. Remaining and reset refer to the one-second window."""
        limit = self._overrides.get(name, limit)
        used = self._count(name, 1, self._clock())
        return {
            "ratelimit-limit": ", ".join([str(limit.burst), *(f"{most};w={length}" for length, most in limit.windows)]),
            "ratelimit-remaining": str(max(0, limit.burst - used)),
            "ratelimit-reset": "0",
        }
