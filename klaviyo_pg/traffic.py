"""The traffic of API clients: how many requests they have sent, and how long these took. Sends nothing."""

from collections.abc import Iterable
from typing import NamedTuple


class Traffic(NamedTuple):
    """The number of requests, how many of them were retries, and the seconds until their responses were read."""

    requests: int = 0
    retries: int = 0
    seconds: float = 0.0

    @property
    def seconds_per_request(self) -> float:
        """The average time until a response was read; 0 without any requests."""
        return self.seconds / max(1, self.requests)

    def since(self, earlier: "Traffic") -> "Traffic":
        """Return the traffic since an earlier moment."""
        return Traffic(*(now - then for now, then in zip(self, earlier, strict=True)))  # type: ignore[arg-type]

    @staticmethod
    def total(several: "Iterable[Traffic]") -> "Traffic":
        """Return the sum of the traffic of several clients or batches."""
        return Traffic(*(sum(each) for each in zip(Traffic(), *several, strict=True)))
