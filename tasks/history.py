"""The backfill's tasks: plan what history there is to read, and read one chunk of it, resumable at every batch."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from time import monotonic

from prefect import task
from prefect.cache_policies import NO_CACHE
from psycopg import Connection

from klaviyo_pg.catalogue import loads
from klaviyo_pg.errors import BadSettings, MissingScope, Refused
from klaviyo_pg.history import HistoryChunk, Summary, cut, gaps, summaries, uncounted
from klaviyo_pg.klaviyo.rows import EventPage, Events
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import history, ledger
from klaviyo_pg.postgres.connect import transaction
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from tasks import edges, stopping
from tasks.extract import RETRIES, add_up, event_batch, len_of_events
from tasks.run import Run, count_requests
from tasks.store import Batch, Counts, store
from transforms import events
from transforms.routing import KnownMetric, selected

_DAY = timedelta(days=1)
_BATCH_ROWS = 3_000  # events in one transaction: what a kill costs each worker at most
_UNCOUNTED_WINDOW = timedelta(days=30)


def history_window(now: datetime, start: datetime, end: datetime | None) -> Window:
    """Whole days in UTC, up to the last midnight at most: today and the future belong to the daily sync."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = today if end is None else min(today, _next_midnight(end))
    if first >= last:
        raise BadSettings(f"There is no whole day from {first:%Y-%m-%d} to {last:%Y-%m-%d}: give an earlier --start.")
    return Window(first, last)


def preview(settings: Settings, window: Window) -> list[tuple[str, Summary]]:
    """What a backfill of the window would read, metric by metric with its name; asks the source, and writes nothing."""
    source = edges.source(settings)
    known = [KnownMetric(row.id, row.name) for page in source.metrics() for row in page.rows]
    wanted = selected(known, settings.metrics)
    planned: list[tuple[str, Summary]] = []
    for metric in known if wanted is None else wanted:
        [found] = summaries(_new_chunks(source, metric.id, window, (), settings.chunk_events))
        planned.append((metric.name or metric.id, found))
    return planned


def _next_midnight(moment: datetime) -> datetime:
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == moment else midnight + _DAY


@task(task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan(run: Run, window: Window, restart: bool) -> list[HistoryChunk]:
    """The chunks of the window, newest first: those in the ledger, and new ones for what it does not cover.

    With `restart` the ledger forgets the window first.
    """
    settings = run.settings
    with transaction(edges.engine(settings)) as connection:
        known = [KnownMetric(row.id, row.name) for row in ledger.metrics(connection, run.schema, run.integration_id)]
        wanted = selected(known, settings.metrics)
        metric_ids = [metric.id for metric in (known if wanted is None else wanted)]
        if restart:
            history.forget(connection, run.schema, run.integration_id, metric_ids, window)
        planned = history.chunks(connection, run.schema, run.integration_id)
    if not metric_ids:
        raise MissingScope("metrics:read")
    kept = [chunk for chunk in planned if chunk.metric_id in metric_ids and chunk.touches(window)]
    with ThreadPoolExecutor(settings.concurrency) as pool:
        new = pool.map(lambda metric_id: _planned(run, metric_id, window, kept), metric_ids)
        return sorted([*kept, *chain(*new)], key=lambda chunk: (chunk.window_end, chunk.metric_id), reverse=True)


def _planned(run: Run, metric_id: str, window: Window, known: Sequence[HistoryChunk]) -> list[HistoryChunk]:
    """New chunks of one metric, noted in the ledger: what has been counted once need not be counted again."""
    source = edges.source(run.settings)
    before = source.traffic
    new = list(_new_chunks(source, metric_id, window, known, run.settings.chunk_events))
    with transaction(edges.engine(run.settings)) as connection:
        history.add(connection, run.schema, run.integration_id, new)
        ledger.add_requests(connection, run.schema, run.id, *source.traffic.since(before))
    return new


def _new_chunks(
    source: Source, metric_id: str, window: Window, known: Sequence[HistoryChunk], size: int
) -> Iterator[HistoryChunk]:
    mine = [chunk for chunk in known if chunk.metric_id == metric_id]
    for gap in gaps(window, mine):
        try:
            yield from cut(metric_id, gap, list(source.counts(metric_id, gap)), size)
        except (Refused, MissingScope):  # counted are neither every kind of metric nor times of long ago
            yield from uncounted(metric_id, gap, _UNCOUNTED_WINDOW)


@task(task_run_name="{name} {chunk.left}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def load_chunk(run: Run, chunk: HistoryChunk, name: str, progress: dict[HistoryChunk, int]) -> Counts:
    """Read a chunk from where it stands to its end. `name` is the metric's, `progress` is told what is stored."""
    stopping.check()
    with transaction(edges.engine(run.settings)) as connection:
        known = ledger.metrics(connection, run.schema, run.integration_id)
        history.begin(connection, run.schema, run.integration_id, chunk)
        [stands] = [each for each in history.chunks(connection, run.schema, run.integration_id) if _same(each, chunk)]
    metrics = events.Metrics({row.id: row.name for row in known}, {row.id: row.destination for row in known})
    source = edges.source(run.settings)
    person_load = loads.CONSENTING_EVENT_MEMBERS if source.events_tell_consent else loads.EVENT_MEMBERS
    before, began = source.traffic, monotonic()
    total: dict[str, dict[str, int]] = {}
    try:
        pages = source.events(stands.left, chunk.metric_id, edges.known_people(run.id))
        for group, reached in by_seconds(pages, _BATCH_ROWS):
            loaded = sum(map(len_of_events, group))
            batch = event_batch(group, metrics, run.integration_id, person_load) if group else Batch(())
            traffic, before = source.traffic.since(before), source.traffic
            note = partial(_advance, run, chunk, loaded, monotonic() - began, reached)
            add_up(total, store(run, f"events/{chunk.metric_id}", batch, traffic, note))
            began = monotonic()
            progress[chunk] = progress.get(chunk, 0) + loaded
            if reached is not None:
                stopping.check()
    except BaseException:
        edges.forget_people()
        count_requests(run, source.traffic.since(before))
        raise
    return total


def _same(one: HistoryChunk, other: HistoryChunk) -> bool:
    return (one.metric_id, one.window_start) == (other.metric_id, other.window_start)


def _advance(
    run: Run, chunk: HistoryChunk, loaded: int, seconds: float, reached: datetime | None, connection: Connection
) -> None:
    history.advance(connection, run.schema, run.integration_id, chunk, loaded, seconds, reached)


def give_up(run: Run, chunk: HistoryChunk, error: str) -> None:
    """Note that a chunk failed, for good in this run."""
    with transaction(edges.engine(run.settings)) as connection:
        history.fail(connection, run.schema, run.integration_id, chunk, error)


def by_seconds(pages: Iterable[EventPage], least: int) -> Iterator[tuple[list[EventPage], datetime | None]]:
    """Pages in groups of at least so many events, each with the second before which everything has been given.

    Events of a group's last second are held back for the next one: more of them may follow on the next page. The last
    group, which can be empty, has None: everything has been given.
    """
    group: list[EventPage] = []
    waiting = 0
    for page in pages:
        group.append(page)
        waiting += len_of_events(page)
        second = max((max(each.events.at, default=0) for each in group), default=0)
        if waiting >= least and min(min(each.events.at, default=second) for each in group) < second:
            yield (
                [each._replace(events=_part(each.events, second, before=True)) for each in group],
                datetime.fromtimestamp(second, UTC),
            )
            rest = [_part(each.events, second, before=False) for each in group]
            group = [page._replace(events=held, profiles=(), rejects=()) for held in rest if held.id]
            waiting = sum(map(len_of_events, group))
    yield group, None


def _part(found: Events, second: int, before: bool) -> Events:
    """The events before a second, or those from it on."""
    keep = [(at < second) == before for at in found.at]
    columns = ([value for value, wanted in zip(column, keep, strict=True) if wanted] for column in found)
    return Events(*columns)  # type: ignore[arg-type]  # each column keeps its type
