"""The source's counts compared with what is stored, and turned into windows to read again. Values in, values out.

A step is the shortest time that the source counts: an hour, or in the legacy dialect a day.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, groupby
from math import inf
from typing import NamedTuple

from klaviyo_pg.grouping import grouped
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.ledgers.reconciliation import Comparison, Key
from klaviyo_pg.states import CountState
from klaviyo_pg.windows import DAY, Window, floor, merged

COUNTS_DELAY = timedelta(hours=1)
"""Counts come a little later than the events themselves: what is younger is not compared."""
_MAX_SENTENCES = 10  # differences in sentences; the table has the others

EventCounts = Mapping[datetime, int]
"""Start of a step -> events in it. A step that is not named has none."""
Comparisons = Mapping[Key, Comparison]
"""The comparisons that an earlier check stored."""


def period(as_of: datetime, days: int, step: timedelta) -> Window:
    """Return the time that a check compares: so many whole days and today, except what is too recent."""
    return Window(floor(as_of, DAY) - days * DAY, floor(as_of - COUNTS_DELAY, step))


def comparable(loaded: Iterable[Window], period: Window, step: timedelta) -> list[Window]:
    """Return the parts of a period that have been loaded, in whole steps and in order of time."""
    rounded = (
        Window(max(_ceil(start, step), period.start), min(floor(end, step), period.end))
        for start, end in merged(loaded)
    )
    return [window for window in rounded if window.start < window.end]


def _ceil(moment: datetime, step: timedelta) -> datetime:
    below = floor(moment, step)
    return below if below == moment else below + step


class Compared(NamedTuple):
    """One metric, compared: all of its days, and the steps that differ or differed when they were last compared."""

    days: list[Comparison]
    steps: list[Comparison]

    @property
    def is_counted(self) -> bool:
        """True if the source was able to count the metric."""
        return all(day.source_events is not None for day in self.days)

    @property
    def state(self) -> CountState:
        """The result for all days together."""
        if not self.is_counted:
            return CountState.UNCOUNTED
        return CountState.DIFFERS if any(map(_differed, self.days)) else CountState.COMPLETE


def compare(
    metric_id: str,
    windows: Iterable[Window],
    step: timedelta,
    source: EventCounts | None,
    stored: EventCounts,
    before: Comparisons,
) -> Compared:
    """Compare each day of the windows, and the steps that differ. `source` is None where it cannot count the metric."""

    def is_notable(at: datetime) -> bool:
        differs = source is not None and source.get(at, 0) != stored.get(at, 0)
        return differs or _differed(before.get((metric_id, at, at + step)))

    days: list[Comparison] = []
    notable: list[Comparison] = []
    for window in windows:
        for _, group in groupby(_steps(window, step), datetime.date):
            starts = list(group)
            steps = [_comparison(metric_id, [at], step, source, stored) for at in starts if is_notable(at)]
            day = _comparison(metric_id, starts, step, source, stored)
            differs = any(each.state is CountState.DIFFERS for each in steps)
            days.append(day._replace(state=CountState.DIFFERS) if differs else day)
            notable += steps
    return Compared(days, notable)


def _differed(before: Comparison | None) -> bool:
    return before is not None and before.state is CountState.DIFFERS


def _steps(window: Window, step: timedelta) -> Iterator[datetime]:
    at = window.start
    while at < window.end:
        yield at
        at += step


def _comparison(
    metric_id: str, starts: Sequence[datetime], step: timedelta, source: EventCounts | None, stored: EventCounts
) -> Comparison:
    """Compare consecutive steps as a whole."""
    end, warehouse = starts[-1] + step, sum(stored.get(at, 0) for at in starts)
    if source is None:
        return Comparison(metric_id, starts[0], end, None, warehouse, CountState.UNCOUNTED)
    counted = sum(source.get(at, 0) for at in starts)
    state = CountState.COMPLETE if counted == warehouse else CountState.DIFFERS
    return Comparison(metric_id, starts[0], end, counted, warehouse, state)


def needs_reread(now: Comparison, before: Comparison | None, surplus: bool) -> bool:
    """Return whether a step has to be read again, because the source has events that are not stored.

    Where more events were stored than the source counted, because it has lost some, the difference need not become
    negative for that: it is enough that it has become smaller. With `surplus`, a step with more events than the source
    counts is read again, too. A step whose two counts are those that remained when it was last read again is not.
    """
    if now.difference is None or _remains(now, before):
        return False
    lost = max(0, before.difference or 0) if before is not None and _differed(before) else 0
    return now.difference < lost or (surplus and now.difference > 0)


def _remains(now: Comparison, before: Comparison | None) -> bool:
    """Return whether a step has the counts that remained when it was last read again."""
    return before is not None and now.equals_counts_of(before) and before.reread_at is not None


def windows_to_read(steps: Iterable[Comparison], source: EventCounts, page: int, chunk: float = inf) -> list[Window]:
    """Return windows that contain these steps of one metric: those that fit on one page as one window.

    So are adjacent steps, up to about `chunk` events.
    """
    times = sorted(source)
    totals = [0, *accumulate(source[at] for at in times)]
    windows: list[Window] = []
    for each in sorted(steps):
        begin = windows[-1].start if windows else None
        events = 0 if begin is None else totals[bisect_left(times, each.window_end)] - totals[bisect_left(times, begin)]
        most = max(page, chunk) if windows and windows[-1].end == each.window_start else page
        if begin is not None and events <= most:
            windows[-1] = Window(begin, each.window_end)
        else:
            windows.append(Window(each.window_start, each.window_end))
    return windows


def rows(compared: Compared, before: Comparisons, reread: Collection[Key], now: datetime) -> list[Comparison]:
    """Return what to store of a check: days, and steps that differ, with the times when they were read again."""
    steps = {each.key: each._replace(reread_at=_reread_at(each, before, reread, now)) for each in compared.steps}
    reread_days = {start.date() for _, start, _ in reread}
    days = [
        day._replace(reread_at=now if day.window_start.date() in reread_days else _earlier_reread(day, before))
        for day in compared.days
    ]
    return [steps.pop(day.key, day) for day in days] + [each for each in steps.values() if _differed(each)]


def by_metric(before: Comparisons) -> dict[str, list[Comparison]]:
    """Return the comparisons that an earlier check stored, by metric, in order of time."""
    return grouped((each.metric_id, each) for each in sorted(before.values(), key=lambda each: each.key))


def kept(compared: Compared, known: Iterable[Comparison]) -> list[Comparison]:
    """Return what to store of a metric that could not be counted: days that are known to differ stay as they are."""
    rows: list[Comparison] = []
    for day in compared.days:
        earlier = [each for each in known if day.window_start <= each.window_start < day.window_end]
        differing = [each for each in earlier if each.state is not CountState.UNCOUNTED]
        rows += differing if any(map(_differed, earlier)) else [day]
    return rows


def _earlier_reread(day: Comparison, before: Comparisons) -> datetime | None:
    earlier = before.get(day.key)
    return earlier.reread_at if earlier else None


def _reread_at(step: Comparison, before: Comparisons, reread: Collection[Key], now: datetime) -> datetime | None:
    """Return when a step was last read again. It says which two counts remained, so it is void when they change."""
    if step.key in reread:
        return now
    earlier = before.get(step.key)
    return earlier.reread_at if earlier is not None and step.equals_counts_of(earlier) else None


def newly_differing(compared: Compared, before: Comparisons, reread_counts: bool) -> list[Comparison]:
    """Return the days that differ in another way than an earlier check reported.

    With `reread_counts` a day counts as reported only if the earlier check also read it again.
    """
    new = {
        each.window_start.date()
        for each in compared.steps
        if not _was_reported(each, before.get(each.key), reread_counts)
    }
    return [day for day in compared.days if _differed(day) and day.window_start.date() in new]


def _was_reported(step: Comparison, before: Comparison | None, reread_counts: bool) -> bool:
    if not _differed(step):
        return True
    is_same = before is not None and step.equals_counts_of(before)
    return is_same and bool(not reread_counts or before is None or before.reread_at)


def sentences(new: Sequence[tuple[Comparison, str]], as_before: Sequence[Comparison]) -> list[str]:
    """Return what differs: new differences by day and name of the metric, the others as a sum.

    A long list is cut short.
    """
    lines = [f"{name}, {day.window_start:%Y-%m-%d}: {_both_counts([day])}" for day, name in new[:_MAX_SENTENCES]]
    if others := [day for day, _ in new[_MAX_SENTENCES:]]:
        more = "1 more day differs" if len(others) == 1 else f"{len(others):,} more days differ"
        lines.append(f"{more}: {_both_counts(others)} See the table reconciliation.")
    if as_before:
        lines.append(summary(as_before, " as in an earlier check"))
    return lines


def summary(days: Sequence[Comparison], remark: str = "") -> str:
    """Return a sentence with the number of days that differ and both counts of them."""
    number = "1 day differs" if len(days) == 1 else f"{len(days):,} days differ"
    return f"{number}{remark}: {_both_counts(days)}"


def _both_counts(days: Iterable[Comparison]) -> str:
    """Return both counts of some days, in words."""
    pairs = [(day.source_events or 0, day.warehouse_events) for day in days]
    source, warehouse = (sum(numbers) for numbers in zip(*pairs, strict=True))
    return f"the source counts {counted(source, 'event')}, the warehouse has {warehouse:,}."
