"""The rate limits that Klaviyo publishes, by size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """The number of requests allowed in one second and in one minute."""

    burst: int
    steady: int

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        return (1, self.burst), (60, self.steady)


XS, S, M, L, XL = Limit(1, 15), Limit(3, 60), Limit(10, 150), Limit(75, 750), Limit(350, 3500)
