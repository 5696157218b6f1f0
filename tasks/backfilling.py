"""Reading chunks of history side by side: extracted by some threads, loaded by others, kept on disk between them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from prefect import get_run_logger
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from klaviyo_pg.errors import DatabaseUnusable, Stopped, Throttled, UserError
from klaviyo_pg.history import HistoryChunk, summaries
from klaviyo_pg.postgres import history
from klaviyo_pg.postgres.connect import transaction
from klaviyo_pg.windows import Window
from tasks import artifacts, edges, stopping
from tasks.chunks import Portion, Progress, extract_chunks, load_chunks, next_chunks, read_chunks, shelf
from tasks.display import displayed
from tasks.extract import known_metrics
from tasks.history import Plan, count
from tasks.reading import Problems, told
from tasks.run import Run, patiently
from tasks.spool import open_spool
from transforms import events

_LOOK = 0.5  # seconds between two looks at the progress
_READERS_OF_A_LOADER = 2
Runner = ThreadPoolTaskRunner[Any]


def read_history(run: Run, plan: Plan, problems: Problems) -> None:
    """Read what is left of the plan's chunks, while more are still being counted.

    One that fails does not stop the others: the run ends as partial. Stops when asked to, after the batches in hand;
    what has been read and not loaded is kept for the next run.
    """
    metrics = known_metrics(run)
    limit = edges.source(run.settings).event_requests_a_minute
    at_once = edges.side_by_side(run.settings, run.answer_seconds, limit)
    progress = Progress()
    with (
        stopping.on_signals(),
        Runner(max_workers=1) as counter,
        Runner(max_workers=at_once) as readers,
        Runner(max_workers=max(1, at_once // _READERS_OF_A_LOADER)) as loaders,
        displayed(plan, metrics.names, limit) as show,
    ):
        reading = _Reading(run, metrics, progress, problems, readers, loaders, at_once)
        if plan.missing:
            reading.follow(counter.submit(count, {"run": run, "plan": plan}), None, _nothing)
        while reading.goes_on(plan):
            edges.keep_claims()
            show(progress)
    if stopping.asked() and not problems.postponed:
        stored = sum(progress.stored.values())
        problems.add(Stopped(f"Stopped after {stored:,} events; the same command goes on where it stopped."))


class _Reading:
    """Chunks on their way: being extracted, waiting on shelves, being loaded; or both at once, without a spool."""

    def __init__(
        self,
        run: Run,
        metrics: events.Metrics,
        progress: Progress,
        problems: Problems,
        readers: Runner,
        loaders: Runner,
        at_once: int,
    ) -> None:
        self._run, self._metrics, self._progress, self._problems = run, metrics, progress, problems
        self._readers, self._loaders, self._at_once = readers, loaders, at_once
        self._spool = open_spool(run.settings, run.integration_id)
        if self._spool:
            self._spool.tidy()
        self._events_on_page = edges.source(run.settings).events_in_request
        self._begun = 0
        self._being_read = 0
        self._under_way: dict[PrefectFuture[Any], tuple[Portion | None, Callable[[], None]]] = {}
        self._ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()

    def goes_on(self, plan: Plan) -> bool:
        """Begin what can be begun, and wait a moment for something to end. False when everything has."""
        while self._begun < len(plan.chunks) and self._may_begin():
            chunks = next_chunks(plan.chunks, self._begun, self._events_on_page)
            self._begun += len(chunks)
            if waiting := [chunk for chunk in chunks if chunk.state != "done"]:
                self._begin(waiting)
        if not self._under_way:
            return False
        with suppress(Empty):
            self._has_ended(self._ended.get(timeout=_LOOK))
        return True

    def _may_begin(self) -> bool:
        if self._being_read >= self._at_once or stopping.asked() or self._problems.stop:
            return False
        return self._spool is None or not (self._under_way and self._spool.is_full)

    def _begin(self, chunks: Sequence[HistoryChunk]) -> None:
        self._being_read += 1
        name = self._metrics.names.get(chunks[0].metric_id) or chunks[0].metric_id
        given: dict[str, Any] = {"run": self._run, "metrics": self._metrics, "progress": self._progress}
        if self._spool is None:
            begun = Portion(chunks, name)
            self.follow(self._readers.submit(read_chunks, given | {"portion": begun}), begun, self._was_read)
            return
        shelves = {chunk: shelf(self._run, self._spool, chunk, self._metrics) for chunk in chunks}
        for chunk, kept in shelves.items():
            if not kept.leads_on_from(chunk.left.start or chunk.window_start):
                kept.clear()
        begun = Portion(chunks, name, shelves)
        is_there = all(kept.is_complete for kept in shelves.values())  # else a result may have outlived its parcels
        extract = extract_chunks.with_options(refresh_cache=not is_there)
        self.follow(self._readers.submit(extract, given | {"portion": begun}), begun, partial(self._load, begun))

    def _load(self, read: Portion) -> None:
        self._was_read()
        begun = read.kept()
        if begun.chunks and not stopping.asked():
            given = {"run": self._run, "portion": begun, "progress": self._progress}
            self.follow(self._loaders.submit(load_chunks, given), begun, _nothing)

    def _was_read(self) -> None:
        self._being_read -= 1

    def follow(self, future: PrefectFuture[Any], begun: Portion | None, then: Callable[[], None]) -> None:
        """Wait for a task, of a portion or of none, and go on with `then`."""
        self._under_way[future] = begun, then
        future.add_done_callback(self._ended.put)

    def _has_ended(self, future: PrefectFuture[Any]) -> None:
        begun, then = self._under_way.pop(future)
        result = future.result(raise_on_failure=False)
        if isinstance(result, Exception):
            failed = dict(begun.failed) if begun else {}
            for chunk, error in failed.items():
                self._note(chunk, error)
            if not failed and not isinstance(result, Stopped):
                for each in begun.chunks if begun else [None]:
                    self._note(each, result)
        then()

    def _note(self, chunk: HistoryChunk | None, error: Exception) -> None:
        get_run_logger().warning("%s: %s", chunk or "counting", told(error))
        if isinstance(error, Throttled):
            self._problems.add(error)
            return
        if isinstance(error, UserError):
            self._problems.add(error)  # nothing will go well until the user has mended it
        else:
            self._problems.skipped.append(error)
        if chunk is None:
            return
        with suppress(DatabaseUnusable), transaction(edges.engine(self._run.settings), waits=False) as connection:
            history.fail(connection, self._run.schema, self._run.integration_id, chunk, told(error))


def _nothing() -> None:
    """There is nothing to do behind a load."""


def report(run: Run, window: Window) -> None:
    """Artifacts in Prefect: per metric expected, loaded, difference, chunks done, seconds; and what is covered."""
    names = known_metrics(run).names
    chunks = patiently(run, lambda connection: history.chunks(connection, run.schema, run.integration_id))
    table = [
        {
            "metric": names.get(each.metric_id) or each.metric_id,
            "expected": each.expected,
            "loaded": each.loaded,
            "difference": each.loaded - each.expected,
            "chunks": f"{each.done} of {each.chunks}",
            "seconds": round(each.seconds, 1),
        }
        for each in sorted(summaries(chunks, window), key=lambda row: -row.expected)
    ]
    artifacts.table("backfill", table, f"Backfill {window}")
    artifacts.covered(run)
