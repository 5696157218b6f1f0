"""The plan of a daily run: streams, cut into chunks. Values in, values out."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from klaviyo_pg.postgres.departures import Month
from klaviyo_pg.postgres.excluded import Extent
from klaviyo_pg.postgres.lookups import DIGITS
from klaviyo_pg.postgres.membership_sweeps import SWEEPS
from klaviyo_pg.windows import DAY, FULL_READ, NEVER, AnyWindow, OpenWindow, Window, midnight, open_windows, parse
from pipeline.chunks import Chunk, key_of
from pipeline.streams import DIMENSIONS, content, on_request
from pipeline.streams.collections import FULL_READS
from pipeline.streams.departures import PROFILE_SWEEP
from pipeline.streams.events import EVENTS
from pipeline.streams.exclusions import EXCLUSIONS
from pipeline.streams.lists import LIST_MEMBERS
from pipeline.streams.people import PEOPLE, PROFILES

_SHORTEST_WINDOW = timedelta(days=1)
_MOST_WINDOWS = 16  # of one stream: enough to read side by side, few enough for Prefect's server
_ONE_METRIC_WINDOW = timedelta(days=30)
_IDS_PER_REQUEST = 100  # of a sweep of profiles or of a list
_OVERDUE = 2  # intervals since the last sweep of a list, after which no budget limits the next one
_PEOPLE_PER_READER = 2_000  # 20 requests
MOST_WAITING = _MOST_WINDOWS * _PEOPLE_PER_READER
"""The number of incomplete people from which on more of them are no more readers."""
MANY_EXCLUSIONS = 10_000
"""Addresses from which on they are also read by year: below, a request for each year would be more than it saves."""
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # before any profile was created
_CHANGE_OVERLAP = timedelta(days=1)  # `updated` is the API's own clock, so little can come late
CONTENT_EVERY = timedelta(days=7)
"""The interval between full reads of templates, forms and images."""
UNLISTED_FOR = timedelta(days=30)
"""The age up to which an event of a metric that the API does not list makes runs read all events further back."""
_NO_OVERLAPS: Mapping[str | None, timedelta] = MappingProxyType({})

Watermarks = Mapping[str, datetime]
"""The name of a stream in the ledger -> up to when it has been read without a gap."""
Begun = Mapping[str, Sequence[str]]
"""The name of a stream in the ledger -> the windows of it that the run already has, because it resumes."""
_NOTHING_BEGUN: Begun = MappingProxyType({})


def dimension_chunks(streams: frozenset[str]) -> list[Chunk]:
    """Return the full reads among these streams."""
    return [Chunk(stream.name, marks=(None,)) for stream in DIMENSIONS if stream.name in streams]


def unread_dimension_chunks(
    watermarks: Watermarks,
    always: Collection[str],
    exclusion_reasons: Sequence[str | None],
    streams: frozenset[str],
) -> list[Chunk]:
    """Return the full reads of the streams `always`, and those among `streams` that were never read completely.

    That can be dimensions and exclusions.
    """
    unread = streams - watermarks.keys()
    exclusions = exclusion_chunks(exclusion_reasons, Extent(0, None), None) if EXCLUSIONS.name in unread else []
    return [*dimension_chunks(unread | frozenset(always)), *exclusions]


def exclusion_chunks(
    reasons: Sequence[str | None], stored: Extent, as_of: datetime | None, begun: Begun = _NOTHING_BEGUN
) -> list[Chunk]:
    """Read all exclusions, by reason; where many are stored, also by the year in which their profile was created.

    A run that resumes keeps the windows that it has, as they are parts of one full read.
    """
    years: list[AnyWindow] = [FULL_READ] if as_of is None else list(_years(stored, as_of))

    def windows(reason: str | None) -> list[AnyWindow]:
        parts = begun.get(key_of(EXCLUSIONS.name, reason), ())
        return [*map(parse, parts)] or (years if reason else [FULL_READ])

    return [Chunk(EXCLUSIONS.name, window, reason) for reason in reasons for window in windows(reason)]


def _years(stored: Extent, as_of: datetime) -> Iterator[AnyWindow]:
    if stored.addresses < MANY_EXCLUSIONS or stored.first_created is None:
        yield FULL_READ
        return
    starts = [datetime(year, 1, 1, tzinfo=UTC) for year in range(stored.first_created.year + 1, as_of.year + 1)]
    yield from (Window(begin, end) for begin, end in pairwise([_EARLIEST, *starts]))
    yield OpenWindow(starts[-1] if starts else None)


class Horizon(NamedTuple):
    """The limits of how far back to read: `as_of` is the present, `since` the start that the user asked for.

    Events before `kept_since` are not kept.
    """

    as_of: datetime
    overlap: timedelta
    first_sync: timedelta
    since: datetime | None = None
    kept_since: datetime = datetime.min.replace(tzinfo=UTC)

    def start(self, watermark: datetime | None) -> datetime:
        """Return where to begin with events of a metric that has been read up to `watermark`."""
        if self.since is not None:
            return max(self.since, self.kept_since)
        return self._first if watermark is None else max(watermark - self.overlap, min(watermark, self.kept_since))

    def leaves_no_gap(self, watermark: datetime | None) -> bool:
        """Return whether everything is read that would be read without `since`, so that the watermark may advance."""
        return self.start(watermark) <= (self._first if watermark is None else watermark)

    @property
    def _first(self) -> datetime:
        """The beginning of the events to read of a metric that has never been read."""
        return max(self.as_of - self.first_sync, self.kept_since)


def newly_read(
    created: Mapping[str, datetime | None],
    metric_ids: Collection[str],
    loaded: Mapping[str, Sequence[Window]],
    horizon: Horizon,
) -> list[str]:
    """Return the metrics that are read for the first time, and later than they began, while others go back a day more.

    `created` has the times at which the metrics of the account were created, and `loaded` what has been read of each.
    """
    start = horizon.start(None)
    begun = {each: min(window.start for window in windows) for each, windows in loaded.items() if windows}
    if not any(begun[each] < start - DAY for each in begun.keys() & created.keys()):
        return []
    unread = [each for each in metric_ids if each not in begun]
    return [each for each in unread if (at := created[each]) is None or at < start]


def event_chunks(
    metric_ids: Iterable[str],
    watermarks: Watermarks,
    horizon: Horizon,
    all_at_once: bool,
    overlaps: Mapping[str | None, timedelta] = _NO_OVERLAPS,
) -> Iterator[Chunk]:
    """Read events from each metric's watermark on; `overlaps` are those of metrics that need another one.

    None among them stands for the metrics that the API does not list.

    With `all_at_once`, most metrics are read without naming one: fewer requests, and events of unlisted metrics are
    included. This read has its own watermark, since nothing else brings those events: it begins there or where most
    metrics begin, whichever is earlier. Each metric that begins before it has separate chunks.
    """

    def start_of(metric_id: str | None, watermark: datetime | None) -> datetime:
        return horizon._replace(overlap=overlaps.get(metric_id, horizon.overlap)).start(watermark)

    read_to = {each: watermarks.get(key_of(EVENTS.name, each)) for each in metric_ids}
    starts = {each: start_of(each, watermark) for each, watermark in read_to.items()}
    marks = {each: (each,) if horizon.leaves_no_gap(watermark) else () for each, watermark in read_to.items()}
    shared: list[str] = []
    if all_at_once and starts:
        read_at_once = watermarks.get(EVENTS.name)
        common, _ = Counter(starts.values()).most_common(1)[0]
        start = min(common, start_of(None, read_at_once))
        shared = [each for each in starts if starts[each] >= start]
        all_marks: list[str | None] = [None] if horizon.leaves_no_gap(read_at_once) else []
        all_marks += [mark for each in shared for mark in marks[each]]
        longest = max(_SHORTEST_WINDOW, (horizon.as_of - start) / _MOST_WINDOWS)
        for window in open_windows(start, horizon.as_of, longest):
            yield Chunk(EVENTS.name, window, None, start, tuple(all_marks))
    for each in sorted(starts.keys() - set(shared)):
        for window in open_windows(starts[each], horizon.as_of, _ONE_METRIC_WINDOW):
            yield Chunk(EVENTS.name, window, each, starts[each], marks[each])


def profile_chunks(watermarks: Watermarks, begun: Begun = _NOTHING_BEGUN) -> Iterator[Chunk]:
    """Read people whose profile has changed since they were last read; all of them at first.

    It is one chunk, which is divided if it turns out to be long.
    """
    watermark = watermarks.get(PROFILES.name)
    start = None if watermark is None else watermark - _CHANGE_OVERLAP
    windows = [parse(each) for each in begun.get(PROFILES.name, ())] or [OpenWindow(start)]
    for window in windows:
        yield Chunk(PROFILES.name, window, None, start, (None,), is_divisible=True)


def content_chunks(
    streams: Collection[str], watermarks: Watermarks, as_of: datetime, begun: Begun = _NOTHING_BEGUN
) -> Iterator[Chunk]:
    """Read the templates, forms and so on that have changed since they were last read; every week, all of them.

    Only a read of all of them shows which ones Klaviyo no longer has.
    """
    by_change = (*content.STREAMS, *on_request.BY_CHANGE)
    for name in (stream.name for stream in by_change if stream.name in streams):
        watermark = watermarks.get(name)
        last = watermarks.get(key_of(FULL_READS, name))
        is_full = watermark is None or _is_due(last, as_of, CONTENT_EVERY)
        start = None if watermark is None else watermark - _CHANGE_OVERLAP
        planned: AnyWindow = FULL_READ if is_full else OpenWindow(start)
        for window in [parse(each) for each in begun.get(name, ())] or [planned]:
            yield Chunk(name, window, None, None if is_full else start, (None,))


def large_chunks(streams: Collection[str], coupon_ids: Iterable[str]) -> Iterator[Chunk]:
    """Read the large collections that TABLES asks for, each in full; codes by coupon."""
    for stream in on_request.LARGE:
        if stream.name in streams:
            subjects = coupon_ids if stream is on_request.COUPON_CODES else [None]
            yield from (Chunk(stream.name, FULL_READ, each, None, (each,)) for each in subjects)


def people_chunks(waiting: int) -> Iterator[Chunk]:
    """Read the incomplete people, of which at least so many are waiting. Several readers share many of them."""
    readers = 1
    while readers < _MOST_WINDOWS and waiting > readers * _PEOPLE_PER_READER:
        readers *= 2
    share = len(DIGITS) // readers
    for at in range(0, len(DIGITS), share):
        yield Chunk(PEOPLE.name, subject=None if readers == 1 else DIGITS[at : at + share])


def sweep_chunks(
    months: Iterable[Month], watermarks: Watermarks, as_of: datetime, sweep_every: timedelta, requests: int
) -> Iterator[Chunk]:
    """Look for deleted profiles: by the month of their creation, the month first that was swept longest ago.

    The months that would take more than so many requests are left to the next runs, but one is always swept.
    """
    swept = {month: watermarks.get(key_of(PROFILE_SWEEP.name, f"{month.start:%Y-%m}")) for month in months}
    due = [month for month, last in swept.items() if _is_due(last, as_of, sweep_every)]
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

    Where lists are looked up by address, their addresses can take so many requests besides. All lists that a run sweeps
    share most of them.
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
    begun: Begun = _NOTHING_BEGUN,
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
    due = [each for each in list_ids if _is_due(last[each], as_of, sweeps.every)]
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
    if any(_is_due(each, as_of, every) for each in last.values()):
        yield from (each for each in list_ids if _is_due(last[each], as_of, every / 2))


class ReportPlan(NamedTuple):
    """A report to read: the metric that it counts conversions by, its days, and when each was last read.

    One request reads up to `longest` consecutive days.
    """

    stream: str
    metric_id: str
    days: Collection[date]
    read: Mapping[date, datetime]
    longest: int


def report_chunks(report: ReportPlan, as_of: datetime, requests: int) -> list[Chunk]:
    """Read the days of a report that were not read today: new ones first, then those that were read longest ago.

    So many requests are sent in a day, whatever the number of runs. The next ones read the remaining days. The
    watermark advances once every day has been read, however long ago.
    """
    due = [day for day in report.days if _is_due(report.read.get(day), as_of, DAY)]
    today = Counter(at for at in report.read.values() if not _is_due(at, as_of, DAY))
    left = max(0, requests - sum(-(-days // report.longest) for days in today.values()))
    blocks = list(_blocks(due, report.longest))
    blocks.sort(key=lambda block: (min(report.read.get(day, NEVER) for day in block), -block[-1].toordinal()))
    unread = {day for block in blocks[left:] for day in block} - report.read.keys()
    marks = () if unread else (None,)
    return [Chunk(report.stream, _whole_days(block), report.metric_id, None, marks) for block in blocks[:left]]


def _blocks(days: Collection[date], longest: int) -> Iterator[list[date]]:
    """Put consecutive days together, in blocks of at most so many."""
    block: list[date] = []
    for day in sorted(days):
        if block and (len(block) == longest or day - block[-1] > DAY):
            yield block
            block = []
        block.append(day)
    if block:
        yield block


def _whole_days(block: Sequence[date]) -> Window:
    return Window(midnight(block[0]), midnight(block[-1]) + DAY)


def _is_due(last: datetime | None, as_of: datetime, every: timedelta) -> bool:
    """Return whether it is time again; a tenth early, since runs at one time of day differ by minutes."""
    return bool(every) and (last is None or as_of - last > every * 0.9)
