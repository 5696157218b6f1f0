"""The preview of a backfill: it asks the source for counts, and reads no events and writes nothing."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple, Protocol

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.postgres.backfill_ledger import BackfillChunk
from klaviyo_pg.windows import Window
from pipeline.backfill.chunking import Summary, summaries
from pipeline.backfill.counted import FAILURES
from pipeline.backfill.counting import counted, without_counting
from pipeline.backfill.duration import Facts
from pipeline.backfill.plan import Gap, questions
from pipeline.outage import Outage
from pipeline.plan import Watermarks, unread_dimension_chunks
from pipeline.session import Session
from pipeline.sizes import EARLIEST, estimated
from pipeline.streams.dimensions import LISTS, METRICS
from pipeline.streams.people import PEOPLE, PROFILES
from pipeline.streams.selection import selection_of
from transforms.routing import KnownMetric, destinations, selected

_REQUESTS_FOR_PEOPLE = 12


class Stored(NamedTuple):
    """The contents of the warehouse, as far as a backfill need not read them again: watermarks, and loaded events."""

    watermarks: Watermarks = MappingProxyType({})
    loaded: int = 0


class Watch(Protocol):
    """Passes answers on, and may show how many of `total` have arrived."""

    def __call__(self, answers: Iterable[list[BackfillChunk]], /, *, total: int) -> Iterable[list[BackfillChunk]]: ...


def preview(session: Session, window: Window, watch: Watch) -> list[tuple[str, Summary]]:
    """Return what a backfill of the window would read, by name of metric. Asks the source, and writes nothing."""
    settings, outage = session.settings, Outage(FAILURES)
    metrics = [KnownMetric(row.id, row.name) for page in session.first_source().metrics() for row in page.rows]
    wanted = selected(metrics, settings.metrics)
    tables = selection_of(settings).event_tables(session.first_source().lists_people)
    routes = destinations(metrics, {}, settings.destinations)
    names = {
        metric.id: metric.name or metric.id
        for metric in (metrics if wanted is None else wanted)
        if tables is None or routes[metric.id] in tables
    }

    def begin(metric_id: str) -> list[BackfillChunk]:
        with session.source() as source:
            return without_counting(source, metric_id, window, outage)

    def ask(question: Gap) -> list[BackfillChunk]:
        with session.source() as source:
            return list(counted(source, *question, settings.chunk_events, outage).chunks)

    with ThreadPoolExecutor(session.worker_count()) as pool:
        begun = list(pool.map(begin, names))
        asked = questions(((each, window) for each in names), begun)
        found = summaries(chain(chain(*begun), *watch(pool.map(ask, asked), total=len(asked))))
    return [(names[each.metric_id], each) for each in found]


def requests_of(summary: Summary, events_per_page: int) -> int:
    """Return the requests that the events of a metric take."""
    chunks = summary.chunks - summary.done  # chunks without events are done already
    return -(-summary.expected // events_per_page) + chunks


def facts(session: Session, found: Sequence[Summary], stored: Stored, counting_seconds: float) -> Facts:
    """Return what the forecast of a backfill rests on, with a few requests for the number of people."""
    settings, sent = session.settings, session.traffic
    answer_seconds = sent.seconds / max(1, sent.requests)
    expected = sum(each.expected for each in found)
    left = max(0, expected - stored.loaded)
    with session.source() as source:
        requests = sum(requests_of(each, source.events_per_page) for each in found)
        limit = source.event_requests_per_minute
        reasons = source.exclusion_reasons
    streams = selection_of(settings).streams
    definitions = unread_dimension_chunks(stored.watermarks, {METRICS.name, LISTS.name}, reasons, streams)
    return Facts(
        events=left,
        event_requests=round(requests * left / expected) if expected else 0,
        counting_seconds=counting_seconds,
        answer_seconds=answer_seconds,
        readers=session.worker_count(answer_seconds, limit),
        events_limit=None if limit is None else int(limit * settings.rate_limit_share),
        definitions=len(definitions),
        people=_people(session, PROFILES.name not in stored.watermarks and PEOPLE.name in streams and left > 0),
    )


def _people(session: Session, are_missing: bool) -> int | None:
    """Estimate how many profiles a backfill reads; None if the API does not say. It has to if no daily run did."""
    with session.source() as source:
        if not (are_missing and source.lists_people):
            return 0
        try:
            return estimated(source.profile_ids, EARLIEST, session.now(), _REQUESTS_FOR_PEOPLE)
        except KlaviyoPgError:
            return None
