"""The size of an account, found out with few requests: read in full where that is cheap, otherwise estimated.

The API does not say how many people there are. The rows on a page, and the time that they span, show how dense they
are; asked for in several places, that gives an estimate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from math import sqrt
from typing import Any, NamedTuple

from klaviyo_pg.errors import MissingScope, Refused
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import COUNTED_DAYS, Settings
from klaviyo_pg.windows import DAY, FULL_READ, AnyWindow, OpenWindow, Window, floor
from pipeline.commands.check.forecast import ROWS_PER_PAGE, Sizes
from pipeline.streams import content, on_request
from pipeline.streams.events import EVENTS, reads_at_once
from pipeline.streams.exclusions import EXCLUSIONS
from pipeline.streams.lists import LIST_MEMBERS
from pipeline.streams.people import PEOPLE, PROFILES
from pipeline.streams.reports import LONGEST
from pipeline.streams.segments import SEGMENT_MEMBERS
from pipeline.streams.selection import Selection, metrics_to_read, routed
from transforms.routing import KnownMetric

EARLIEST = datetime(2012, 1, 1, tzinfo=UTC)
"""The beginning of Klaviyo's first year."""
_REQUESTS_FOR_PEOPLE, _REQUESTS_FOR_CHANGES = 48, 8
_REQUESTS_FOR_A_LIST, _REQUESTS_FOR_A_REASON, _REQUESTS_FOR_TEMPLATES = 8, 12, 8
_FEW_REQUESTS = 12  # of a collection that is read on request: the size of a larger one remains unknown
TEMPLATES_PER_PAGE = 10

ReadPages = Callable[[AnyWindow], Iterator[Any]]
OnProgress = Callable[[str], None]
"""Takes a sentence about what is being asked for."""


class Known(NamedTuple):
    """The result of the checks of streams: the requests of full reads, the metrics, and the ids of lists.

    `segments` are the ids of those whose members are read, `coupons` of those whose codes are.
    """

    full_reads: Mapping[str, int]
    metrics: Sequence[KnownMetric]
    lists: Sequence[str]
    segments: Sequence[str] = ()
    coupons: Sequence[str] = ()


def measure(
    source: Source,
    settings: Settings,
    wanted: Selection,
    allowed: frozenset[str],
    known: Known,
    as_of: datetime,
    progress: OnProgress,
) -> Sizes:
    """Find out how large an account is, as far as `allowed` streams go."""
    dialect, tables = source.dialect, wanted.event_tables(source.dialect)
    chosen = metrics_to_read(routed(known.metrics, settings), settings, tables, wanted.reads_list_members)
    ids = [metric.id for metric in chosen]
    count_requests = -(-timedelta(days=settings.reconcile_days) // dialect.longest_count)
    sizes = Sizes(known.full_reads, ids, events_per_page=source.events_per_page, count_requests=count_requests)
    if EVENTS.name in allowed:
        all_at_once = reads_at_once(source, settings, tables)
        progress(f"Counting the events of {len(ids):,} metrics")
        sizes = _with_events(sizes, source, settings, as_of)._replace(all_at_once=all_at_once)
    if not dialect.reads_reports:
        sizes = sizes._replace(full_reads={**sizes.full_reads, **dict.fromkeys(LONGEST, 0)})
    if not dialect.lists_people:
        none = dict.fromkeys((PROFILES.name, on_request.MEMBER_PREDICTIONS.name), 0)
        sizes = sizes._replace(full_reads={**sizes.full_reads, **none})
    elif allowed & {PROFILES.name, on_request.MEMBER_PREDICTIONS.name}:
        progress("Estimating the number of profiles")
        sizes = _with_people(sizes, source, as_of)
    if dialect.looks_up_memberships:
        unknown = {LIST_MEMBERS.name, PEOPLE.name, *([SEGMENT_MEMBERS.name] if known.segments else ())}
        sizes = sizes._replace(unknown=frozenset(unknown))
    elif LIST_MEMBERS.name in allowed:
        progress(f"Estimating the number of members of {len(known.lists):,} lists")
        members, joined = _members(source.memberships, settings, known.lists, as_of)
        sizes = sizes._replace(members=members, joined=joined)
    if known.segments and SEGMENT_MEMBERS.name in allowed and not dialect.looks_up_memberships:
        progress(f"Estimating the number of members of {len(known.segments):,} segments")
        members, joined = _members(source.segment_members, settings, known.segments, as_of)
        sizes = sizes._replace(segments=members, joined_segments=joined)
    if allowed & {stream.name for stream in content.STREAMS}:
        progress("Counting templates, forms and images")
        sizes = sizes._replace(contents=_contents(source, allowed, as_of))
    if allowed & {stream.name for stream in on_request.STREAMS}:
        progress("Counting what is read on request")
        sizes = _with_records(sizes, source, allowed, known.coupons)
    if EXCLUSIONS.name in allowed:
        progress("Estimating the number of excluded addresses")
        sizes = _with_exclusions(sizes, source, as_of)
    return sizes


def _with_events(sizes: Sizes, source: Source, settings: Settings, as_of: datetime) -> Sizes:
    days = min(COUNTED_DAYS, max(settings.first_sync_days, settings.blind_lookback_days + 1))
    window = Window(floor(as_of - timedelta(days=days), DAY), floor(as_of, DAY) + DAY)
    events: dict[str, dict[datetime, int]] = {}
    for metric_id in sizes.metrics:
        try:
            events[metric_id] = {each.start.astimezone(UTC): each.events for each in source.counts(metric_id, window)}
        except (MissingScope, Refused):
            continue
    return sizes._replace(events=events, uncounted=frozenset(sizes.metrics) - events.keys())


def _with_people(sizes: Sizes, source: Source, as_of: datetime) -> Sizes:
    page = next(source.profile_ids(FULL_READ), None)
    first = min((row.created for row in page.rows if row.created), default=None) if page else None
    if first is None:
        return sizes
    return sizes._replace(
        people=estimated(source.profile_ids, first, as_of, _REQUESTS_FOR_PEOPLE),
        changed=estimated(source.profiles, as_of - 2 * DAY, as_of, _REQUESTS_FOR_CHANGES),
        months=(as_of.year - first.year) * 12 + as_of.month - first.month + 1,
        first_created=first,
    )


def _members(
    read: Callable[[str, AnyWindow], Iterator[Any]], settings: Settings, ids: Sequence[str], as_of: datetime
) -> tuple[dict[str, int], dict[str, int]]:
    """Estimate the members of each list or segment, and those who joined within the overlap."""
    members, joined = dict[str, int](), dict[str, int]()
    overlap = timedelta(days=settings.blind_lookback_days) + DAY
    for list_id in ids:
        pages = partial(read, list_id)
        try:
            members[list_id] = estimated(pages, EARLIEST, as_of, _REQUESTS_FOR_A_LIST)
            joined[list_id] = estimated(pages, as_of - overlap, as_of, _REQUESTS_FOR_CHANGES)
        except Refused:  # deleted in the meantime
            members.pop(list_id, None)
    return members, joined


def _contents(source: Source, allowed: frozenset[str], as_of: datetime) -> dict[str, tuple[int, int]]:
    """Count the requests for all of it and for nothing. The number of templates, which are large, is estimated."""
    found = {}
    for stream in content.STREAMS:
        if stream.name in allowed:
            least = _requests(source, stream.probe(source, OpenWindow(as_of), None))
            full = _all_templates(source, as_of) if stream is content.TEMPLATES and least else None
            found[stream.name] = full or _requests(source, stream.probe(source, FULL_READ, None)), least
    return found


def _all_templates(source: Source, as_of: datetime) -> int:
    rows = estimated(source.templates, EARLIEST, as_of, _REQUESTS_FOR_TEMPLATES, TEMPLATES_PER_PAGE)
    return max(1, -(-rows // TEMPLATES_PER_PAGE))


def _with_records(sizes: Sizes, source: Source, allowed: frozenset[str], coupons: Sequence[str]) -> Sizes:
    """Count the requests for each collection that is read on request, if they are few."""
    subjects = {on_request.COUPON_CODES: coupons}
    found: dict[str, int | None] = {}
    for stream in (*on_request.LARGE, on_request.REVIEWS):
        if stream.name in allowed:
            wanted = subjects.get(stream, [None])
            pages = chain.from_iterable(source.records(stream.name, FULL_READ, each) for each in wanted)
            found[stream.name] = _few_requests(source, pages)
    known = {name: number for name, number in found.items() if number is not None}
    reviews = known.pop(on_request.REVIEWS.name, None)
    contents = {} if reviews is None else {on_request.REVIEWS.name: (reviews, min(1, reviews))}
    return sizes._replace(
        full_reads={**sizes.full_reads, **known},
        contents={**sizes.contents, **contents},
        unknown=sizes.unknown | {name for name, number in found.items() if number is None},
    )


def _few_requests(source: Source, pages: Iterator[Any]) -> int | None:
    """Read pages, and return how many requests that took; None if they are not few."""
    before = source.traffic
    for _ in pages:
        if source.traffic.since(before).requests > _FEW_REQUESTS:
            return None
    return source.traffic.since(before).requests


def _requests(source: Source, pages: Iterator[Any]) -> int:
    """Read pages, and return how many requests that took."""
    before = source.traffic
    for _ in pages:
        pass
    return source.traffic.since(before).requests


def _with_exclusions(sizes: Sizes, source: Source, as_of: datetime) -> Sizes:
    if None in source.dialect.exclusion_reasons:  # all at once, on large pages
        requests = _requests(source, source.exclusions())
        return sizes._replace(full_reads={**sizes.full_reads, EXCLUSIONS.name: requests})
    return sizes._replace(
        excluded={
            reason: estimated(partial(source.exclusions, reason), EARLIEST, as_of, _REQUESTS_FOR_A_REASON)
            for reason in source.dialect.exclusion_reasons
        }
    )


@dataclass
class _Sample:
    """The first page of a window: so many rows up to a time, at which `is_whole` windows end."""

    start: datetime
    end: datetime
    rows: int
    reached: datetime
    is_whole: bool

    @property
    def density(self) -> float:
        """Rows per second."""
        return self.rows / max(1.0, (self.reached - self.start).total_seconds())

    def rest(self, following: float) -> float:
        """Estimate the rows after the page, where the density is `following` at the end of the window."""
        if self.is_whole:
            return 0.0
        return sqrt(self.density * following) * max(0.0, (self.end - self.reached).total_seconds())


def estimated(pages: ReadPages, start: datetime, end: datetime, requests: int, per_page: int = ROWS_PER_PAGE) -> int:
    """Estimate the rows of a window whose pages are in ascending order of time, with at most so many requests.

    The window is halved where most rows seem to be. What fits on one page is exact.
    """
    samples = [_sample(pages, start, end, per_page)]
    if not samples[0].is_whole:  # its first row can be long after the start, so its density says nothing
        samples.append(_sample(pages, samples[0].reached, end, per_page))
        samples[0].end = samples[0].reached
    while len(samples) < requests:
        rests = _rests(samples)
        number = max(range(len(samples)), key=rests.__getitem__)
        if rests[number] < per_page:
            break
        split = samples[number]
        middle = split.reached + (split.end - split.reached) / 2
        samples.insert(number + 1, _sample(pages, middle, split.end, per_page))
        split.end = middle
    return sum(sample.rows for sample in samples) + round(sum(_rests(samples)))


def _rests(samples: Sequence[_Sample]) -> list[float]:
    densities = [*(sample.density for sample in samples[1:]), samples[-1].density]
    return [sample.rest(following) for sample, following in zip(samples, densities, strict=True)]


def _sample(pages: ReadPages, start: datetime, end: datetime, per_page: int) -> _Sample:
    page = next(pages(Window(start, end)), None)
    rows = len(page.rows) if page else 0
    is_whole = page is None or rows < per_page or page.reached is None
    return _Sample(start, end, rows, end if page is None or page.reached is None else page.reached, is_whole)
