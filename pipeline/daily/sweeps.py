"""Sweeps in a daily run: whose turn it is, within a budget of requests. Values in, values out."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from klaviyo_pg.postgres.departures import Month
from klaviyo_pg.postgres.membership_sweeps import SWEEPS
from klaviyo_pg.windows import DAY, FULL_READ, NEVER, AnyWindow, OpenWindow, Window
from pipeline.chunks import Chunk, key_of
from pipeline.plan import NOTHING_BEGUN, Begun, Watermarks, is_due
from pipeline.streams.departures import PROFILE_SWEEP
from pipeline.streams.lists import LIST_MEMBERS

_IDS_PER_REQUEST = 100  # of a sweep of profiles or of a list
_OVERDUE = 2  # intervals since the last sweep of a list, after which no budget limits the next one


def profile_sweep_chunks(
    months: Iterable[Month], watermarks: Watermarks, as_of: datetime, sweep_every: timedelta, requests: int
) -> Iterator[Chunk]:
    """Look for deleted profiles: by the month of their creation, the month first that was swept longest ago.

    The months that would take more than `requests` requests are left to the next runs, but one is always swept.
    """
    swept = {month: watermarks.get(key_of(PROFILE_SWEEP.name, f"{month.start:%Y-%m}")) for month in months}
    due = [month for month, last in swept.items() if is_due(last, as_of, sweep_every)]
    is_first = True
    for month in sorted(due, key=lambda month: (swept[month] or NEVER, month.start)):
        requests -= month.people // _IDS_PER_REQUEST + 1
        if is_first or requests >= 0:
            yield Chunk(PROFILE_SWEEP.name, _window_of(month.start, as_of), f"{month.start:%Y-%m}")
        is_first = False


def _window_of(month: datetime, as_of: datetime) -> AnyWindow:
    """Return the window of a month, without an end if that is in the future."""
    end = (month + timedelta(days=31)).replace(day=1)
    return Window(month, end) if end <= as_of else OpenWindow(month)


class ListSweeps(NamedTuple):
    """The interval between sweeps of a list, the requests for them in a run, and the members that the last ones had.

    Segments are swept in the same way: `stream` reads the members, and `record` is the watermark of a sweep. With
    `in_full_only`, the source does not say when members joined, so nothing is read between sweeps; without sweeps,
    every run reads in full.

    Where lists are looked up by address, their addresses can take `addresses` requests besides. All lists that a run
    sweeps share most of them.
    """

    every: timedelta
    requests: int
    members: Mapping[str, int] = MappingProxyType({})
    stream: str = LIST_MEMBERS.name
    record: str = SWEEPS
    in_full_only: bool = False
    addresses: int = 0

    def pages(self, list_id: str) -> int:
        """Return the requests for the pages of a list."""
        return self.members.get(list_id, 0) // _IDS_PER_REQUEST + 1

    def round(self, list_ids: Collection[str]) -> int:
        """Return the requests for a sweep of each list."""
        return self.addresses + sum(map(self.pages, list_ids))

    def interval(self, list_ids: Collection[str]) -> timedelta:
        """Return how often the budget allows a sweep of each list, with a run a day.

        Unless the lists share addresses, each run sweeps at least one list, and those that are overdue.
        """
        if not self.every:
            return self.every
        if self.addresses:
            return max(self.every, timedelta(days=self.round(list_ids) / self.requests))
        runs = self._runs(list_ids)
        return max(self.every, min(runs * DAY, _OVERDUE * self.every)) if runs > 1 else self.every

    def _runs(self, list_ids: Collection[str]) -> int:
        """Return how many runs the budget needs for a sweep of each list. None is divided between runs."""
        runs = left = 0
        for pages in map(self.pages, list_ids):
            if pages > left:
                runs, left = runs + 1, self.requests
            left -= pages
        return runs


def membership_chunks(
    list_ids: Sequence[str],
    watermarks: Watermarks,
    overlap: timedelta,
    as_of: datetime,
    sweeps: ListSweeps,
    begun: Begun = NOTHING_BEGUN,
) -> Iterator[Chunk]:
    """Read people who have joined each list since it was last read; at first and when a sweep is due, all members.

    A sweep is a full read: only that can find out who is no longer on the list. A run that resumes sweeps the lists
    that it has begun to sweep, and no others. Segments are planned in the same way.
    """
    parts = {each: begun[key] for each in list_ids if (key := key_of(sweeps.stream, each)) in begun}
    begun_sweeps = [each for each in parts if str(FULL_READ) in parts[each] and sweeps.every]
    unfinished = [each for each in begun_sweeps if watermarks.get(key_of(sweeps.record, each)) != as_of]
    due = _swept_at_once if sweeps.addresses else _swept
    swept = frozenset(unfinished if parts else due(list_ids, watermarks, as_of, sweeps))
    for list_id in list_ids:
        watermark = watermarks.get(key_of(sweeps.stream, list_id))
        start = None if list_id in swept or watermark is None else watermark - overlap
        if sweeps.in_full_only and start is not None:
            if sweeps.every:
                continue
            start = None
        yield Chunk(sweeps.stream, OpenWindow(start), list_id, start, (list_id,))


def _swept(list_ids: Sequence[str], watermarks: Watermarks, as_of: datetime, sweeps: ListSweeps) -> Iterator[str]:
    """Yield the lists to sweep: of those that are due, the one first that was swept longest ago.

    Limited by the budget, and by the share of all members that the time since the last run is of the interval, so that
    lists that were first read on one day do not stay due on one day. The list that completes the share is swept as
    well, so that a round takes no longer than the interval. The first list is always swept, and so is one whose last
    sweep is twice the interval ago.
    """
    last = {each: watermarks.get(key_of(sweeps.record, each)) for each in list_ids}
    pages = {each: sweeps.pages(each) for each in list_ids}
    read_to = max((at for each in list_ids if (at := watermarks.get(key_of(sweeps.stream, each)))), default=NEVER)
    share = min(1.0, (as_of - read_to) / sweeps.every) if sweeps.every else 1.0
    wanted, planned = sum(pages.values()) * share, 0
    due = [each for each in list_ids if is_due(last[each], as_of, sweeps.every)]
    for list_id in sorted(due, key=lambda each: (last[each] or NEVER, each)):
        is_first, is_overdue = not planned, as_of - (last[list_id] or NEVER) > _OVERDUE * sweeps.every
        fits = planned < wanted and planned + pages[list_id] <= sweeps.requests
        if is_first or is_overdue or fits:
            yield list_id
        planned += pages[list_id]


def _swept_at_once(
    list_ids: Sequence[str], watermarks: Watermarks, as_of: datetime, sweeps: ListSweeps
) -> Iterator[str]:
    """Yield the lists to sweep if they share addresses: those that are due, and with them those that soon are.

    On different days, each address would be asked for on each of them. So the budget limits how often they are swept.
    """
    last = {each: watermarks.get(key_of(sweeps.record, each)) for each in list_ids}
    every = sweeps.interval(list_ids)
    if any(is_due(each, as_of, every) for each in last.values()):
        yield from (each for each in list_ids if is_due(last[each], as_of, every / 2))
