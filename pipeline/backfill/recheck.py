"""History that earlier runs have loaded, counted again: chunks of which the source now has more events are replanned.

An import adds events long after their dates. A chunk that has not grown is not read again.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from klaviyo_pg.errors import MissingScope, Refused
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, reconciliation
from klaviyo_pg.rows import Count
from klaviyo_pg.windows import Window, floor
from pipeline.asking import ask_each
from pipeline.backfill.checked_counts import FAILURES, Chunks, PlannedChunks, checked_counts
from pipeline.backfill.chunking import cut, years
from pipeline.outage import Outage
from pipeline.outcome import describe
from pipeline.runs import Run
from pipeline.session import Session


class _Comparable(NamedTuple):
    """Chunks of a metric that can only be compared together, and the source's counts of their time."""

    chunks: Chunks
    counts: list[Count]

    @property
    def metric_id(self) -> str:
        return self.chunks[0].metric_id

    @property
    def window(self) -> Window:
        return Window(self.chunks[0].window_start, self.chunks[-1].window_end)

    @property
    def events(self) -> int:
        """The number of events according to the source."""
        return sum(count.events for count in self.counts)

    @property
    def loaded(self) -> int:
        return sum(chunk.loaded for chunk in self.chunks)

    def has_grown(self, stored: int) -> bool:
        """Return whether the source has events that it did not have before, and that are not stored either."""
        return self.events > max(stored, sum(chunk.expected or 0 for chunk in self.chunks))

    def recounted(self, stored: int) -> list[backfill_ledger.BackfillChunk]:
        """Return the chunks with their new numbers, as far as these are known for each chunk."""
        if len(self.chunks) == 1:
            return [self.chunks[0]._replace(expected=self.events, loaded=stored)]
        if self.events == self.loaded:
            return [chunk._replace(expected=chunk.loaded) for chunk in self.chunks]
        return list(self.chunks)


class _Counted(NamedTuple):
    """Chunks that could be counted, and the reasons why other time of a metric could not, by its ID."""

    comparables: list[_Comparable]
    reasons: Mapping[str, str] = MappingProxyType({})


def recheck(session: Session, run: Run, loaded: Sequence[Chunks]) -> PlannedChunks:
    """Count loaded chunks again; return new chunks for what has grown, once the ledger has them.

    Each element of `loaded` has chunks of one metric that follow each other without a gap.
    """

    def record(account: Account, counted: _Counted) -> PlannedChunks:
        new = (chunk for comparable in counted.comparables for chunk in _settle(account, run, comparable))
        return PlannedChunks(tuple(new), counted.reasons)

    return PlannedChunks.joined(ask_each(session, run, loaded, partial(_count, outage=Outage(FAILURES)), record))


def _count(source: Source, chunks: Chunks, outage: Outage) -> _Counted:
    """Ask for the counts of chunks, and return those that could be counted.

    One request shows that a metric has few events, or when it begins, so that no time before that is counted.
    """
    metric_id, window = chunks[0].metric_id, Window(chunks[0].window_start, chunks[-1].window_end)
    beginning = source.beginning(metric_id, window)
    if beginning is not None and beginning.events is not None:
        return _Counted([_Comparable(chunks, [Count(*window, beginning.events)] if beginning.events else [])])
    first = window.start if beginning is None or beginning.first is None else beginning.first
    step = source.dialect.count_interval
    counts: list[Count] = []
    refused: list[Window] = []
    reasons: dict[str, str] = {}
    for year in years(Window(max(window.start, floor(first, step)), window.end)):
        try:
            counts += checked_counts(source, metric_id, year, outage)
        except (Refused, MissingScope) as error:
            refused.append(year)
            reasons[metric_id] = describe(error)
    comparables = (_Comparable(group, _within(group, counts)) for group in _comparable(chunks, step))
    return _Counted([each for each in comparables if not any(map(each.window.overlaps, refused))], reasons)


def _within(chunks: Chunks, counts: Sequence[Count]) -> list[Count]:
    """Return the counts of the time of some chunks, in order."""
    start, end = chunks[0].window_start, chunks[-1].window_end
    return sorted(count for count in counts if start <= count.start < end)


def _comparable(chunks: Chunks, step: timedelta) -> Iterator[Chunks]:
    """Yield chunks, joined where the source counts no shorter time than that of several."""
    begun = 0
    for number, chunk in enumerate(chunks, 1):
        if floor(chunk.window_end, step) == chunk.window_end or number == len(chunks):
            yield chunks[begun:number]
            begun = number


def _settle(account: Account, run: Run, comparable: _Comparable) -> Chunks:
    """Record the new counts of chunks; return those that replace them if they have grown, the newest first.

    Reconcile may have read events that the ledger does not know.
    """
    stored = comparable.loaded
    if comparable.events > stored:
        stored = max(stored, reconciliation.stored_events(account, comparable.metric_id, comparable.window))
    if not comparable.has_grown(stored):
        backfill_ledger.recount(account, comparable.recounted(stored), run.id)
        return ()
    new = list(cut(comparable.metric_id, comparable.window, comparable.counts, run.settings.chunk_events))
    backfill_ledger.forget(account, [comparable.metric_id], comparable.window, run.id)
    return tuple(backfill_ledger.add(account, new, run.id)[::-1])
