"""Reading chunks of history side by side: extracted by some threads, loaded by others, kept on disk between them."""

from collections.abc import Callable
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
from tasks.chunks import Progress, extract_chunk, load_chunk, read_chunk, shelf
from tasks.display import displayed
from tasks.extract import known_metrics
from tasks.history import Plan, count
from tasks.reading import Problems, told
from tasks.run import Run, patiently
from tasks.spool import Shelf, open_spool
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
        if plan.questions:
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
        self._begun = 0
        self._being_read = 0
        self._under_way: dict[PrefectFuture[Any], tuple[HistoryChunk | None, Callable[[Any], None]]] = {}
        self._ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()

    def goes_on(self, plan: Plan) -> bool:
        """Begin what can be begun, and wait a moment for something to end. False when everything has."""
        while self._begun < len(plan.chunks) and self._may_begin():
            chunk = plan.chunks[self._begun]
            self._begun += 1
            if chunk.state != "done":
                self._begin(chunk)
        if not self._under_way:
            return False
        with suppress(Empty):
            self._has_ended(self._ended.get(timeout=_LOOK))
        return True

    def _may_begin(self) -> bool:
        if self._being_read >= self._at_once or stopping.asked() or self._problems.stop:
            return False
        return self._spool is None or not (self._under_way and self._spool.is_full)

    def _begin(self, chunk: HistoryChunk) -> None:
        self._being_read += 1
        given: dict[str, Any] = {
            "run": self._run,
            "chunk": chunk,
            "name": self._metrics.names.get(chunk.metric_id) or chunk.metric_id,
            "progress": self._progress,
        }
        if self._spool is None:
            self.follow(self._readers.submit(read_chunk, given | {"metrics": self._metrics}), chunk, self._was_read)
            return
        kept = shelf(self._run, self._spool, chunk, self._metrics)
        if not kept.leads_on_from(chunk.left.start or chunk.window_start):
            kept.clear()
        extract = extract_chunk.with_options(refresh_cache=not kept.is_complete)  # a kept result without its parcels
        future = self._readers.submit(extract, given | {"metrics": self._metrics, "shelf": kept})
        self.follow(future, chunk, partial(self._load, chunk, given, kept))

    def _load(self, chunk: HistoryChunk, given: dict[str, Any], kept: Shelf, result: object) -> None:
        self._was_read(result)
        if not isinstance(result, Exception):
            self.follow(self._loaders.submit(load_chunk, given | {"shelf": kept}), chunk, _nothing)

    def _was_read(self, result: object) -> None:
        self._being_read -= 1

    def follow(self, future: PrefectFuture[Any], chunk: HistoryChunk | None, then: Callable[[Any], None]) -> None:
        """Wait for a task, of a chunk or of none, and go on with `then`."""
        self._under_way[future] = chunk, then
        future.add_done_callback(self._ended.put)

    def _has_ended(self, future: PrefectFuture[Any]) -> None:
        chunk, then = self._under_way.pop(future)
        result = future.result(raise_on_failure=False)
        then(result)
        if isinstance(result, Exception) and not isinstance(result, Stopped):
            self._note(chunk, result)

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


def _nothing(result: object) -> None:
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
