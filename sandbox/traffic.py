"""How many requests came in which second of the clock."""

from collections import Counter, defaultdict

_KEPT = 600  # seconds


class Traffic:
    """Counts requests for each endpoint, of the last ten minutes by the second, and the most of any second."""

    def __init__(self) -> None:
        self._seconds: dict[str, Counter[int]] = defaultdict(Counter)
        self.most: Counter[str] = Counter()

    def note(self, endpoint: str, now: float) -> None:
        """A request has come."""
        seconds = self._seconds[endpoint]
        seconds[int(now)] += 1
        self.most[endpoint] = max(self.most[endpoint], seconds[int(now)])
        while len(seconds) > _KEPT:
            del seconds[min(seconds)]

    def seconds(self, now: float) -> dict[str, dict[int, int]]:
        """Requests by endpoint and second."""
        return {
            endpoint: {second: count for second, count in sorted(seconds.items()) if second > now - _KEPT}
            for endpoint, seconds in self._seconds.items()
        }
