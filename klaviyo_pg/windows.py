"""Stretches of time to read: half-open, in UTC, and the arithmetic that plans them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple


class Window(NamedTuple):
    """A half-open stretch of time [start, end) in UTC; None is no bound on that side."""

    start: datetime | None
    end: datetime | None

    @property
    def seconds(self) -> tuple[float, float]:
        """The bounds in unix seconds; an infinity where there is none."""
        return (
            -inf if self.start is None else self.start.timestamp(),
            inf if self.end is None else self.end.timestamp(),
        )

    def __str__(self) -> str:
        return f"{_minute(self.start)}..{_minute(self.end)}"


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")


def floor(moment: datetime, step: timedelta) -> datetime:
    """The last moment at or before this one at which a whole number of steps has passed in UTC, as of hours or days."""
    return moment - (moment - datetime(1970, 1, 1, tzinfo=UTC)) % step


def open_windows(start: datetime, until: datetime, longest: timedelta) -> Iterator[Window]:
    """Cut [start, for ever) into windows of equal length, at most `longest`, the last without an end.

    The last one has no end because the API refuses a bound in the future, while events dated in the future exist and
    have to be read too. Up to `until` the cut is even; a start after `until` gives the one open window.
    """
    parts = max(1, -(-(until - start) // longest))
    step = (until - start) / parts
    edges = [(start + step * part).replace(microsecond=0) for part in range(parts)]
    for begin, end in zip(edges, [*edges[1:], None], strict=True):
        yield Window(begin, end)
