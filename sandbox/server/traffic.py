"""The number of requests per second, by endpoint."""

from collections import Counter, defaultdict

_KEPT_SECONDS = 600


class Traffic:
    """A counter of requests in each of the last 600 seconds. `peak` is the largest number in any second."""

    def __init__(self) -> None:
        self._seconds: dict[str, Counter[int]] = defaultdict(Counter)
        self.peak: Counter[str] = Counter()

    def count(self, endpoint: str, now: float) -> None:
        """Count a request."""
        seconds = self._seconds[endpoint]
        seconds[int(now)] += 1
        self.peak[endpoint] = max(self.peak[endpoint], seconds[int(now)])
        while len(seconds) > _KEPT_SECONDS:
            del seconds[min(seconds)]

    def seconds(self, now: float) -> dict[str, dict[int, int]]:
        """Return the number of requests by endpoint and second."""
        return {
            endpoint: {second: count for second, count in sorted(seconds.items()) if second > now - _KEPT_SECONDS}
            for endpoint, seconds in self._seconds.items()
        }
