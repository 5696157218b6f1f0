"""Random faults that can be repeated.

Whether the n-th request to an endpoint meets a fault, and which one, depends only on the seed, the endpoint and n.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sandbox.faults.kinds import MILD, Fault, check_kinds
from sandbox.hashing import stable_hash

_STEPS = 1_000_000  # the resolution of a rate


@dataclass
class Chaos:
    """Faults for a share of the requests to the endpoints whose name, such as "GET /api/events", matches `paths`."""

    rate: float = 0.0
    seed: int = 0
    kinds: Sequence[str] = MILD
    paths: str = ""
    seconds: float = 5.0
    retry_after: int = 1
    _counts: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"the rate {self.rate} is not between 0 and 1")
        if not self.kinds:
            raise ValueError("at least one kind is required")
        check_kinds(self.kinds)
        re.compile(self.paths)

    def draw(self, endpoint: str) -> Fault | None:
        """Return the fault of the next request to this endpoint."""
        count = self._counts[endpoint]
        self._counts[endpoint] += 1
        if not self.rate or not re.search(self.paths, endpoint):
            return None
        choice, chance = divmod(stable_hash("chaos", self.seed, endpoint, count), _STEPS)
        if chance >= self.rate * _STEPS:
            return None
        kind = self.kinds[choice % len(self.kinds)]
        wait = self.retry_after if kind == "429" else None
        return Fault(endpoint, kind=kind, seconds=self.seconds, retry_after=wait)
