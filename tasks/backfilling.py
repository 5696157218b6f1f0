"""Reading chunks of history side by side, with a live account of how far it is and how long it will take."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic
from typing import cast

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from klaviyo_pg.errors import Stopped, UserError
from klaviyo_pg.history import HistoryChunk, summaries
from klaviyo_pg.postgres import history, ledger
from klaviyo_pg.postgres.connect import transaction
from klaviyo_pg.windows import Window
from tasks import edges, stopping
from tasks.history import give_up, load_chunk
from tasks.reading import Problems, told
from tasks.run import Run
from tasks.store import Counts

_LOOK = 0.5  # seconds between two looks at the progress
_TELL = 10.0  # seconds between two lines of the log and two updates of the artifact


def read_history(run: Run, chunks: Sequence[HistoryChunk], problems: Problems) -> None:
    """Read what is left of the chunks. One that fails does not stop the others: the run ends as partial.

    Stops when asked to, after the batches in hand.
    """
    waiting = [chunk for chunk in chunks if chunk.state != "done"]
    names = _names(run)
    progress: dict[HistoryChunk, int] = {}
    forecast = Forecast(sum(chunk.waiting for chunk in waiting))
    with (
        stopping.on_signals(),
        cast(ThreadPoolTaskRunner[Counts], ThreadPoolTaskRunner(max_workers=run.settings.concurrency)) as runner,
        _display(waiting, names, forecast) as show,
    ):
        submitted: dict[PrefectFuture[Counts], HistoryChunk] = {
            runner.submit(
                load_chunk, {"run": run, "chunk": chunk, "name": names.get(chunk.metric_id), "progress": progress}
            ): chunk
            for chunk in waiting
        }
        left = set(submitted)
        while left:
            done, left = wait(list(left), timeout=_LOOK)
            show(progress)
            for future in done:
                result = future.result(raise_on_failure=False)
                if isinstance(result, Exception) and not isinstance(result, Stopped):
                    give_up(run, submitted[future], told(result))
                    if isinstance(result, UserError):
                        problems.add(result)  # nothing will go well until the user has mended it
                    else:
                        problems.skipped.append(result)
                    get_run_logger().warning("%s: %s", submitted[future], told(result))
    if stopping.asked():
        stored = sum(progress.values())
        problems.add(Stopped(f"Stopped after {stored:,} events; the same command goes on where it stopped."))


class Forecast:
    """How long the rest will take: as long as what has been read took, event for event."""

    def __init__(self, events: int) -> None:
        self.events = events
        self._began = monotonic()

    def left(self, stored: int) -> timedelta | None:
        """Time left; None before anything is stored."""
        if not stored:
            return None
        spent = monotonic() - self._began
        return timedelta(seconds=round(spent / stored * max(0, self.events - stored)))

    def rate(self, stored: int) -> float:
        """Events a second."""
        return stored / max(monotonic() - self._began, 1e-9)

    def sentence(self, stored: int) -> str:
        left = self.left(stored)
        return (
            f"{stored:,} of {self.events:,} events, {self.rate(stored):,.0f} events/s, "
            f"{'time left unknown' if left is None else f'about {left} left'}"
        )


def _names(run: Run) -> Mapping[str, str]:
    with transaction(edges.engine(run.settings)) as connection:
        known = ledger.metrics(connection, run.schema, run.integration_id)
    return {row.id: row.name or row.id for row in known}


@contextmanager
def _display(
    chunks: Sequence[HistoryChunk], names: Mapping[str, str], forecast: Forecast
) -> Iterator[Callable[[Mapping[HistoryChunk, int]], None]]:
    """Shows progress: a bar for each metric on a terminal, lines in the log elsewhere, an artifact in Prefect."""
    logger, console = get_run_logger(), Console(stderr=True)
    artifact = create_progress_artifact(progress=0.0, description="Backfill")
    totals: dict[str, int] = defaultdict(int)
    for chunk in chunks:
        totals[chunk.metric_id] += chunk.waiting
    bars = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), console=console,
        disable=not console.is_terminal,
    )  # fmt: skip
    lines: dict[str, TaskID] = {
        metric_id: bars.add_task(names.get(metric_id, metric_id), total=total) for metric_id, total in totals.items()
    }
    everything = bars.add_task("time left", total=forecast.events)
    told_at = monotonic()

    def show(progress: Mapping[HistoryChunk, int]) -> None:
        nonlocal told_at
        stored: dict[str, int] = defaultdict(int)
        for chunk, events in list(progress.items()):
            stored[chunk.metric_id] += events
        for metric_id, line in lines.items():
            bars.update(line, completed=stored[metric_id])
        total = sum(stored.values())
        bars.update(everything, completed=total, description=forecast.sentence(total))
        if monotonic() - told_at >= _TELL:
            told_at = monotonic()
            if bars.disable:
                logger.info(forecast.sentence(total))
            with suppress(Exception):  # a picture of the work must not stop the work
                update_progress_artifact(artifact, progress=100 * total / forecast.events if forecast.events else 100.0)  # type: ignore[arg-type]

    with bars:
        yield show
    with suppress(Exception):
        update_progress_artifact(artifact, progress=100.0)  # type: ignore[arg-type]


def report(run: Run, window: Window) -> None:
    """A table artifact in Prefect: per metric expected, loaded, difference, chunks done, seconds."""
    names = _names(run)
    with transaction(edges.engine(run.settings)) as connection:
        chunks = history.chunks(connection, run.schema, run.integration_id)
    table = [
        {
            "metric": names.get(each.metric_id, each.metric_id),
            "expected": each.expected,
            "loaded": each.loaded,
            "difference": each.loaded - each.expected,
            "chunks": f"{each.done} of {each.chunks}",
            "seconds": round(each.seconds, 1),
        }
        for each in summaries(chunks, window)
    ]
    create_table_artifact(key="backfill", table=table, description=f"Backfill {window}")
