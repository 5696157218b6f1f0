"""Reading the chunks of a backfill side by side in this process: extracted by some workers, loaded by others."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from klaviyo_pg.errors import DatabaseUnusable, Stopped
from klaviyo_pg.postgres.ledgers import backfill_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.states import ChunkState
from pipeline.backfill.counting import Counting
from pipeline.backfill.plan import Plan, take_over
from pipeline.backfill.processes import reading_processes
from pipeline.backfill.progress_log import ProgressLog
from pipeline.backfill.reading import Outcomes, extract, label, load, next_group, read_at_once, spooled
from pipeline.job import POLL_SECONDS, Job
from pipeline.outcome import describe
from pipeline.spool import Spool, open_spool
from pipeline.streams.events import stored_metrics
from pipeline.workers import Inbox, Pool

_READERS_PER_LOADER = 2


def read_history(job: Job, plan: Plan) -> None:
    """Read what is left of a plan, while its gaps are still being counted.

    A chunk that fails does not stop the others: the run ends as partial. A request to stop is obeyed after the batches
    in hand; what has been read but not loaded stays in the spool for the next run.

    Raises Busy while parts of a distributed backfill, which has ended, are still reading chunks of the plan.
    """
    if plan.start is not None:
        job.transact(partial(take_over, chunks=plan.chunks))
    workers, count = job.workers, job.worker_count
    with (
        job.session.stop.on_signals(),
        job.session.progress.stage("History", "events", is_counting=plan.needs_counting),
        reading_processes(job.session),
        workers.pool(1) as counter,
        workers.pool(count) as readers,
        workers.pool(max(1, count // _READERS_PER_LOADER)) as loaders,
    ):
        reading = _HistoryReading(job, plan, _Pools(counter, readers, loaders), count)
        while reading.continues():
            job.session.claims.keep()
        reading.report()
        stored = reading.progress_log.stored
    if job.session.stop.is_requested and not job.tally.is_postponed:
        job.tally.add_error(Stopped(f"Stopped after {stored:,} events. Rerun with the same arguments to resume."))


class _Pools(NamedTuple):
    """Workers that count, that read, and that load what has been spooled."""

    counter: Pool
    readers: Pool
    loaders: Pool


class _HistoryReading:
    """Chunks in progress: being extracted, waiting in the spool, being loaded; or, without a spool, both at once."""

    def __init__(self, job: Job, plan: Plan, pools: _Pools, max_readers: int) -> None:
        self._job, self._pools, self._max_readers = job, pools, max_readers
        self._inbox, self._metrics = Inbox(), job.transact(stored_metrics)
        self.progress_log = ProgressLog(job, self._metrics.names)
        self._spool = open_spool(job.run.settings, job.run.integration_id)
        if self._spool:
            self._tidy(self._spool, plan)
        with job.session.source() as source:
            self._events_per_page = source.events_per_page
        self._chunks: list[BackfillChunk] = []
        self._begun = self._being_read = 0
        self._counting = Counting(job, plan, pools.counter, self._inbox, partial(self._note, None))

    def _tidy(self, spool: Spool, plan: Plan) -> None:
        """Delete what would only pause the readers. Other parts of a plan may use the spool, too."""
        spool.delete_expired()
        if plan.start is not None:
            waiting = [chunk for chunk in plan.chunks if chunk.state is not ChunkState.DONE]
            spool.make_room(spooled(spool, self._job.run, chunk, self._metrics) for chunk in waiting)

    def continues(self) -> bool:
        """Begin what can begin, and wait a moment for something to finish. Returns False when everything has."""
        new = self._counting.take()
        self._chunks += new
        self.progress_log.expect(new, self._counting.is_complete)
        while self._begun < len(self._chunks) and self._may_begin():
            group = next_group(self._chunks, self._begun, self._events_per_page)
            self._begun += len(group)
            if waiting := tuple(chunk for chunk in group if chunk.state is not ChunkState.DONE):
                self._read(waiting)
        if not len(self._inbox):
            return False
        self._inbox.handle_next(POLL_SECONDS)
        self.progress_log.log()
        return True

    def report(self) -> None:
        """Add to the job's tally what could not be counted."""
        self._counting.report()

    def _may_begin(self) -> bool:
        job = self._job
        if self._being_read >= self._max_readers or job.session.stop.is_requested or job.tally.must_stop:
            return False
        return self._spool is None or not (len(self._inbox) and self._spool.is_full)

    def _read(self, chunks: Sequence[BackfillChunk]) -> None:
        self._being_read += 1
        name = label(chunks, self._metrics)
        if self._spool is None:
            future = self._pools.readers.submit(name, read_at_once, self._job.run, chunks, self._metrics)
            self._inbox.follow(future, self._was_read, self._was_not_read)
            return
        future = self._pools.readers.submit(f"extract {name}", extract, self._job.run, chunks, self._metrics)
        self._inbox.follow(future, self._load, self._was_not_read)

    def _was_read(self, outcomes: Outcomes) -> None:
        self._being_read -= 1
        self._note_failures(outcomes)

    def _was_not_read(self, error: Exception) -> None:
        self._being_read -= 1
        self._note(None, error)

    def _load(self, outcomes: Outcomes) -> None:
        self._was_read(outcomes)
        chunks = tuple(outcome.chunk for outcome in outcomes if outcome.error is None)
        if chunks and not self._job.session.stop.is_requested:
            name = label(chunks, self._metrics)
            future = self._pools.loaders.submit(f"load {name}", load, self._job.run, chunks, self._metrics)
            self._inbox.follow(future, self._note_failures, partial(self._note, None))

    def _note_failures(self, outcomes: Outcomes) -> None:
        for outcome in outcomes:
            if outcome.error is not None:
                self._note(outcome.chunk, outcome.error)

    def _note(self, chunk: BackfillChunk | None, error: Exception) -> None:
        """Note an error; the ledger has it, too, unless the database is away. A stop is reported once, at the end."""
        if isinstance(error, Stopped):
            return
        job, message = self._job, describe(error)
        job.log.warning("%s: %s", chunk or "History", message)
        job.tally.add_error(error)
        job.session.stop.request_if_throttled(error)
        if chunk is None or job.session.claims.are_lost:
            return
        with suppress(DatabaseUnusable), job.session.database.transaction(waits=False) as connection:
            backfill_ledger.fail(job.run.account(connection), chunk, message)


ReadPlan = Callable[[Job, Plan], None]
"""A way to read a plan: in this process, or in others."""
