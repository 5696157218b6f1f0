"""What history there is to read: planned from what the source counts, noted in the ledger."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Protocol

from prefect import task
from prefect.cache_policies import NO_CACHE
from psycopg import Connection

from klaviyo_pg.errors import (
    BadSettings,
    KlaviyoPgError,
    MissingScope,
    Refused,
    Stopped,
    Throttled,
    Unavailable,
    UserError,
)
from klaviyo_pg.history import HistoryChunk, Summary, cut, gaps, summaries, uncounted, whole, years
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import history, ledger
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window, floor
from tasks import edges, stopping
from tasks.run import Run, patiently
from tasks.spool import open_spool
from transforms.routing import KnownMetric, selected

Stretch = tuple[str, Window]
"""A metric, and a stretch of its time."""
_DAY = timedelta(days=1)
_UNCOUNTED_WINDOW = timedelta(days=30)
_AWAY = 2  # metrics whose first events did not come


def history_window(now: datetime, start: datetime, end: datetime | None) -> Window:
    """Whole days in UTC, up to the last midnight at most: today and the future belong to the daily sync."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = today if end is None else min(today, _next_midnight(min(end, now)))
    if first >= last:
        raise BadSettings(f"There is no whole day from {first:%Y-%m-%d} to {last:%Y-%m-%d}: give an earlier --start.")
    return Window(first, last)


class Watched(Protocol):
    """Passes answers on, and may show how many of the total have come."""

    def __call__(self, answers: Iterable[list[HistoryChunk]], /, *, total: int) -> Iterable[list[HistoryChunk]]: ...


def preview(settings: Settings, window: Window, watched: Watched) -> list[tuple[str, Summary]]:
    """What a backfill of the window would read, metric by metric with its name; asks the source, and writes nothing."""
    known = [KnownMetric(row.id, row.name) for page in edges.source(settings).metrics() for row in page.rows]
    wanted = selected(known, settings.metrics)
    names = {metric.id: metric.name or metric.id for metric in (known if wanted is None else wanted)}
    size = settings.chunk_events

    away: list[KlaviyoPgError] = []

    def begin(metric_id: str) -> list[HistoryChunk]:
        return _without_counting(edges.source(settings), metric_id, window, away)

    def ask(question: Stretch) -> list[HistoryChunk]:
        return _new_chunks(edges.source(settings), *question, size)

    with ThreadPoolExecutor(edges.side_by_side(settings)) as pool:
        begun = list(pool.map(begin, names))
        questions = _questions(((each, window) for each in names), begun)
        found = summaries(chain(chain(*begun), *watched(pool.map(ask, questions), total=len(questions))))
    return [(names[each.metric_id], each) for each in found]


def _next_midnight(moment: datetime) -> datetime:
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == moment else midnight + _DAY


class Plan:
    """History to read, newest first: chunks that are known, and more of them while the source is asked for counts.

    `missing` are stretches of metrics that are not in the ledger yet, of a window that begins at `start`. `chunks` only
    grows, until `is_complete`.
    """

    def __init__(
        self, chunks: Iterable[HistoryChunk], missing: Sequence[Stretch] = (), start: datetime | None = None
    ) -> None:
        self.chunks = list(chunks)
        self.missing, self.start = missing, start
        self.is_complete = not missing


@task(task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan(run: Run, window: Window, restart: bool) -> Plan:
    """What the ledger knows of the window, and what has to be asked for. With `restart` it forgets the window first."""
    metric_ids, planned = patiently(run, partial(_known, run, window, restart))
    if not metric_ids:
        raise MissingScope("metrics:read")
    kept = [chunk for chunk in planned if chunk.metric_id in metric_ids and chunk.touches(window)]
    newest_first = sorted(kept, key=lambda chunk: (chunk.window_end, chunk.metric_id), reverse=True)
    missing = [
        (metric_id, gap)
        for metric_id in metric_ids
        for gap in gaps(window, [chunk for chunk in kept if chunk.metric_id == metric_id])
    ]
    return Plan(newest_first, missing, window.start)


def _questions(missing: Iterable[Stretch], known: Iterable[Iterable[HistoryChunk]]) -> list[Stretch]:
    """What the source has to be asked to count of the missing stretches beyond what is known of each, newest first."""
    questions = [
        (metric_id, part)
        for (metric_id, stretch), chunks in zip(missing, known, strict=True)
        for gap in gaps(stretch, chunks)
        for part in years(gap)
    ]
    return sorted(questions, key=lambda question: question[1].seconds[1], reverse=True)


def _known(run: Run, window: Window, restart: bool, connection: Connection) -> tuple[list[str], list[HistoryChunk]]:
    """The ids of the metrics to read, and all chunks in the ledger."""
    stored = ledger.metrics(connection, run.schema, run.integration_id)
    known, there = [KnownMetric(row.id, row.name) for row in stored], {row.id for row in stored if not row.is_deleted}
    wanted = selected(known, run.settings.metrics)
    metric_ids = [metric.id for metric in (known if wanted is None else wanted) if metric.id in there]
    if restart:
        history.forget(connection, run.schema, run.integration_id, metric_ids, window)
        if spool := open_spool(run.settings, run.integration_id):
            spool.clear()
    return metric_ids, history.chunks(connection, run.schema, run.integration_id)


@task(task_run_name="count", cache_policy=NO_CACHE, persist_result=False)
def count(run: Run, plan: Plan) -> None:
    """Ask for counts, the newest first, and add chunks to the plan. What has been counted is not asked for again.

    Few events need no counting, and nor do the years before a metric's first one.
    """

    away: list[KlaviyoPgError] = []

    def begin(missing: Stretch) -> list[HistoryChunk]:
        metric_id, window = missing
        if window.start != plan.start:  # what comes before it is known: the metric has begun by then, most likely
            return []
        return _noted(run, lambda source: _without_counting(source, metric_id, window, away))

    def ask(question: Stretch) -> list[HistoryChunk]:
        return _noted(run, lambda source: _new_chunks(source, *question, run.settings.chunk_events))

    try:
        with ThreadPoolExecutor(edges.side_by_side(run.settings)) as pool:
            begun = []
            for chunks in pool.map(begin, plan.missing):
                plan.chunks.extend(chunks)
                begun.append(chunks)
            for chunks in pool.map(ask, _questions(plan.missing, begun)):
                plan.chunks.extend(chunks)
    finally:
        plan.is_complete = True


def _noted(run: Run, ask: Callable[[Source], list[HistoryChunk]]) -> list[HistoryChunk]:
    """Chunks that the source has been asked for, the newest first, when the ledger has them."""
    stopping.check()
    source = edges.source(run.settings)
    before = source.traffic
    new = ask(source)
    asked = source.traffic.since(before)

    def note(connection: Connection) -> None:
        history.add(connection, run.schema, run.integration_id, new)
        ledger.add_requests(connection, run.schema, run.id, asked)

    patiently(run, note)
    return new[::-1]


def _without_counting(source: Source, metric_id: str, window: Window, away: list[KlaviyoPgError]) -> list[HistoryChunk]:
    """What needs no counting: all of the window, where it holds little, or the empty time before its first event.

    Once events were not to be had twice it asks for no more of them, so that not each metric is waited for in turn:
    reading will tell of it, and counting can do without.
    """
    try:
        found = None if len(away) >= _AWAY else source.beginning(metric_id, window)
    except (UserError, Stopped, Throttled):
        raise
    except KlaviyoPgError as error:
        if isinstance(error, Unavailable):
            away.append(error)
        return []
    if found is None:
        return []
    if found.events is not None:
        return [whole(metric_id, window, found.events)]
    assert found.first is not None
    empty = Window(window.start, floor(found.first, source.counts_by))
    return [whole(metric_id, empty, 0)] if empty.seconds[0] < empty.seconds[1] else []


def _new_chunks(source: Source, metric_id: str, window: Window, size: int) -> list[HistoryChunk]:
    try:
        return list(cut(metric_id, window, list(source.counts(metric_id, window)), size))
    except (Refused, MissingScope):  # counted are neither every kind of metric nor times of long ago
        return list(uncounted(metric_id, window, _UNCOUNTED_WINDOW))


def named(run: Run, chunks: Sequence[Sequence[str]]) -> list[HistoryChunk]:
    """Chunks as they stand in the ledger, by metric id and start, in the order given."""
    stored = patiently(run, lambda connection: history.chunks(connection, run.schema, run.integration_id))
    known = {(each.metric_id, each.window_start): each for each in stored}
    return [known[metric_id, datetime.fromisoformat(start)] for metric_id, start in chunks]
