"""How far a backfill is and how long it will take: bars on a terminal, lines in the log, an artifact in Prefect."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text
from rich.theme import Theme

from klaviyo_pg.history import HistoryChunk
from tasks import chunks, edges
from tasks.history import Plan

_TELL = 10.0  # seconds between two lines of the log and two updates of the artifact
_LONGEST_NAME = 36  # characters
_OTHER_LINES = 5  # of a screen: the sentence (two), all metrics, those that are not shown, and the cursor's


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


class Bars:
    """A sentence, and below it a bar for all metrics and one for each, the largest first, as many as the screen has."""

    def __init__(self) -> None:
        self.sentence = ""
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=_LONGEST_NAME)),
            BarColumn(bar_width=None, complete_style="cyan"),
            TextColumn("{task.completed:,}", justify="right"),
            TextColumn("of {task.total:,}", justify="right"),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True)),
            expand=True,
        )
        self._lines: dict[str | None, TaskID] = {}
        self.update(None, "all", 0, 0)

    def update(self, metric_id: str | None, name: str, completed: int, total: int) -> None:
        """Where a metric stands; None is all of them."""
        if metric_id not in self._lines:
            shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name)
            self._lines[metric_id] = self._progress.add_task(shown, total=total)
        self._progress.update(self._lines[metric_id], completed=completed, total=total)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        everything, *metrics = self._progress.tasks
        shown, hidden = _fitting(metrics, max(1, console.size.height - _OTHER_LINES))
        yield Text(self.sentence)
        yield self._progress.make_tasks_table([everything, *shown])
        if hidden:
            finished = sum(each.finished for each in hidden)
            yield Text(f"and {len(hidden)} more, {finished} of them done", style="dim")


def _fitting(metrics: Sequence[Task], lines: int) -> tuple[list[Task], list[Task]]:
    """Those that there is room for, and the others: what is done makes room first, what is small next."""
    chosen = sorted(metrics, key=lambda each: (each.finished, -(each.total or 0)))
    by_size = [sorted(part, key=lambda each: -(each.total or 0)) for part in (chosen[:lines], chosen[lines:])]
    return by_size[0], by_size[1]


@contextmanager
def _on_terminal(bars: Bars) -> Iterator[bool]:
    """Shows the bars while the block lasts, below warnings, and in place of lesser lines; False without a terminal."""
    handler = next((each for each in logging.getLogger().handlers if isinstance(each, PrefectConsoleHandler)), None)
    if handler is None or not handler.console.is_terminal:
        yield False
        return
    level = handler.level
    handler.setLevel(max(level, logging.WARNING))
    try:
        # The handler's theme knows no bars; its console, as no other, puts what is logged above them.
        with handler.console.use_theme(Theme()), Live(bars, console=handler.console):
            yield True
    finally:
        handler.setLevel(level)


class _Display:
    """What is shown and told of a plan under way."""

    def __init__(self, plan: Plan, names: Mapping[str, str | None], limit: int | None, bars: Bars) -> None:
        self._plan, self._names, self._bars = plan, names, bars
        self._forecast, self._logger = Forecast(limit), get_run_logger()
        self._artifact = create_progress_artifact(progress=0.0, description="Backfill")
        self._told_at, self._latest, self.share = monotonic(), chunks.Progress(), 0.0
        self.is_on_terminal = False

    def show(self, progress: chunks.Progress) -> None:
        self._latest = progress
        totals = _by_metric(self._plan.chunks)
        stored: dict[str, int] = defaultdict(int)
        for chunk, events in list(progress.stored.items()):
            stored[chunk.metric_id] += events
        for metric_id, waiting in totals.items():
            self._bars.update(metric_id, self._names.get(metric_id) or metric_id, stored[metric_id], waiting)
        total = sum(stored.values())
        self._forecast.events = sum(totals.values())
        self.share = min(1.0, total / self._forecast.events) if self._forecast.events else 1.0
        sentence = self._forecast.sentence(sum(list(progress.read.values())), total, progress.requests)
        if not self._plan.is_complete:
            sentence += ", still counting what there is"
        self._bars.sentence = sentence
        self._bars.update(None, "all", total, self._forecast.events)
        if monotonic() - self._told_at >= _TELL:
            self._told_at = monotonic()
            if not self.is_on_terminal:
                self._logger.info(sentence)
            self._tell_prefect()

    def close(self) -> None:
        """The last word."""
        self.show(self._latest)
        self._tell_prefect()

    def _tell_prefect(self) -> None:
        with suppress(Exception):  # a picture of the work must not stop the work
            update_progress_artifact(self._artifact, progress=round(100 * self.share, 1))  # type: ignore[arg-type]


@contextmanager
def displayed(
    plan: Plan, names: Mapping[str, str | None], limit: int | None
) -> Iterator[Callable[[chunks.Progress], None]]:
    """Shows progress while the block lasts: a bar for each metric on a terminal, lines in the log elsewhere."""
    bars = Bars()
    display = _Display(plan, names, limit, bars)
    with _on_terminal(bars) as display.is_on_terminal:
        yield display.show
        display.close()


def _by_metric(planned: Sequence[HistoryChunk]) -> dict[str, int]:
    """Events that wait to be read, by metric."""
    totals: dict[str, int] = {}
    for chunk in list(planned):
        if chunk.waiting:
            totals[chunk.metric_id] = totals.get(chunk.metric_id, 0) + chunk.waiting
    return totals
