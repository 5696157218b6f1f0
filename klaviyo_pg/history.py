"""History, cut into chunks: values and the arithmetic that plans them. No network, no database."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import NamedTuple, Protocol

from klaviyo_pg.windows import Window


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
    def left(self) -> Window:
        """What is still to be read."""
        return Window(self.reached or self.window_start, self.window_end)

    @property
    def waiting(self) -> int:
        """Events that are still to be read, as far as they were counted."""
        return 0 if self.state == "done" else max(0, (self.expected or 0) - self.loaded)

    def __str__(self) -> str:
        return f"{self.metric_id} {Window(self.window_start, self.window_end)}"


class Counted(Protocol):
    """How many events the source has in [start, end)."""

    @property
    def end(self) -> datetime: ...

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


def cut(metric_id: str, window: Window, counts: Sequence[Counted], size: int) -> Iterator[HistoryChunk]:
    """Chunks that cover a bounded window without a gap, with about equal numbers of events, at most about `size`.

    A chunk ends where a count ends, so one with a dense hour (legacy: day) can hold more. Empty time belongs to the
    chunk before it: reading it costs nothing.
    """
    assert window.start is not None and window.end is not None
    total = sum(count.events for count in counts)
    share = total / max(1, ceil(total / size))
    start, behind, seen = window.start, 0, 0
    edge = window.start
    for count in counts:
        is_full = seen > behind and seen + count.events / 2 > behind + share
        if is_full and total - seen > share / 2:  # else the rest is too little for a chunk of its own
            yield HistoryChunk(metric_id, start, edge, seen - behind)
            start, behind = edge, seen
        seen, edge = seen + count.events, count.end
    yield HistoryChunk(metric_id, start, window.end, seen - behind)


def uncounted(metric_id: str, window: Window, longest: timedelta) -> Iterator[HistoryChunk]:
    """Chunks of equal length, for a metric whose events the source does not count."""
    assert window.start is not None and window.end is not None
    parts = max(1, -(-(window.end - window.start) // longest))
    step = (window.end - window.start) / parts
    edges = [*((window.start + step * part).replace(microsecond=0) for part in range(parts)), window.end]
    for start, end in pairwise(edges):
        yield HistoryChunk(metric_id, start, end, None)
