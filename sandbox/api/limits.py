"""The rate limits that Klaviyo publishes, by size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """The number of requests allowed in one second and in one minute, and of some endpoints also in one day."""

    burst: int
    steady: int
    daily: int | None = None

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """The lengths of the windows in seconds, each with the requests in it."""
        windows = (1, self.burst), (60, self.steady)
        return windows if self.daily is None else (*windows, (86_400, self.daily))


XS, S, M, L, XL = Limit(1, 15), Limit(3, 60), Limit(10, 150), Limit(75, 750), Limit(350, 3500)
REPORTS = Limit(1, 2, 225)
