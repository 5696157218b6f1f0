"""Counting history at the source: which chunks there are, found out while the first of them are already being read."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from klaviyo_pg.errors import MissingScope, Refused
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.windows import Window, floor
from pipeline.asking import ask_each
from pipeline.backfill.checked_counts import FAILURES, Chunks, PlannedChunks, checked_counts, first_event
from pipeline.backfill.chunking import cut, uncounted_chunks, whole
from pipeline.backfill.plan import Gap, Plan, questions
from pipeline.backfill.recheck import recheck
from pipeline.job import Job
from pipeline.outage import Outage
from pipeline.outcome import describe
from pipeline.reconcile.report import Uncounted
from pipeline.runs import Run
from pipeline.session import Session
from pipeline.workers import Inbox, Pool

Item = TypeVar("Item")
_FIRST_AT_ONCE, _MOST_AT_ONCE = 8, 64  # requests of one unit: few at first, so that reading begins soon
_UNCOUNTED_WINDOW = timedelta(days=30)


def find_beginnings(session: Session, run: Run, missing: Sequence[Gap], start: datetime | None) -> tuple[Chunks, ...]:
    """Find out for each gap what needs no counting: few events, or the time before a metric's first one.

    Asks only for gaps that begin at `start`: what comes before another gap is loaded, so the metric has most likely
    begun by then.
    """
    outage = Outage(FAILURES)

    def ask(source: Source, gap: Gap) -> list[BackfillChunk]:
        return chunks_by_first_event(source, *gap, outage)

    asked = [(metric_id, window) for metric_id, window in missing if window.start == start]
    chunks = dict(zip(asked, ask_each(session, run, asked, ask, partial(_add, run=run)), strict=True))
    return tuple(chunks.get(gap, ()) for gap in missing)


def count_gaps(session: Session, run: Run, asked: Sequence[Gap]) -> PlannedChunks:
    """Ask for counts, cut the time into chunks, and record them. What is recorded is not asked for again."""
    outage = Outage(FAILURES)

    def ask(source: Source, gap: Gap) -> PlannedChunks:
        return chunks_by_count(source, *gap, run.settings.chunk_events, outage)

    def record(account: Account, planned: PlannedChunks) -> PlannedChunks:
        return planned._replace(chunks=_add(account, planned.chunks, run))

    return PlannedChunks.joined(ask_each(session, run, asked, ask, record))


def _add(account: Account, chunks: Sequence[BackfillChunk], run: Run) -> Chunks:
    """Record chunks, and return those that are new to the ledger, the newest first."""
    return tuple(backfill_ledger.add(account, chunks, run.id)[::-1])


def chunks_by_first_event(source: Source, metric_id: str, window: Window, outage: Outage) -> list[BackfillChunk]:
    """Return what needs no counting: the whole window if it has few events, or the time before its first one.

    Returns nothing while the API is unavailable: reading will report that, and counting can do without.
    """
    beginning = first_event(source, metric_id, window, outage)
    if beginning is None:
        return []
    if beginning.events is not None:
        return [whole(metric_id, window, beginning.events)]
    assert beginning.first is not None
    end = floor(beginning.first, source.dialect.count_interval)
    return [whole(metric_id, Window(window.start, end), 0)] if window.start < end else []


def chunks_by_count(source: Source, metric_id: str, window: Window, size: int, outage: Outage) -> PlannedChunks:
    """Return the chunks of a window that can be counted with one request."""
    try:
        counts = checked_counts(source, metric_id, window, outage)
    except (Refused, MissingScope) as error:  # neither every kind of metric nor times of long ago can be counted
        chunks = tuple(uncounted_chunks(metric_id, window, _UNCOUNTED_WINDOW))
        return PlannedChunks(chunks, {metric_id: describe(error)})
    return PlannedChunks(tuple(cut(metric_id, window, counts, size)))


class Counting:
    """Counts the gaps of a plan in a pool, and what earlier runs have loaded.

    `take` returns the chunks that have been found since the last call.
    """

    def __init__(self, job: Job, plan: Plan, pool: Pool, inbox: Inbox, failed: Callable[[Exception], None]) -> None:
        self._job, self._plan, self._pool, self._inbox, self._failed = job, plan, pool, inbox, failed
        self._new: list[BackfillChunk] = list(plan.chunks)
        self._beginnings: dict[int, Sequence[Chunks]] = {}
        self._uncounted = Uncounted()
        self._units = self._without_beginning = 0
        if plan.gaps:
            self._submit_beginnings()
        else:
            self._submit_rechecks()

    @property
    def is_complete(self) -> bool:
        """True once all chunks of the plan have been found."""
        return self._units == 0

    def take(self) -> list[BackfillChunk]:
        """Return chunks that have not been returned before."""
        new, self._new = self._new, []
        return new

    def report(self) -> None:
        """Add to the job's tally what could not be counted."""
        self._job.tally.add_notes(*self._uncounted.sentences)

    def _submit_beginnings(self) -> None:
        for number, missing in enumerate(_growing(self._plan.gaps)):
            self._units += 1
            self._without_beginning += 1
            future = self._pool.submit(
                "find where metrics begin", find_beginnings, self._job.run, missing, self._plan.start
            )
            self._inbox.follow(future, self._begun(number), self._has_failed)

    def _begun(self, number: int) -> Callable[[tuple[Chunks, ...]], None]:
        def then(chunks: tuple[Chunks, ...]) -> None:
            self._beginnings[number] = chunks
            self._new += [chunk for each in chunks for chunk in each]
            self._units -= 1
            self._without_beginning -= 1
            if self._without_beginning == 0:  # otherwise some could not be asked for, and the tally has the error
                self._submit_questions()
                self._submit_rechecks()

        return then

    def _submit_questions(self) -> None:
        answered = [chunks for number in sorted(self._beginnings) for chunks in self._beginnings[number]]
        for asked in _growing(questions(self._plan.gaps, answered)):
            self._units += 1
            future = self._pool.submit("count history", count_gaps, self._job.run, asked)
            self._inbox.follow(future, self._note_chunks, self._has_failed)

    def _submit_rechecks(self) -> None:
        for loaded in _growing(self._plan.loaded):
            self._units += 1
            future = self._pool.submit("count loaded history", recheck, self._job.run, loaded)
            self._inbox.follow(future, self._note_chunks, self._has_failed)

    def _note_chunks(self, result: PlannedChunks) -> None:
        self._new += result.chunks
        for metric_id, reason in result.reasons.items():
            self._uncounted.add(reason, metric_id)
        self._units -= 1

    def _has_failed(self, error: Exception) -> None:
        self._units -= 1
        self._failed(error)


def _growing(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    """Cut a sequence into parts, small ones first."""
    at, size = 0, _FIRST_AT_ONCE
    while at < len(items):
        yield tuple(items[at : at + size])
        at, size = at + size, min(2 * size, _MOST_AT_ONCE)
