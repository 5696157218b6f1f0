"""Plans of what a run reads: streams, cut into chunks. Values in, values out."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from klaviyo_pg.postgres.excluded import Extent
from klaviyo_pg.postgres.lookups import DIGITS
from klaviyo_pg.windows import DAY, FULL_READ, AnyWindow, OpenWindow, Window, open_windows, parse
from pipeline.chunks import Chunk, key_of
from pipeline.streams import DIMENSIONS, content, on_request
from pipeline.streams.collections import FULL_READS
from pipeline.streams.events import EVENTS
from pipeline.streams.exclusions import EXCLUSIONS
from pipeline.streams.people import PEOPLE, PROFILES

_SHORTEST_WINDOW = timedelta(days=1)
_MOST_WINDOWS = 16  # of one stream: enough to read side by side, few enough for Prefect's server
_ONE_METRIC_WINDOW = timedelta(days=30)
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
NOTHING_BEGUN: Begun = MappingProxyType({})
"""For a run that does not resume."""


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
    reasons: Sequence[str | None], stored: Extent, as_of: datetime | None, begun: Begun = NOTHING_BEGUN
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


def profile_chunks(watermarks: Watermarks, begun: Begun = NOTHING_BEGUN) -> Iterator[Chunk]:
    """Read people whose profile has changed since they were last read; all of them at first.

    It is one chunk, which is divided if it turns out to be long.
    """
    watermark = watermarks.get(PROFILES.name)
    start = None if watermark is None else watermark - _CHANGE_OVERLAP
    windows = [parse(each) for each in begun.get(PROFILES.name, ())] or [OpenWindow(start)]
    for window in windows:
        yield Chunk(PROFILES.name, window, None, start, (None,), is_divisible=True)


def content_chunks(
    streams: Collection[str], watermarks: Watermarks, as_of: datetime, begun: Begun = NOTHING_BEGUN
) -> Iterator[Chunk]:
    """Read the templates, forms and so on that have changed since they were last read; every week, all of them.

    Only a read of all of them shows which ones Klaviyo no longer has.
    """
    by_change = (*content.STREAMS, *on_request.BY_CHANGE)
    for name in (stream.name for stream in by_change if stream.name in streams):
        watermark = watermarks.get(name)
        last = watermarks.get(key_of(FULL_READS, name))
        is_full = watermark is None or is_due(last, as_of, CONTENT_EVERY)
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


def is_due(last: datetime | None, as_of: datetime, every: timedelta) -> bool:
    """Return whether it is time again; a tenth early, since runs at one time of day differ by minutes."""
    return bool(every) and (last is None or as_of - last > every * 0.9)
