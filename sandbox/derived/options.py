"""The sizes of a derived account. The same options give the same account."""

from dataclasses import dataclass, replace
from datetime import datetime

from sandbox.account.model import Options
from sandbox.hashing import stable_hash

DAY = 86_400
STRIDE = 617  # prime: the people who change on an added day are this far from those of the day before


@dataclass(frozen=True, slots=True)
class DerivedOptions(Options):
    """Sizes at the end of the history. After it, each of the `added_days` adds or changes a share of everything.

    `until` is the end of the history without the added days. `lists` counts lists and segments.
    """

    members: int = 3_000_000
    events: int = 50_000_000
    days: int = 730
    metrics: int = 500
    lists: int = 300
    properties: int = 25
    order_size: int = 2_000  # bytes
    daily_share: float = 0.001
    added_days: int = 0

    def __post_init__(self) -> None:
        if self.members < 10 or self.metrics < 1 or self.lists < 2:
            raise ValueError("A large account has at least 10 members, a metric, and two lists and segments")
        if not 0 < self.daily_share <= 0.5:
            raise ValueError("The daily share must be more than 0 and at most 0.5")
        if self.cycle % STRIDE == 0:
            raise ValueError(f"A daily share of 1 / {self.cycle} cannot be used, because {STRIDE} divides {self.cycle}")
        if not 0 <= self.added_days < self.cycle:
            raise ValueError(f"With a daily share of {self.daily_share}, at most {self.cycle - 1} days can be added")

    @property
    def end(self) -> int:
        """Return the end of the last added day."""
        return self.base_end + self.added_days * DAY

    @property
    def base_end(self) -> int:
        return int(self.until.timestamp())

    @property
    def start(self) -> int:
        return self.base_end - self.days * DAY

    @property
    def cycle(self) -> int:
        """Return the number of days after which all people would have changed once."""
        return round(1 / self.daily_share)

    @property
    def daily_events(self) -> int:
        return round(self.events * self.daily_share)

    @property
    def daily_people(self) -> int:
        """Return how many people are new on each added day."""
        return max(1, round(self.members * self.daily_share))

    def grown_until(self, now: datetime) -> "DerivedOptions":
        """Return the account with all days that have passed since the end of the history, as far as it can grow."""
        days = (now - self.until).days
        return replace(self, added_days=min(max(0, days), self.cycle - 1))

    def number(self, *parts: object) -> int:
        """Return a number that depends on the account, its seed and the parts."""
        return stable_hash(self.account, self.seed, *parts)
