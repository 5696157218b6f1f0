"""History that earlier runs have loaded, counted again: chunks of which the source now has more events are replanned.

An import adds events long after their dates. A chunk that has not grown is not read again.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import NamedTuple

from klaviyo_pg.errors import MissingScope, Refused
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import backfill_ledger, reconciliation, run_ledger
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.rows import Count
from klaviyo_pg.windows import Window, floor
from pipeline.backfill.chunking import cut, years
from pipeline.backfill.counted import FAILURES, Chunks, PlannedChunks, checked_counts
from pipeline.outage import Outage
from pipeline.outcome import describe
from pipeline.runs import Run, transact
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


def recheck(session: Session, run: Run, loaded: Sequence[Chunks]) -> PlannedChunks:
    """Count loaded chunks again; return new chunks for what has grown, once the ledger has them.

    Each element of `loaded` has chunks of one metric that follow each other without a gap.
    """

    outage = Outage(FAILURES)

    def check(chunks: Chunks) -> PlannedChunks:
        session.stop.check()
        with session.source() as source:
            before = source.traffic
            comparables, reason = _count(source, chunks, outage)
            sent = source.traffic.since(before)

        def record(account: Account) -> Chunks:
            run_ledger.add_requests(account, run.id, sent)
            return tuple(new for comparable in comparables for new in _settle(account, run, comparable))

        return PlannedChunks(transact(session, run, record), {chunks[0].metric_id: reason} if reason else {})

    with ThreadPoolExecutor(session.worker_count()) as pool:
        return PlannedChunks.joined(pool.map(check, loaded))


def _count(source: Source, chunks: Chunks, outage: Outage) -> tuple[list[_Comparable], str | None]:
    """Ask for the counts of chunks, and return those that could be counted; with the reason if others could not.

    One request shows that a metric has few events, or when it begins, so that no time before that is counted.
    """
    metric_id, window = chunks[0].metric_id, Window(chunks[0].window_start, chunks[-1].window_end)
    beginning = source.beginning(metric_id, window)
    if beginning is not None and beginning.events is not None:
        return [_Comparable(chunks, [Count(*window, beginning.events)] if beginning.events else [])], None
    first = window.start if beginning is None or beginning.first is None else beginning.first
    step = source.dialect.count_interval
    counts: list[Count] = []
    refused: list[Window] = []
    reason = None
    for year in years(Window(max(window.start, floor(first, step)), window.end)):
        try:
            counts += checked_counts(source, metric_id, year, outage)
        except (Refused, MissingScope) as error:
            refused.append(year)
            reason = describe(error)
    comparables = [_Comparable(group, _within(group, counts)) for group in _comparable(chunks, step)]
    return [
        comparable for comparable in comparables if not any(comparable.window.overlaps(year) for year in refused)
    ], reason


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
