"""Fixed-window rate limits: so many requests a second and so many a minute, for each endpoint of the account."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests allowed in one second and in one minute."""

    burst: int
    steady: int

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        return (1, self.burst), (60, self.steady)


XS, S, M, L, XL = Limit(1, 15), Limit(3, 60), Limit(10, 150), Limit(75, 750), Limit(350, 3500)


class Limiter:
    """Counts requests in windows that start at whole seconds and minutes of the clock.

    `others` are limits by name in place of those that are given with a request.
    """

    def __init__(self, clock: Callable[[], float] = time, others: Mapping[str, Limit] | None = None) -> None:
        self._clock, self._others = clock, others or {}
        self._used: dict[tuple[str, int], tuple[int, int]] = {}

    def take(self, name: str, limit: Limit) -> int:
        """Count one request; gives 0, or how many seconds to wait if a window is full (then nothing is counted)."""
        now, limit = self._clock(), self._others.get(name, limit)
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
        """The ratelimit headers of an answer; remaining and reset speak of the one-second window."""
        limit = self._others.get(name, limit)
        used = self._count(name, 1, self._clock())
        return {
            "ratelimit-limit": f"{limit.burst}, {limit.burst};w=1, {limit.steady};w=60",
            "ratelimit-remaining": str(max(0, limit.burst - used)),
            "ratelimit-reset": "0",
        }
