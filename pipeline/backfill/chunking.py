"""History, cut into chunks of about equal numbers of events: values and the arithmetic that plans them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from klaviyo_pg.grouping import grouped
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.rows import Count
from klaviyo_pg.states import ChunkState
from klaviyo_pg.windows import Window

_YEAR = timedelta(days=365)
_MAX_SENTENCES = 10  # differences in sentences; the ledger has the others


class Summary(NamedTuple):
    """The history of a metric: numbers of events and of chunks.

    `expected`, `loaded` and `waiting` are events of chunks that the source counted. `loaded_uncounted` are the loaded
    ones of the others.
    """

    metric_id: str
    expected: int
    loaded: int
    loaded_uncounted: int
    waiting: int
    chunks: int
    done: int
    failed: int
    seconds: float


def summaries(chunks: Iterable[BackfillChunk], window: Window | None = None) -> list[Summary]:
    """Summarize each metric's chunks, of those that overlap the window."""
    overlapping = (chunk for chunk in chunks if window is None or chunk.window.overlaps(window))
    by_metric = grouped((chunk.metric_id, chunk) for chunk in overlapping)
    return [_summary(metric_id, mine) for metric_id, mine in by_metric.items()]


def _summary(metric_id: str, chunks: Sequence[BackfillChunk]) -> Summary:
    return Summary(
        metric_id,
        sum(chunk.expected or 0 for chunk in chunks),
        sum(chunk.loaded for chunk in chunks if chunk.expected is not None),
        sum(chunk.loaded for chunk in chunks if chunk.expected is None),
        sum(chunk.waiting for chunk in chunks),
        len(chunks),
        sum(chunk.state is ChunkState.DONE for chunk in chunks),
        sum(chunk.state is ChunkState.FAILED for chunk in chunks),
        sum(chunk.seconds for chunk in chunks),
    )


def sentences(differing: Iterable[BackfillChunk], names: Mapping[str, str | None]) -> list[str]:
    """Return how chunks that differ do so, by metric, the worst first; a long list is cut short."""
    found = sorted(summaries(differing), key=lambda each: (each.loaded - each.expected, each.metric_id))
    lines = [_sentence(each, names.get(each.metric_id) or each.metric_id) for each in found[:_MAX_SENTENCES]]
    if (more := len(found) - _MAX_SENTENCES) > 0:
        lines.append(f"{more:,} more metric{' differs' if more == 1 else 's differ'}: see klaviyo-pg status.")
    return lines


def _sentence(found: Summary, name: str) -> str:
    return (
        f"{name}, {counted(found.chunks, 'chunk')} of history: the source counts {counted(found.expected, 'event')}, "
        f"the warehouse has {found.loaded:,}."
    )


def gaps(wanted: Window, chunks: Iterable[BackfillChunk]) -> Iterator[Window]:
    """Yield the parts of a window that no chunk covers yet."""
    at = wanted.start
    for chunk in sorted(chunks, key=lambda each: each.window_start):
        if chunk.window_start >= wanted.end:
            break
        if chunk.window_start > at:
            yield Window(at, chunk.window_start)
        at = max(at, chunk.window_end)
    if at < wanted.end:
        yield Window(at, wanted.end)


def adjoining(chunks: Iterable[BackfillChunk]) -> Iterator[tuple[BackfillChunk, ...]]:
    """Yield the chunks in order of time, those together that follow each other without a gap."""
    group: list[BackfillChunk] = []
    for chunk in sorted(chunks, key=lambda each: each.window_start):
        if group and group[-1].window_end != chunk.window_start:
            yield tuple(group)
            group = []
        group.append(chunk)
    if group:
        yield tuple(group)


def years(window: Window) -> Iterator[Window]:
    """Yield the parts of a window that can each be counted with one request, the newest first."""
    end = window.end
    while end > window.start:
        start = max(window.start, end - _YEAR)
        yield Window(start, end)
        end = start


def cut(metric_id: str, window: Window, counts: Sequence[Count], size: int) -> Iterator[BackfillChunk]:
    """Cover a window with chunks without a gap, with about equal numbers of events, at most about `size`.

    A chunk ends where a count begins, so one with a dense hour (legacy: day) can be larger. Time without events belongs
    to the chunk before it: reading it costs nothing.
    """
    total = sum(count.events for count in counts)
    share = total / max(1, ceil(total / size))
    start, before, seen = window.start, 0, 0
    for count in counts:
        is_full = seen > before and seen + count.events / 2 > before + share
        if is_full and total - seen > share / 2:  # otherwise the rest is too small for a chunk
            yield BackfillChunk(metric_id, start, count.start, seen - before)
            start, before = count.start, seen
        seen += count.events
    yield whole(metric_id, Window(start, window.end), seen - before)


def whole(metric_id: str, window: Window, events: int) -> BackfillChunk:
    """Return one chunk for a window. Without events it is done."""
    state = ChunkState.PLANNED if events else ChunkState.DONE
    return BackfillChunk(metric_id, window.start, window.end, events, state=state)


def uncounted_chunks(metric_id: str, window: Window, longest: timedelta) -> Iterator[BackfillChunk]:
    """Cut a window into chunks of equal length, for a metric whose events the source cannot count."""
    parts = max(1, -(-(window.end - window.start) // longest))
    step = (window.end - window.start) / parts
    bounds = [*((window.start + step * part).replace(microsecond=0) for part in range(parts)), window.end]
    for start, end in pairwise(bounds):
        yield BackfillChunk(metric_id, start, end, None)
