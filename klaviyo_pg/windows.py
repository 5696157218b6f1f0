"""Half-open time windows in UTC, and the arithmetic that cuts them. Knows nothing of streams."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import inf
from typing import NamedTuple

from klaviyo_pg.errors import BadSettings

DAY = timedelta(days=1)
NEVER = datetime.min.replace(tzinfo=UTC)
"""The time of what has never happened: before all others."""


class Window(NamedTuple):
    """A half-open time window [start, end) in UTC."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> tuple[float, float]:
        """The bounds in Unix seconds."""
        return self.start.timestamp(), self.end.timestamp()

    @property
    def days(self) -> list[date]:
        """The days of a window from midnight to midnight."""
        return [(self.start + number * DAY).date() for number in range((self.end - self.start) // DAY)]

    def overlaps(self, other: "Window") -> bool:
        """Return whether the windows have any time in common."""
        return self.start < other.end and other.start < self.end

    def resumed_at(self, checkpoint: datetime | None) -> "Window":
        """Return what is left of the window once everything before `checkpoint` has been read."""
        return self if checkpoint is None else self._replace(start=max(self.start, checkpoint))

    def __str__(self) -> str:
        return f"{_minute(self.start)}..{_minute(self.end)}"


class OpenWindow(NamedTuple):
    """A time window without an end. Without a start it also has no beginning: a full read."""

    start: datetime | None

    @property
    def end(self) -> None:
        """None: the window has no end."""
        return None

    @property
    def seconds(self) -> tuple[float, float]:
        """The bounds in Unix seconds. A missing bound is infinite."""
        return -inf if self.start is None else self.start.timestamp(), inf

    def resumed_at(self, checkpoint: datetime | None) -> "OpenWindow":
        """Return what is left of the window once everything before `checkpoint` has been read."""
        if checkpoint is None:
            return self
        return OpenWindow(checkpoint if self.start is None else max(self.start, checkpoint))

    def __str__(self) -> str:
        return ".." if self.start is None else f"{_minute(self.start)}.."


AnyWindow = Window | OpenWindow
FULL_READ = OpenWindow(None)
"""The window of a stream that is read from beginning to end."""


def exact(window: AnyWindow) -> str:
    """Return a text from which `parse` makes the same window."""
    bounds = ("" if bound is None else bound.astimezone(UTC).isoformat() for bound in (window.start, window.end))
    return "..".join(bounds)


def parse(text: str) -> AnyWindow:
    """Return the window that `exact` has made a text of, or `str`, up to a minute. Bounds without a zone are in UTC."""
    start, end = (_bound(each) if each else None for each in text.split(".."))
    return OpenWindow(start) if start is None or end is None else Window(start, end)


def _bound(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def merged(windows: Iterable[Window]) -> list[Window]:
    """Join windows that overlap or adjoin, and return them in order of time."""
    joined: list[Window] = []
    for window in sorted(windows):
        if joined and window.start <= joined[-1].end:
            joined[-1] = Window(joined[-1].start, max(joined[-1].end, window.end))
        else:
            joined.append(window)
    return joined


def divided(window: AnyWindow, last: datetime, pieces: int) -> list[AnyWindow]:
    """Cut a window that has a start into pieces of equal length up to `last`, the last of which ends where it does.

    They are cut at whole seconds, so there are fewer if the time is shorter.
    """
    assert window.start is not None
    step = (last - window.start) / pieces
    cuts = [(window.start + step * number).replace(microsecond=0) for number in range(1, pieces)]
    starts = [window.start, *sorted({cut for cut in cuts if cut > window.start})]
    end = window.end
    return [
        *(Window(*each) for each in pairwise(starts)),
        OpenWindow(starts[-1]) if end is None else Window(starts[-1], end),
    ]


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")


def midnight(day: date) -> datetime:
    """Return the start of a day in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def floor(moment: datetime, step: timedelta) -> datetime:
    """Round a time down to a whole number of steps (such as hours or days) since the Unix epoch."""
    return moment - (moment - datetime(1970, 1, 1, tzinfo=UTC)) % step


def open_windows(start: datetime, until: datetime, longest: timedelta) -> Iterator[AnyWindow]:
    """Cut the time from `start` on into windows of equal length, at most `longest`; the last one has no end.

    The last window is open because the API refuses a bound in the future, while events dated in the future exist and
    must be read. A `start` after `until` gives a single open window.
    """
    parts = max(1, -(-(until - start) // longest))
    step = (until - start) / parts
    starts = [(start + step * part).replace(microsecond=0) for part in range(parts)]
    for begin, end in pairwise(starts):
        yield Window(begin, end)
    yield OpenWindow(starts[-1])


def history_window(now: datetime, start: datetime, end: datetime | None, since: datetime | None = None) -> Window:
    """Return whole days in UTC, up to the last midnight: today and the future belong to the daily run.

    Days before `since` are left out.
    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = max(start, since or start).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = today if end is None else min(today, _next_midnight(min(end, now)))
    if start < last <= first and since is not None and since > start:
        raise BadSettings(
            f"EVENTS_SINCE is {since:%Y-%m-%d}, and earlier days are not loaded. Set it to an earlier day, or choose a "
            "later end."
        )
    if first >= last:
        raise BadSettings(
            f"There is no whole day between {first:%Y-%m-%d} and {last:%Y-%m-%d}: choose an earlier start."
        )
    return Window(first, last)


def _next_midnight(moment: datetime) -> datetime:
    start = midnight(moment.astimezone(UTC).date())
    return start if start == moment else start + DAY
