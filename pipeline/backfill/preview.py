"""The preview of a backfill: it asks the source for counts, and reads and writes nothing."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Protocol

from klaviyo_pg.postgres.backfill_ledger import BackfillChunk
from klaviyo_pg.windows import Window
from pipeline.backfill.chunking import Summary, summaries
from pipeline.backfill.counted import FAILURES
from pipeline.backfill.counting import counted, without_counting
from pipeline.backfill.plan import Gap, questions
from pipeline.outage import Outage
from pipeline.session import Session
from pipeline.streams.selection import selection_of
from transforms.routing import KnownMetric, destinations, selected


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
