"""The times of numbered things: a count for each hour, within which they are spread evenly."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from sandbox.derived.arithmetic import shared_out
from sandbox.derived.options import DAY, DerivedOptions

HOUR = 3_600
_BURST = 9.0  # times as many events as in an ordinary hour
_HOURS = (2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 9, 9, 9, 8, 8, 9, 10, 12, 13, 12, 9, 6, 4)  # weights within a day


class Calendar:
    """Things in order of time. `bounds` are their running numbers at the start of each hour, and at the end."""

    def __init__(self, start: int, bounds: Iterable[int]) -> None:
        self._start, self.bounds = start, array("Q", bounds)

    def __len__(self) -> int:
        return self.bounds[-1]

    def time(self, position: int) -> int:
        """Return the second of a thing."""
        hour = bisect_right(self.bounds, position) - 1
        low = self.bounds[hour]
        return self._start + HOUR * hour + (position - low) * HOUR // (self.bounds[hour + 1] - low)

    def first(self, time: int) -> int:
        """Return the position of the first thing that does not happen before a second."""
        hour, second = divmod(time - self._start, HOUR)
        if hour < 0:
            return 0
        if hour >= len(self.bounds) - 1:
            return self.bounds[-1]
        low = self.bounds[hour]
        return low - (-second * (self.bounds[hour + 1] - low) // HOUR)

    def extended(self, counts: Iterable[int]) -> "Calendar":
        """Return a calendar with more hours at its end, of which the counts are given."""
        bounds = array("Q", self.bounds)
        for count in counts:
            bounds.append(bounds[-1] + count)
        return Calendar(self._start, bounds)


def event_calendar(options: DerivedOptions) -> Calendar:
    """Return the times of the events before the added days: with seasons, growth, and bursts after campaigns."""
    bursts = options.number("bursts")
    hours = options.days * 24
    weights = (
        weight * (_BURST if hour * 2_654_435_761 + bursts & 0x1F == 0 else 1.0) * (0.4 + hour / hours)
        for hour, weight in enumerate(_hourly(options.start, options.days))
    )
    return Calendar(options.start, shared_out(options.events, weights))


def events_of_a_day(options: DerivedOptions) -> list[int]:
    """Return the counts of each hour of an added day."""
    return counts(shared_out(options.daily_events, _HOURS))


def counts(bounds: list[int]) -> list[int]:
    """Return the differences of running numbers."""
    return [high - low for low, high in pairwise(bounds)]


def _hourly(start: int, days: int) -> Iterator[float]:
    first = datetime.fromtimestamp(start, UTC)
    for day in range(days):
        at = first + timedelta(days=day)
        season = 6.0 if at.month == 11 and at.day >= 20 else 1.8 if at.month == 12 else 1.0
        for hour in range(24):
            yield season * (0.6 if at.weekday() >= 5 else 1.0) * _HOURS[(at.hour + hour) % 24]


def created_calendar(options: DerivedOptions) -> Calendar:
    """Return the times at which the people before the added days were created, the last a day before these begin."""
    start = _created_start(options)
    hours = (options.base_end - start) // HOUR
    weights = [1.0 + 2 * at / hours for at in range(hours - 24)]
    weights[len(weights) // 3] = sum(weights) / 10  # an import
    return Calendar(start, [*shared_out(options.members, weights), *[options.members] * 24])


def updated_calendar(options: DerivedOptions, created: Calendar, block: int) -> Calendar:
    """Return the times at which these people were last updated, a tenth of them in one hour.

    People are updated block by block, a block only after all of it was created.
    """
    hours = len(created.bounds) - 1
    weights = [0.2 + (at / hours) ** 4 for at in range(hours)]
    weights[hours * 4 // 5] = sum(weights) / 9
    wanted, complete = shared_out(options.members, weights), [each // block * block for each in created.bounds]
    latest = [min(bound, low) for bound, low in zip(wanted[1:-1], complete, strict=False)]
    return Calendar(_created_start(options), [0, *latest, options.members])


def _created_start(options: DerivedOptions) -> int:
    """Return the second from which on people were created: before the events begin."""
    return options.start - options.days // 2 * DAY


def people_of_a_day(changed: int, new: int) -> list[int]:
    """Return the counts of each hour of an added day, on which first people change and then new ones come."""
    return [*counts(shared_out(changed, [1.0] * 12)), *counts(shared_out(new, [1.0] * 12))]
