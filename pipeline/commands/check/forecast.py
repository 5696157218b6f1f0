"""The forecast of requests: what a first and a daily run need by stream, given the size of an account. Sends none.

docs/requests.md explains the formula.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from klaviyo_pg.postgres.excluded import Extent
from klaviyo_pg.settings import COUNTED_DAYS, Settings
from klaviyo_pg.windows import DAY, AnyWindow
from pipeline import plan
from pipeline.chunks import Chunk, key_of
from pipeline.reconcile.rotation import turn
from pipeline.streams import STREAMS
from pipeline.streams.departures import PROFILE_SWEEP
from pipeline.streams.events import EVENTS
from pipeline.streams.exclusions import EXCLUSIONS
from pipeline.streams.lists import LIST_MEMBERS
from pipeline.streams.on_request import MEMBER_PREDICTIONS
from pipeline.streams.people import PROFILES
from pipeline.streams.reports import LONGEST
from pipeline.streams.segments import SEGMENT_MEMBERS
from pipeline.streams.selection import Selection

KEY, COUNTS = "API key", "counts"
"""The names of the first request of each run, and of the requests for counts, which belong to no stream."""
ROWS_PER_PAGE = 100
"""People, members and excluded addresses on one page."""
_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Sizes(NamedTuple):
    """The size of an account, as far as it decides how many requests it takes to read it.

    `full_reads` are the requests of streams that are always read in full. `events` are the events of each metric by the
    hour (legacy: day) that begins then. `changed` are the profiles that changed within two days, and `joined` the
    members of each list who joined within the overlap; `segments` and `joined_segments` are those of the segments whose
    members are read. `contents` are the requests that templates, forms, images and reviews take in full, and at least.
    `months` is the number of months in which people were created.
    Counting a metric takes `count_requests`. What `unknown` streams take depends on more than the size.
    """

    full_reads: Mapping[str, int]
    metrics: Sequence[str] = ()
    uncounted: frozenset[str] = frozenset()
    events: Mapping[str, Mapping[datetime, int]] = _NOTHING
    events_per_page: int = 1000
    all_at_once: bool = True
    people: int = 0
    changed: int = 0
    months: int = 0
    members: Mapping[str, int] = _NOTHING
    joined: Mapping[str, int] = _NOTHING
    contents: Mapping[str, tuple[int, int]] = _NOTHING
    segments: Mapping[str, int] = _NOTHING
    joined_segments: Mapping[str, int] = _NOTHING
    excluded: Mapping[str | None, int] = _NOTHING
    first_created: datetime | None = None
    count_requests: int = 1
    unknown: frozenset[str] = frozenset()


class Forecast(NamedTuple):
    """The requests of a first run and of a daily run, and those of a sweep, which a daily run adds every `days`.

    None stands for a number that cannot be known before. A number that is the least one can turn out to be larger.
    """

    first: int | None
    daily: int | None
    sweep: int = 0
    days: float = 0.0
    is_first_least: bool = False
    is_daily_least: bool = False

    @property
    def average(self) -> float | None:
        """The requests of a daily run, with its share of the sweep."""
        return None if self.daily is None else self.daily + (self.sweep / self.days if self.days else 0)


def forecast(sizes: Sizes, settings: Settings, selected: Selection, as_of: datetime) -> dict[str, Forecast]:
    """Return the forecast of the API key, each selected stream and counts, in the order in which a run reads them.

    Streams without a formula read what is missing, which usually is nothing.
    """
    made = {
        EVENTS.name: _events(sizes, settings, as_of),
        PROFILES.name: _profiles(sizes),
        LIST_MEMBERS.name: _members(sizes.members, sizes.joined, settings),
        SEGMENT_MEMBERS.name: _members(sizes.segments, sizes.joined_segments, settings),
        EXCLUSIONS.name: _exclusions(sizes, as_of),
        **{name: _content(full, least) for name, (full, least) in sizes.contents.items()},
        MEMBER_PREDICTIONS.name: _content(pages(sizes.people), pages(sizes.changed)),
        PROFILE_SWEEP.name: _profile_sweep(sizes, settings),
        **{name: _reports(name, settings) for name in LONGEST},
        **{name: Forecast(number, number) for name, number in sizes.full_reads.items()},
        **dict.fromkeys(sizes.unknown, Forecast(None, None)),
    }
    names = [name for name in STREAMS if name in selected.streams]
    found = {
        KEY: Forecast(1, 1),
        **{name: made.get(name, Forecast(0, 0)) for name in names},
    }
    if EVENTS.name in names and settings.reconcile_days:
        found[COUNTS] = _counts(sizes, settings)
    return found


def pages(rows: float, size: int = ROWS_PER_PAGE) -> int:
    """Return the requests for so many rows: one, even if there are none."""
    return max(1, -(-int(rows) // size))


def _events(sizes: Sizes, settings: Settings, as_of: datetime) -> Forecast:
    """Add up the pages of each chunk that a run plans. Events that the source does not count make it a lower bound."""
    overlaps: dict[str | None, timedelta] = dict.fromkeys(sizes.uncounted, timedelta(days=settings.blind_lookback_days))

    def requests(last_run: datetime | None) -> int:
        first_sync, overlap = (timedelta(days=each) for each in (settings.first_sync_days, settings.lookback_days))
        watermarks = (
            {} if last_run is None else {key_of(EVENTS.name, each): last_run for each in (None, *sizes.metrics)}
        )
        horizon = plan.Horizon(as_of, overlap, first_sync, kept_since=settings.events_kept_since)
        chunks = plan.event_chunks(sizes.metrics, watermarks, horizon, sizes.all_at_once, overlaps)
        return sum(pages(_events_in(sizes, chunk), sizes.events_per_page) for chunk in chunks)

    return Forecast(
        requests(None),
        requests(as_of - DAY),
        is_first_least=bool(sizes.uncounted) or settings.first_sync_days > COUNTED_DAYS,
        is_daily_least=bool(sizes.uncounted) or settings.lookback_days + 1 > COUNTED_DAYS,
    )


def _events_in(sizes: Sizes, chunk: Chunk) -> int:
    metrics = sizes.metrics if chunk.subject is None else [chunk.subject]
    return sum(_within(sizes.events.get(metric_id, {}), chunk.window) for metric_id in metrics)


def _within(counts: Mapping[datetime, int], window: AnyWindow) -> int:
    start, end = window.seconds
    return sum(events for at, events in counts.items() if start <= at.timestamp() < end)


def _profiles(sizes: Sizes) -> Forecast:
    return Forecast(pages(sizes.people), pages(sizes.changed))


def _profile_sweep(sizes: Sizes, settings: Settings) -> Forecast:
    """Each month of creation is read by itself. The first run does not sweep: it has only just read everyone."""
    if not settings.profile_sweep_days:
        return Forecast(0, 0)
    return Forecast(0, 0, sizes.people // ROWS_PER_PAGE + sizes.months, settings.profile_sweep_days)


def _members(members: Mapping[str, int], joined: Mapping[str, int], settings: Settings) -> Forecast:
    """A first run reads all members. Daily runs read the new ones of each list, and all of a list that is swept."""
    first = sum(map(pages, members.values()))
    daily = sum(pages(joined.get(list_id, 0)) for list_id in members)
    days = settings.membership_sweep_days
    return Forecast(first, daily, first - daily if days else 0, days)


def _content(full: int, least: int) -> Forecast:
    """A first run reads all of it, and so does one run a week. The others read what has changed."""
    return Forecast(full, least, full - least, plan.CONTENT_EVERY / DAY)


def _exclusions(sizes: Sizes, as_of: datetime) -> Forecast:
    """Each reason is read by itself; where there are many addresses, each year of creation as well."""
    addresses = sum(sizes.excluded.values())

    def requests(stored: Extent) -> int:
        chunks = plan.exclusion_chunks(list(sizes.excluded), stored, as_of)
        return sum(_shared(sizes, reason, chunks) for reason in sizes.excluded)

    return Forecast(requests(Extent(0, None)), requests(Extent(addresses, sizes.first_created)))


def _shared(sizes: Sizes, reason: str | None, chunks: Iterable[Chunk]) -> int:
    """Return the requests for one reason. In several chunks, each has a page that is half full on average."""
    number, rows = sum(chunk.subject == reason for chunk in chunks), sizes.excluded[reason]
    return pages(rows) if number == 1 else max(number, pages(rows + (number - 1) * ROWS_PER_PAGE // 2))


def _counts(sizes: Sizes, settings: Settings) -> Forecast:
    """Every metric is counted. Beyond COUNT_REQUESTS, those without events have their turn."""
    counted = [each for each in sizes.metrics if each not in sizes.uncounted]
    active = {each for each in counted if sum(sizes.events.get(each, {}).values())}
    chosen = turn(counted, active, {}, settings.count_requests, sizes.count_requests)
    requests = len(chosen.metric_ids) * sizes.count_requests
    return Forecast(requests, requests)


def _reports(name: str, settings: Settings) -> Forecast:
    """Each day of a report is read once a day, as far as its budget goes; more than one page of a day is rare."""
    requests = min(settings.report_requests, -(-settings.report_days // LONGEST[name]))
    return Forecast(requests, requests)


def minutes(requests: Mapping[str, float], endpoints: Mapping[str, str], limits: Mapping[str, int | None]) -> float:
    """Return the minutes that requests by stream take at least: those of the endpoint that needs the longest.

    `endpoints` are those of the streams, and `limits` the requests per minute. Counts come after everything else.
    """
    by_endpoint: dict[str, float] = {}
    for name, number in requests.items():
        endpoint = endpoints.get(name, name)
        if limit := limits.get(endpoint):
            by_endpoint[endpoint] = by_endpoint.get(endpoint, 0.0) + number / limit
    last = by_endpoint.pop(endpoints.get(COUNTS, COUNTS), 0.0)
    return max(by_endpoint.values(), default=0.0) + last
