"""The preview of a backfill: it asks the source for counts, and reads no events and writes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from math import ceil
from types import MappingProxyType
from typing import NamedTuple, Protocol

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from pipeline.backfill.checked_counts import FAILURES
from pipeline.backfill.chunking import Summary, gaps, summaries
from pipeline.backfill.counting import chunks_by_count, chunks_by_first_event
from pipeline.backfill.plan import Gap, questions
from pipeline.commands.check.sizes import EARLIEST, estimated
from pipeline.commands.duration import Facts
from pipeline.outage import Outage
from pipeline.plan import Watermarks, unread_dimension_chunks
from pipeline.session import Session
from pipeline.streams.dimensions import LISTS, METRICS
from pipeline.streams.people import PEOPLE, PROFILES
from pipeline.streams.selection import metrics_to_read, routed, selection_of
from transforms.routing import KnownMetric

_REQUESTS_FOR_PEOPLE = 12


class Stored(NamedTuple):
    """The contents of the warehouse that a backfill does not read again.

    They are watermarks, and by metric the loaded events that the source counted, and the chunks that are done.
    """

    watermarks: Watermarks = MappingProxyType({})
    loaded: Mapping[str, int] = MappingProxyType({})
    done: Mapping[str, Sequence[BackfillChunk]] = MappingProxyType({})

    def covers(self, found: Summary) -> int:
        """Return how many of the events that a metric has are loaded."""
        return min(found.expected, self.loaded.get(found.metric_id, 0))

    def lacks(self, chunk: BackfillChunk) -> bool:
        """Return whether a chunk has not been read, at least in part."""
        return any(gaps(chunk.window, self.done.get(chunk.metric_id, ())))


class Preview(NamedTuple):
    """The reading that a backfill has to do, by name of metric.

    `answer_seconds` is how long a small answer took while nothing else was asked for. `uncounted_chunks` are those
    whose events the source cannot count.
    """

    metrics: Sequence[tuple[str, Summary]]
    answer_seconds: float
    uncounted_chunks: Sequence[BackfillChunk] = ()

    @property
    def summaries(self) -> list[Summary]:
        """The summaries without the names."""
        return [summary for _, summary in self.metrics]


class Watch(Protocol):
    """Passes answers on, and may show how many of `total` have arrived."""

    def __call__(self, answers: Iterable[list[BackfillChunk]], /, *, total: int) -> Iterable[list[BackfillChunk]]: ...


def preview(session: Session, window: Window, watch: Watch) -> Preview:
    """Return what a backfill of the window would read. Asks the source, and writes nothing."""
    settings, outage, first = session.settings, Outage(FAILURES), session.first_source()
    metrics = [KnownMetric(row.id, row.name) for page in first.metrics() for row in page.rows]
    answer_seconds = first.traffic.seconds_per_request
    tables = selection_of(settings).event_tables(first.dialect)
    chosen = metrics_to_read(routed(metrics, settings), settings, tables)
    names = {metric.id: metric.name or metric.id for metric in chosen}

    def begin(metric_id: str) -> list[BackfillChunk]:
        with session.source() as source:
            return chunks_by_first_event(source, metric_id, window, outage)

    def ask(question: Gap) -> list[BackfillChunk]:
        with session.source() as source:
            return list(chunks_by_count(source, *question, settings.chunk_events, outage).chunks)

    with ThreadPoolExecutor(session.worker_count()) as pool:
        begun = list(pool.map(begin, names))
        asked = questions(((each, window) for each in names), begun)
        chunks = list(chain(chain(*begun), *watch(pool.map(ask, asked), total=len(asked))))
    found = [(names[each.metric_id], each) for each in summaries(chunks)]
    return Preview(found, answer_seconds, [chunk for chunk in chunks if chunk.is_uncounted])


def requests_of(summary: Summary, events_per_page: int) -> int:
    """Return the requests that the events of a metric take, at least one for each chunk."""
    chunks = summary.chunks - summary.done  # chunks without events are done already
    return -(-summary.expected // events_per_page) + chunks


def facts(session: Session, found: Preview, stored: Stored, counting_seconds: float) -> Facts:
    """Return what the forecast of a backfill rests on, with a few requests for the number of people."""
    settings, answer_seconds = session.settings, session.traffic.seconds_per_request
    expected = sum(each.expected for each in found.summaries)
    left = sum(each.expected - stored.covers(each) for each in found.summaries)
    uncounted_requests = sum(map(stored.lacks, found.uncounted_chunks))
    with session.source() as source:
        all_requests = sum(requests_of(each, source.events_per_page) for each in found.summaries)
    counted_requests = all_requests - len(found.uncounted_chunks)
    dialect, streams, own = session.dialect, selection_of(settings).streams, {METRICS.name, LISTS.name}
    definitions = unread_dimension_chunks(stored.watermarks, own, dialect.exclusion_reasons, streams)
    return Facts(
        events=left,
        event_requests=uncounted_requests + (ceil(counted_requests * left / expected) if expected else 0),
        counting_seconds=counting_seconds,
        answer_seconds=answer_seconds,
        readers=session.worker_count(found.answer_seconds, dialect.event_requests_per_minute),
        events_limit=_share(settings, dialect.event_requests_per_minute),
        people_limit=_share(settings, dialect.people_requests_per_minute),
        definitions=len(definitions),
        people=_people(
            session, PROFILES.name not in stored.watermarks and PEOPLE.name in streams and left + uncounted_requests > 0
        ),
        are_all_counted=not uncounted_requests,
    )


def _share(settings: Settings, limit: int | None) -> int | None:
    return None if limit is None else int(limit * settings.rate_limit_share)


def _people(session: Session, are_missing: bool) -> int | None:
    """Estimate how many profiles a backfill reads; None if the API does not say. It has to if no daily run did."""
    if not (are_missing and session.dialect.lists_people):
        return 0
    with session.source() as source:
        try:
            return estimated(source.profile_ids, EARLIEST, session.now(), _REQUESTS_FOR_PEOPLE)
        except KlaviyoPgError:
            return None
