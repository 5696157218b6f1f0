"""What the source counts beside what is stored: compared, and turned into windows to read again. Values in, values out.

A step is the shortest stretch of time that the source counts: an hour, or in the legacy dialect a day.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, groupby
from typing import NamedTuple

from klaviyo_pg.windows import Window, floor

COMPLETE, DIFFERS, UNCOUNTED = "complete", "differs", "uncounted"
LAG = timedelta(hours=1)  # counts come a little later than the events themselves: what is younger is not judged
_DAY = timedelta(days=1)
_TOLD = 10  # differences in sentences; more of them are left to the table

Key = tuple[str, datetime, datetime]
"""Metric, start and end of a stretch."""
Counts = Mapping[datetime, int]
"""Start of a step -> events in it; a step that is not named has none."""


class Compared(NamedTuple):
    """Both numbers of events of one metric in one day or hour; `source_events` is None where it is not counted."""

    metric_id: str
    window_start: datetime
    window_end: datetime
    source_events: int | None
    warehouse_events: int
    state: str
    read_again_at: datetime | None = None

    @property
    def difference(self) -> int | None:
        """Stored minus counted: below 0 where some are missing."""
        return None if self.source_events is None else self.warehouse_events - self.source_events

    def is_as(self, other: "Compared | None") -> bool:
        """Whether another comparison of the same stretch gave the same two numbers."""
        return other is not None and self[:5] == other[:5]


Known = Mapping[Key, Compared]
"""What an earlier check left."""


def key(compared: Compared) -> Key:
    return compared[:3]


def period(as_of: datetime, days: int, step: timedelta) -> Window:
    """What a check judges: so many whole days and today, up to a little before the present."""
    return Window(floor(as_of, _DAY) - days * _DAY, floor(as_of - LAG, step))


def judged(claimed: Iterable[Window], period: Window, step: timedelta) -> list[Window]:
    """The parts of a period that lie in stretches that have been read, in whole steps, in order of time."""
    assert period.start is not None and period.end is not None
    found: list[Window] = []
    for start, end in sorted(_bounds(window) for window in claimed):
        if found and start <= found[-1].end:  # type: ignore[operator]  # all of them have an end
            found[-1] = Window(found[-1].start, max(found[-1].end, end))  # type: ignore[type-var]
        else:
            found.append(Window(start, end))
    rounded = (
        Window(max(_ceil(start, step), period.start), min(floor(end, step), period.end))
        for start, end in map(_bounds, found)
    )
    return [window for window in rounded if window.start < window.end]  # type: ignore[operator]


def _bounds(window: Window) -> tuple[datetime, datetime]:
    assert window.start is not None and window.end is not None
    return window.start, window.end


def _ceil(moment: datetime, step: timedelta) -> datetime:
    below = floor(moment, step)
    return below if below == moment else below + step


class Checked(NamedTuple):
    """One metric, compared: all of its days, and those steps that differ or differed when they were last compared."""

    days: list[Compared]
    steps: list[Compared]


def compare(
    metric_id: str, windows: Iterable[Window], step: timedelta, source: Counts | None, stored: Counts, before: Known
) -> Checked:
    """Each day of the windows, and the steps of note. `source` is None where it does not count the metric."""

    def is_of_note(at: datetime) -> bool:
        differs = source is not None and source.get(at, 0) != stored.get(at, 0)
        return differs or _differed(before.get((metric_id, at, at + step)))

    days: list[Compared] = []
    noted: list[Compared] = []
    for window in windows:
        for _, group in groupby(_steps(window, step), datetime.date):
            starts = list(group)
            steps = [_one(metric_id, [at], step, source, stored) for at in starts if is_of_note(at)]
            day = _one(metric_id, starts, step, source, stored)
            is_odd = any(each.state == DIFFERS for each in steps)
            days.append(day._replace(state=DIFFERS) if is_odd else day)
            noted += steps
    return Checked(days, noted)


def _differed(before: Compared | None) -> bool:
    return before is not None and before.state == DIFFERS


def _steps(window: Window, step: timedelta) -> Iterator[datetime]:
    at, end = _bounds(window)
    while at < end:
        yield at
        at += step


def _one(
    metric_id: str, starts: Sequence[datetime], step: timedelta, source: Counts | None, stored: Counts
) -> Compared:
    """Adjoining steps as one stretch."""
    stretch = metric_id, starts[0], starts[-1] + step
    warehouse = sum(stored.get(at, 0) for at in starts)
    if source is None:
        return Compared(*stretch, None, warehouse, UNCOUNTED)
    counted = sum(source.get(at, 0) for at in starts)
    return Compared(*stretch, counted, warehouse, COMPLETE if counted == warehouse else DIFFERS)


def is_to_be_read(now: Compared, before: Compared | None, surplus: bool) -> bool:
    """Whether a step is to be read again, because the source has events that are not stored.

    Where more was stored than it counted, because it has lost some, it need not count more than is stored for that: it
    is enough that the two have come nearer. With `surplus` such a step is read, too. None is read whose two numbers are
    those that were left when it was last read again.
    """
    if now.difference is None or (now.is_as(before) and before is not None and before.read_again_at):
        return False
    known = max(0, before.difference or 0) if before is not None and before.state == DIFFERS else 0
    return now.difference < known or (surplus and now.difference > 0)


def windows_to_read(steps: Iterable[Compared], source: Counts, page: int) -> list[Window]:
    """Windows that hold these steps of one metric: together what adjoins, and what fits on one page."""
    times = sorted(source)
    totals = [0, *accumulate(source[at] for at in times)]
    found: list[Window] = []
    for each in sorted(steps):
        begin = found[-1].start if found else None
        events = 0 if begin is None else totals[bisect_left(times, each.window_end)] - totals[bisect_left(times, begin)]
        if begin is not None and (found[-1].end == each.window_start or events <= page):
            found[-1] = Window(begin, each.window_end)
        else:
            found.append(Window(each.window_start, each.window_end))
    return found


def rows(checked: Checked, before: Known, read: Collection[Key], now: datetime) -> list[Compared]:
    """What is to be kept of a comparison: days, and hours that differ, with the times when they were read again."""
    steps = {key(each): each._replace(read_again_at=_last_read(each, before, read, now)) for each in checked.steps}
    days_read = {start.date() for _, start, _ in read}
    days = [
        day._replace(read_again_at=now if day.window_start.date() in days_read else _carried(day, before))
        for day in checked.days
    ]
    return [steps.pop(key(day), day) for day in days] + [each for each in steps.values() if each.state == DIFFERS]


def _carried(day: Compared, before: Known) -> datetime | None:
    known = before.get(key(day))
    return known.read_again_at if known else None


def _last_read(step: Compared, before: Known, read: Collection[Key], now: datetime) -> datetime | None:
    """Of a step it tells which two numbers were left then, so it goes when they change."""
    known = before.get(key(step))
    return now if key(step) in read else known.read_again_at if known and step.is_as(known) else None


def differing(checked: Checked, before: Known, read_since: bool) -> tuple[list[Compared], int]:
    """Days that differ in another way than an earlier check left them, and the number of those that are as it did.

    With `read_since` a day counts as left by an earlier check only if that one read it again.
    """
    new = {each.window_start.date() for each in checked.steps if not _is_left(each, before.get(key(each)), read_since)}
    days = [day for day in checked.days if day.state == DIFFERS]
    found = [day for day in days if day.window_start.date() in new]
    return found, len(days) - len(found)


def _is_left(step: Compared, before: Compared | None, read_since: bool) -> bool:
    return step.state != DIFFERS or (
        step.is_as(before) and before is not None and bool(before.read_again_at or not read_since)
    )


def sentence(day: Compared, name: str) -> str:
    """A difference in words, with both numbers."""
    return (
        f"{name}, {day.window_start:%Y-%m-%d}: the source counts {day.source_events:,} events, the warehouse holds "
        f"{day.warehouse_events:,}."
    )


def sentences(found: Sequence[tuple[Compared, str]], as_before: int) -> list[str]:
    """What differs, day by day with the names of the metrics; a long list is cut short."""
    told = [sentence(day, name) for day, name in found[:_TOLD]]
    if len(found) > _TOLD:
        told.append(f"{_days(len(found) - _TOLD)} more: see the table reconciliation.")
    if as_before:
        told.append(f"As an earlier check told: {_days(as_before)}.")
    return told


def _days(number: int) -> str:
    return "1 day differs" if number == 1 else f"{number:,} days differ"
