"""History, cut into chunks: values and the arithmetic that plans them. No network, no database."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import NamedTuple, Protocol

from klaviyo_pg.windows import Window

_YEAR = timedelta(days=365)


class HistoryChunk(NamedTuple):
    """One chunk of a metric's history, as it stands in the ledger."""

    metric_id: str
    window_start: datetime
    window_end: datetime
    expected: int | None
    loaded: int = 0
    reached: datetime | None = None
    state: str = "planned"
    seconds: float = 0.0

    @property
    def window(self) -> Window:
        """All of it."""
        return Window(self.window_start, self.window_end)

    @property
    def left(self) -> Window:
        """What is still to be read."""
        return Window(self.reached or self.window_start, self.window_end)

    @property
    def waiting(self) -> int:
        """Events that are still to be read, as far as they were counted."""
        return 0 if self.state == "done" else max(0, (self.expected or 0) - self.loaded)

    def touches(self, window: Window) -> bool:
        """Whether some of it lies in a window."""
        start, end = window.seconds
        return self.window_start.timestamp() < end and self.window_end.timestamp() > start

    def __str__(self) -> str:
        return f"{self.metric_id} {self.window}"


class Summary(NamedTuple):
    """How a metric's history stands: numbers of events (expected: as far as they were counted) and of chunks."""

    metric_id: str
    expected: int
    loaded: int
    waiting: int
    chunks: int
    done: int
    failed: int
    seconds: float


def summaries(chunks: Iterable[HistoryChunk], window: Window | None = None) -> list[Summary]:
    """One for each metric, of the chunks that touch the window."""
    by_metric: dict[str, list[HistoryChunk]] = {}
    for chunk in chunks:
        if window is None or chunk.touches(window):
            by_metric.setdefault(chunk.metric_id, []).append(chunk)
    return [
        Summary(
            metric_id,
            sum(chunk.expected or 0 for chunk in mine),
            sum(chunk.loaded for chunk in mine),
            sum(chunk.waiting for chunk in mine),
            len(mine),
            sum(chunk.state == "done" for chunk in mine),
            sum(chunk.state == "failed" for chunk in mine),
            sum(chunk.seconds for chunk in mine),
        )
        for metric_id, mine in by_metric.items()
    ]


class Counted(Protocol):
    """How many events the source has from a time on, until the next of its counts."""

    @property
    def start(self) -> datetime: ...

    @property
    def events(self) -> int: ...


def gaps(wanted: Window, known: Iterable[HistoryChunk]) -> Iterator[Window]:
    """The parts of a bounded window that no chunk covers yet."""
    assert wanted.start is not None and wanted.end is not None
    at = wanted.start
    for chunk in sorted(known, key=lambda each: each.window_start):
        if chunk.window_start >= wanted.end:
            break
        if chunk.window_start > at:
            yield Window(at, chunk.window_start)
        at = max(at, chunk.window_end)
    if at < wanted.end:
        yield Window(at, wanted.end)


def years(window: Window) -> Iterator[Window]:
    """The parts of a bounded window that can each be counted with one question, the newest first."""
    assert window.start is not None and window.end is not None
    end = window.end
    while end > window.start:
        start = max(window.start, end - _YEAR)
        yield Window(start, end)
        end = start


def cut(metric_id: str, window: Window, counts: Sequence[Counted], size: int) -> Iterator[HistoryChunk]:
    """Chunks that cover a bounded window without a gap, with about equal numbers of events, at most about `size`.

    A chunk ends where a count begins, so one with a dense hour (legacy: day) can hold more. Empty time belongs to the
    chunk before it: reading it costs nothing.
    """
    assert window.start is not None and window.end is not None
    total = sum(count.events for count in counts)
    share = total / max(1, ceil(total / size))
    start, behind, seen = window.start, 0, 0
    for count in counts:
        is_full = seen > behind and seen + count.events / 2 > behind + share
        if is_full and total - seen > share / 2:  # else the rest is too little for a chunk of its own
            yield HistoryChunk(metric_id, start, count.start, seen - behind)
            start, behind = count.start, seen
        seen += count.events
    yield whole(metric_id, Window(start, window.end), seen - behind)


def whole(metric_id: str, window: Window, events: int) -> HistoryChunk:
    """One chunk of a bounded window. Without events it is done already."""
    assert window.start is not None and window.end is not None
    return HistoryChunk(metric_id, window.start, window.end, events, state="planned" if events else "done")


def uncounted(metric_id: str, window: Window, longest: timedelta) -> Iterator[HistoryChunk]:
    """Chunks of equal length, for a metric whose events the source does not count."""
    assert window.start is not None and window.end is not None
    parts = max(1, -(-(window.end - window.start) // longest))
    step = (window.end - window.start) / parts
    edges = [*((window.start + step * part).replace(microsecond=0) for part in range(parts)), window.end]
    for start, end in pairwise(edges):
        yield HistoryChunk(metric_id, start, end, None)
