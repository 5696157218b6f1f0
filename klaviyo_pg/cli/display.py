"""The live display of a run at a terminal: bars for its stages, rates, and the time left. Knows no flow."""

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from time import monotonic
from types import TracebackType
from typing import Literal, Protocol, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from klaviyo_pg.foreign import printable
from klaviyo_pg.plurals import counted
from klaviyo_pg.traffic import Traffic
from pipeline.progress import SETTLED_SECONDS, Item, Progress, Stage

_MAX_NAME = 36  # characters
_NUMBERS: tuple[Literal["left", "right"], ...] = ("right", "left", "right", "right")  # how columns are justified
_RATE_SECONDS = 10.0
_FRAMES_PER_SECOND = 4
_OTHER_LINES = 5  # besides items and finished stages: title, all, hidden items, figures, and the cursor's line


class Session(Protocol):
    """The properties of a session that the display reads."""

    @property
    def progress(self) -> Progress: ...

    @property
    def traffic(self) -> Traffic: ...

    @property
    def requests_per_minute(self) -> int | None: ...


@dataclass(frozen=True)
class Figures:
    """Numbers about a run at one moment: the monotonic time, seconds since it began, requests a second, and so on.

    `seconds_before` is how long the last comparable run took.
    """

    now: float
    elapsed: float
    requests_per_second: float
    limit_per_second: float | None
    retries: int
    seconds_before: float | None = None


@dataclass(frozen=True)
class Screen:
    """A run at one moment, as it is shown: finished stages, the stage in progress, and figures.

    Items of the stage in progress that the screen has no lines for are counted.
    """

    stages: Sequence[Stage]
    figures: Figures

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        finished = [stage for stage in self.stages if stage.ended is not None]
        yield from map(_finished_line, finished)
        current = [stage for stage in self.stages if stage.ended is None]
        for stage in current:
            yield from _in_progress(stage, self.figures, console.size.height - len(finished) - _OTHER_LINES)
        if not self.stages:
            yield Text("Connecting to Klaviyo and to the warehouse")
        yield Text(_sentence(self.figures, current), style="dim")


def _finished_line(stage: Stage) -> Text:
    all_items = stage.all_items
    is_complete = all_items.total is not None and all_items.done >= all_items.total
    seconds = (stage.ended or stage.began) - stage.began
    mark = ("✓ ", "green") if is_complete else ("· ", "yellow")
    if not stage.items:
        return Text.assemble(mark, f"{stage.title}: nothing to do, in {_duration(seconds)}")
    return Text.assemble(mark, f"{stage.title}: {_amount(stage, all_items)} in {_duration(seconds)}")


def _amount(stage: Stage, item: Item) -> str:
    of = "" if item.total in (None, item.done) else f" of {item.total:,}"
    rows = f", {item.rows:,} rows" if item.rows else ""
    unit = stage.unit.removesuffix("s") if item.done == 1 and not of else stage.unit
    return f"{item.done:,}{of} {unit}{rows}"


def _in_progress(stage: Stage, figures: Figures, lines: int) -> Iterator[RenderableType]:
    yield Text.assemble((stage.title, "bold"), f", {_time_left(stage, figures.now)}")
    shown, hidden = _fitting(stage.items, max(1, lines))
    items = [stage.all_items, *shown] if len(stage.items) > 1 else shown
    yield _bars(items, stage)
    if hidden:
        finished = sum(map(_is_finished, hidden))
        yield Text(f"and {len(hidden)} more, {finished} of them complete", style="dim")


def _is_finished(item: Item) -> bool:
    return item.total is not None and item.done >= item.total


def _fitting(items: Sequence[Item], lines: int) -> tuple[list[Item], list[Item]]:
    """Return the items that there are lines for, and the others. Finished items make room first, then small ones."""
    chosen = sorted(items, key=lambda item: (_is_finished(item), -(item.total or 0)))
    by_size = [sorted(part, key=lambda item: -(item.total or 0)) for part in (chosen[:lines], chosen[lines:])]
    return by_size[0], by_size[1]


def _bars(items: Sequence[Item], stage: Stage) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, max_width=_MAX_NAME, overflow="ellipsis")
    table.add_column(ratio=1)
    for justify in _NUMBERS:
        table.add_column(justify=justify, no_wrap=True)
    for item in items:
        bar = ProgressBar(item.total, item.done, pulse=item.total is None, complete_style="cyan")
        of, percent = _share(item, stage.is_counting)
        rows = f"{item.rows:,} rows" if item.rows else ""
        table.add_row(Text(printable(item.name)), bar, f"{item.done:,}", of, percent, rows)
    return table


def _share(item: Item, is_counting: bool) -> tuple[str, str]:
    """Return how much there is of an item, and the share that is done; no share of a total that is not final."""
    if item.total is None:
        return "", ""
    if is_counting:
        return f"of {item.total:,} so far", ""
    return f"of {item.total:,}", f"{100 * item.done // item.total if item.total else 100}%"


def _time_left(stage: Stage, now: float) -> str:
    """Estimate the time left for a stage: the rest takes as long, unit for unit, as what has been done.

    Reading and storing are half of the work each, so what has been read but not stored counts as half. The last chunks
    may be the longest ones, so that once all have begun, those that are done say nothing about the rest.
    """
    total = stage.all_items
    done = (max(total.read, total.done) + total.done) / 2
    if stage.is_counting:
        return "still counting, so the time left is not known yet"
    if not stage.items:
        return "nothing left to read"
    if total.total is None or not done or now - stage.began < SETTLED_SECONDS:
        return "time left for this step not known yet"
    left = total.total - total.done
    if left <= 0:
        return "finishing this step"
    if stage.unit == "chunks" and left <= stage.at_once:
        return f"the last {'chunk' if left == 1 else f'{left} chunks'} in progress"
    seconds = (now - stage.began) / done * max(0.0, total.total - done)
    return f"about {_duration(max(1.0, seconds))} left for this step"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _sentence(figures: Figures, current: Sequence[Stage]) -> str:
    limit = figures.limit_per_second
    parts = [
        f"{_duration(figures.elapsed)} elapsed{_compared(figures)}",
        *(_speed(stage, figures.now) for stage in current),
        f"{figures.requests_per_second:,.1f} requests/s" + ("" if limit is None else f" of {limit:,.0f} allowed"),
        counted(figures.retries, "retry", "retries"),
    ]
    return ", ".join(filter(None, parts))


def _compared(figures: Figures) -> str:
    """Return how long the whole run may take, from the last one."""
    return "" if figures.seconds_before is None else f" (the last run took {_duration(figures.seconds_before)})"


def _speed(stage: Stage, now: float) -> str:
    total = stage.all_items
    count, unit = (total.rows, "rows") if total.rows else (total.done, stage.unit)
    return f"{count / max(now - stage.began, 1e-9):,.0f} {unit}/s" if count else ""


class LiveDisplay:
    """Shows a session while the block runs. Lines logged to `console` appear above the display."""

    def __init__(self, session: Session, console: Console) -> None:
        self._session, self._console = session, console
        self._began = monotonic()
        self._requests: deque[tuple[float, int]] = deque()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._console.use_theme(Theme()))  # Prefect's theme has no styles for bars
        self._stack.enter_context(
            Live(get_renderable=self._screen, console=self._console, refresh_per_second=_FRAMES_PER_SECOND)
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _screen(self) -> Screen:
        now, traffic, stages = monotonic(), self._session.traffic, self._session.progress.snapshot()
        limit = self._limit_per_second if stages else None  # no API client is open before the first stage
        rate, before = self._rate(now, traffic.requests), self._session.progress.seconds_before
        figures = Figures(now, now - self._began, rate, limit, traffic.retries, before)
        return Screen(stages, figures)

    @cached_property
    def _limit_per_second(self) -> float | None:
        per_minute = self._session.requests_per_minute
        return None if per_minute is None else per_minute / 60

    def _rate(self, now: float, requests: int) -> float:
        """Return the requests a second of the last seconds."""
        self._requests.append((now, requests))
        while now - self._requests[0][0] > _RATE_SECONDS:
            self._requests.popleft()
        began, before = self._requests[0]
        return (requests - before) / max(now - began, 1.0)


def is_live() -> bool:
    """Return whether standard error is a terminal that can show a live display."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@contextmanager
def starting(what: str) -> Iterator[None]:
    """Show what a command is starting, while the block runs."""
    with Console(stderr=True).status(what):
        yield
