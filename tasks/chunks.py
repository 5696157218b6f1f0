"""Reading chunks of history, resumable at every batch: kept on disk first and loaded then, or loaded at once."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import compress
from operator import le
from time import monotonic
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.context import TaskRunContext
from psycopg import Connection

from klaviyo_pg.errors import Unavailable
from klaviyo_pg.history import HistoryChunk
from klaviyo_pg.klaviyo.rows import EventPage, Events
from klaviyo_pg.postgres import history
from klaviyo_pg.windows import Window
from tasks import edges, stopping
from tasks.extract import RETRIES, add_up, event_batch, len_of_events, person_load
from tasks.run import Run, count_requests, patiently
from tasks.spool import FORMAT, Parcel, Shelf, Spool, joined, together
from tasks.store import Batch, Counts, protect, store
from tasks.together import Together
from transforms import events

_READ_AT_ONCE = 2_000  # events, in one parcel: what a kill costs each reader at most
_PAGES = 16  # at most, in a portion of several chunks: seconds to a minute of one reader
_LOADED_AT_ONCE = 6_000  # events, in one transaction: large enough for COPY to pay, small enough for flat memory
_KEPT = timedelta(days=3)  # a result; whether the parcels are still there is looked at anyway


class Progress:
    """How many events of each chunk have been read, and how many stored, by this process."""

    def __init__(self) -> None:
        self.read: dict[HistoryChunk, int] = {}
        self.stored: dict[HistoryChunk, int] = {}
        self.requests: int | None = None  # of all that read, where that is not this process alone

    def has_read(self, chunk: HistoryChunk, number: int) -> None:
        self.read[chunk] = self.read.get(chunk, 0) + number

    def has_stored(self, chunk: HistoryChunk, number: int) -> None:
        self.stored[chunk] = self.stored.get(chunk, 0) + number


class Portion(Together[HistoryChunk]):
    """Chunks of history that one task reads: one that is full, or small ones of any metrics."""

    def __init__(
        self, chunks: Sequence[HistoryChunk], name: str, shelves: Mapping[HistoryChunk, Shelf] | None = None
    ) -> None:
        super().__init__(chunks)
        self.shelves = shelves or {}
        self._name = name  # of the first one's metric

    def __str__(self) -> str:
        others = len(self.chunks) - 1
        return f"{self._name} {self.chunks[0].window}{f' and {others} more' if others else ''}"

    def kept(self) -> "Portion":
        """The chunks that lie completely on their shelves."""
        return Portion([chunk for chunk in self.chunks if self.shelves[chunk].is_complete], self._name, self.shelves)


def next_chunks(planned: Sequence[HistoryChunk], begun: int, events_on_page: int) -> Sequence[HistoryChunk]:
    """From a place in the plan on, the chunks that one task reads: at most so many pages, or a single chunk."""
    pages, end = 0, begun
    while end < len(planned):
        chunk = planned[end]
        if chunk.state != "done":
            pages += _PAGES if chunk.expected is None else 1 + chunk.waiting // events_on_page
        if pages > _PAGES and end > begun:
            break
        end += 1
    return planned[begun:end]


def shelf(run: Run, spool: Spool, chunk: HistoryChunk, metrics: events.Metrics) -> Shelf:
    """Where the extraction of a chunk is kept: told apart by all that decides what is in it."""
    return spool.shelf(*_identity(run, chunk), metrics.destinations.get(chunk.metric_id))


def _identity(run: Run, chunk: HistoryChunk) -> tuple[str, ...]:
    return run.integration_id, run.settings.klaviyo_dialect, chunk.metric_id, str(chunk.window)


def _extraction_key(context: TaskRunContext, parameters: Mapping[str, Any]) -> str:
    first, *others = ["-".join(_identity(parameters["run"], chunk)) for chunk in parameters["portion"].chunks]
    digest = f"-{sha256(' '.join(others).encode()).hexdigest()[:16]}" if others else ""
    return f"klaviyo-pg-extraction-{FORMAT}-{first}{digest}".replace("/", "-")


@task(
    task_run_name="extract {portion}",
    cache_policy=CacheKeyFnPolicy(cache_key_fn=_extraction_key),
    cache_expiration=_KEPT,
    result_serializer="json",
    **RETRIES,
)
def extract_chunks(run: Run, portion: Portion, metrics: events.Metrics, progress: Progress) -> dict[str, Any]:
    """Read chunks from where the ledger or their shelves stand to their ends, and keep them. Needs no database.

    Answers where they are, and what they hold.
    """

    def extract(chunk: HistoryChunk) -> None:
        stopping.check()
        shelf = portion.shelves[chunk]
        if shelf.is_complete:  # a kill may come between the last parcel and the note of it that Prefect keeps
            return
        left = Window(max(filter(None, (chunk.left.start, shelf.reached))), chunk.window_end)
        for parcel in _parcels(run, chunk, left, metrics, progress):
            shelf.put(parcel)
            if parcel.reached is not None:
                stopping.check()

    portion.each(extract)
    return {
        "shelves": [shelf.folder.name for shelf in portion.shelves.values()],
        "events": sum(shelf.events for shelf in portion.shelves.values()),
        "start": min(chunk.window_start for chunk in portion.chunks).isoformat(),
        "end": max(chunk.window_end for chunk in portion.chunks).isoformat(),
    }


@task(task_run_name="load {portion}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def load_chunks(run: Run, portion: Portion, progress: Progress) -> Counts:
    """Load what has been kept of chunks, and throw it away."""
    total: dict[str, dict[str, int]] = {}

    def load(chunk: HistoryChunk) -> None:
        shelf = portion.shelves[chunk]
        stands = patiently(run, partial(_begin, run, chunk))
        if stands.state != "done" and not shelf.is_complete:
            raise Unavailable(f"What was kept of {chunk} is not there any more: the next run reads it anew.")
        parcels = iter(()) if stands.state == "done" else shelf.parcels(stands.reached)
        for group in together(parcels, _LOADED_AT_ONCE):
            stopping.check()
            paths, whole = [path for path, _ in group], joined([parcel for _, parcel in group])
            group.clear()  # else its frames would lie in memory twice
            add_up(total, _load(run, chunk, whole, progress))
            for path in paths:
                path.unlink()
        shelf.clear()

    portion.each(load)
    return total


@task(task_run_name="{portion}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def read_chunks(run: Run, portion: Portion, metrics: events.Metrics, progress: Progress) -> Counts:
    """Read chunks and load them at once, keeping nothing."""
    total: dict[str, dict[str, int]] = {}

    def read(chunk: HistoryChunk) -> None:
        stopping.check()
        stands = patiently(run, partial(_begin, run, chunk))
        if stands.state == "done":
            return
        for parcel in _parcels(run, chunk, stands.left, metrics, progress):
            add_up(total, _load(run, chunk, parcel, progress))
            if parcel.reached is not None:
                stopping.check()

    portion.each(read)
    return total


def _begin(run: Run, chunk: HistoryChunk, connection: Connection) -> HistoryChunk:
    """The chunk as it stands in the ledger, with one more attempt unless it is done."""
    history.begin(connection, run.schema, run.integration_id, chunk)
    return history.chunk(connection, run.schema, run.integration_id, chunk)


def _parcels(
    run: Run, chunk: HistoryChunk, window: Window, metrics: events.Metrics, progress: Progress
) -> Iterator[Parcel]:
    source = edges.source(run.settings)
    load = person_load(source)
    before, began = source.traffic, monotonic()
    assert window.start is not None
    start = window.start
    try:
        pages = source.events(window, chunk.metric_id, edges.known_people(run.id))
        for group, reached in by_seconds(pages, _READ_AT_ONCE):
            number = sum(map(len_of_events, group))
            batch = event_batch(group, metrics, run.integration_id, load) if group else Batch(())
            traffic, before = source.traffic.since(before), source.traffic
            progress.has_read(chunk, number)
            yield Parcel(protect(batch, run.settings), start, reached, number, monotonic() - began, traffic)
            start, began = reached or start, monotonic()
    except BaseException as error:
        stopping.heed(error)
        edges.forget_people()
        count_requests(run, source.traffic.since(before))
        raise


def _load(run: Run, chunk: HistoryChunk, parcel: Parcel, progress: Progress) -> Counts:
    def note(connection: Connection) -> None:
        seconds = parcel.seconds + monotonic() - began
        history.advance(connection, run.schema, run.integration_id, chunk, parcel.events, seconds, parcel.reached)

    began = monotonic()
    counts = store(run, f"events/{chunk.metric_id}", parcel.batch, parcel.traffic, note)
    progress.has_stored(chunk, parcel.events)
    return counts


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
    if all(map(le, found.at, found.at[1:])):  # in order of time, as they were asked for
        edge = bisect_left(found.at, second)
        return Events(*(column[:edge] if before else column[edge:] for column in found))  # type: ignore[arg-type]
    keep = [(at < second) == before for at in found.at]
    return Events(*(list(compress(column, keep)) for column in found))  # type: ignore[arg-type]
