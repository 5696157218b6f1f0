"""How far a backfill is and how long it will take: bars on a terminal, lines in the log, an artifact in Prefect."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from klaviyo_pg.history import HistoryChunk
from tasks import chunks, edges
from tasks.history import Plan

_TELL = 10.0  # seconds between two lines of the log and two updates of the artifact


class Forecast:
    """How long the rest will take: as long as what has been done took, event for event.

    Reading an event and storing it are half of the work each, so that what is read and waits on disk counts as half.
    """

    def __init__(self, limit: int | None = None, events: int = 0) -> None:
        self.events, self._limit = events, limit
        self._began, self._asked_before = monotonic(), edges.traffic().requests

    def left(self, read: int, stored: int) -> timedelta | None:
        """Time left; None before anything is done."""
        done = (read + stored) / 2
        if not done:
            return None
        return timedelta(seconds=round(self._spent / done * max(0.0, self.events - done)))

    @property
    def _spent(self) -> float:
        return max(monotonic() - self._began, 1e-9)

    def sentence(self, read: int, stored: int, asked: int | None = None) -> str:
        """Where it stands; `asked` is how many requests there were, where other processes send them."""
        left = self.left(read, stored)
        if asked is None:
            asked = edges.traffic().requests - self._asked_before
        requests = asked / self._spent
        allowed = "" if self._limit is None else f" of {self._limit / 60:,.0f} allowed"
        return (
            f"{stored:,} of {self.events:,} events, {stored / self._spent:,.0f} events/s, "
            f"{requests:,.1f} requests/s{allowed}, {'time left unknown' if left is None else f'about {left} left'}"
        )


@contextmanager
def displayed(
    plan: Plan, names: Mapping[str, str | None], limit: int | None
) -> Iterator[Callable[[chunks.Progress], None]]:
    """Shows progress while the block lasts: a bar for each metric on a terminal, lines in the log elsewhere."""
    logger, console = get_run_logger(), Console(stderr=True)
    artifact = create_progress_artifact(progress=0.0, description="Backfill")
    forecast = Forecast(limit)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    bars = Progress(*columns, console=console, disable=not console.is_terminal)
    everything = bars.add_task("time left", total=0)
    lines: dict[str, TaskID] = {}
    told_at = monotonic()

    def show(progress: chunks.Progress) -> None:
        nonlocal told_at
        totals = _by_metric(plan.chunks)
        stored: dict[str, int] = defaultdict(int)
        for chunk, events in list(progress.stored.items()):
            stored[chunk.metric_id] += events
        for metric_id, waiting in totals.items():
            if metric_id not in lines:
                lines[metric_id] = bars.add_task(names.get(metric_id) or metric_id)
            bars.update(lines[metric_id], completed=stored[metric_id], total=waiting)
        total = sum(stored.values())
        forecast.events = sum(totals.values())
        sentence = forecast.sentence(sum(list(progress.read.values())), total, progress.requests)
        if not plan.is_complete:
            sentence += ", still counting what there is"
        bars.update(everything, completed=total, total=forecast.events, description=sentence)
        if monotonic() - told_at >= _TELL:
            told_at = monotonic()
            if bars.disable:
                logger.info(sentence)
            with suppress(Exception):  # a picture of the work must not stop the work
                update_progress_artifact(artifact, progress=100 * total / max(1, forecast.events))  # type: ignore[arg-type]

    with bars:
        yield show
    with suppress(Exception):
        update_progress_artifact(artifact, progress=100.0)  # type: ignore[arg-type]


def _by_metric(planned: Sequence[HistoryChunk]) -> dict[str, int]:
    """Events that wait to be read, by metric."""
    totals: dict[str, int] = {}
    for chunk in list(planned):
        if chunk.waiting:
            totals[chunk.metric_id] = totals.get(chunk.metric_id, 0) + chunk.waiting
    return totals
