"""Units that read chunks of history: into the spool and from there into the warehouse, or into it at once."""

from collections.abc import Sequence

from klaviyo_pg.errors import Busy, Unavailable
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.states import ChunkState
from pipeline.batch import ReadBatch, protection_of
from pipeline.chunks import Chunk
from pipeline.outcome import Outcome, RowCounts, sum_counts
from pipeline.read import Sink, read_each, read_into, warehouse_sink
from pipeline.runs import Run, transact
from pipeline.session import Session
from pipeline.spool import Spool, SpooledChunk, grouped, joined, open_spool
from pipeline.streams.events import EVENTS
from pipeline.streams.stream import nothing
from transforms.events import Metrics

_MAX_PAGES = 16  # that a unit of several chunks reads: seconds to a minute of one reader
_READ_AT_ONCE = 2_000  # events in one batch: what a kill costs each reader at most
_LOADED_AT_ONCE = 6_000  # events in one transaction: large enough for COPY to pay, small enough for flat memory

Outcomes = tuple[Outcome[BackfillChunk], ...]


def label(chunks: Sequence[BackfillChunk], metrics: Metrics) -> str:
    """Return what people see of chunks that one unit reads."""
    first, others = chunks[0], len(chunks) - 1
    name = metrics.names.get(first.metric_id) or first.metric_id
    return f"{name} {first.window}{f' and {others} more' if others else ''}"


def next_group(chunks: Sequence[BackfillChunk], begun: int, events_per_page: int) -> Sequence[BackfillChunk]:
    """Return the chunks after the first `begun` that one unit reads: some pages of small ones, or a single one."""
    pages, end = 0, begun
    while end < len(chunks):
        chunk = chunks[end]
        if chunk.state is not ChunkState.DONE:
            pages += _MAX_PAGES if chunk.expected is None else 1 + chunk.waiting // events_per_page
        if pages > _MAX_PAGES and end > begun:
            break
        end += 1
    return chunks[begun:end]


def as_chunk(chunk: BackfillChunk) -> Chunk:
    """Return a chunk of history as a chunk of the stream of events."""
    return Chunk(EVENTS.name, chunk.window, chunk.metric_id)


def spooled(spool: Spool, run: Run, chunk: BackfillChunk, metrics: Metrics) -> SpooledChunk:
    """Return where a chunk is spooled: its place follows from everything that determines its content.

    The run that planned it is part of that, since a chunk is planned again where what was read is out of date.
    """
    protection = protection_of(run.settings)
    return spool.chunk(
        run.integration_id,
        run.settings.klaviyo_dialect,
        chunk.metric_id,
        str(chunk.window),
        metrics.destinations.get(chunk.metric_id),
        chunk.planned_by,
        protection and sorted(protection.readable),
    )


def _open_spool(run: Run) -> Spool:
    spool = open_spool(run.settings, run.integration_id)
    assert spool is not None, "units that need the spool run only where there is one"
    return spool


class BackfillLedger:
    """The progress of a chunk of history from its checkpoint on, in the table `backfill_chunks`.

    A claim does not keep out a part of a distributed backfill whose machine was suspended while another run read its
    chunks: that run releases the claim when it ends.
    """

    def __init__(self, chunk: BackfillChunk) -> None:
        self._chunk = chunk

    def record(self, account: Account, batch: ReadBatch, seconds: float) -> None:
        """Record how many more events are stored, and the checkpoint.

        Raises Busy if the chunk has another checkpoint than that from which the batch was read.
        """
        reached = None if batch.is_last else batch.reached
        start = self._chunk.left.start
        before = self._chunk._replace(reached=max(batch.start or start, start))
        if not backfill_ledger.advance(account, before, batch.events, seconds, reached):
            raise Busy(f"Another process has read {self._chunk} in the meantime. Nothing is lost: it reads the rest.")


def extract(
    session: Session, run: Run, chunks: Sequence[BackfillChunk], metrics: Metrics, attempt: int = 1
) -> Outcomes:
    """Read chunks into the spool, in the reading processes of the session if it has any."""
    readers = session.readers
    if readers is None:
        return extract_here(session, run, chunks, metrics, attempt)
    return readers.extract(run, chunks, metrics, attempt)


def extract_here(
    session: Session, run: Run, chunks: Sequence[BackfillChunk], metrics: Metrics, attempt: int
) -> Outcomes:
    """Read chunks into the spool in this process, from where the ledger or the spool has got to. Needs no database."""
    spool = _open_spool(run)

    def extract_one(chunk: BackfillChunk) -> Outcome[BackfillChunk]:
        place = spooled(spool, run, chunk, metrics)
        if not place.continues_from(chunk.left.start):
            place.clear()
        if place.is_complete:
            return Outcome(chunk, was_done=True)

        def sink(batch: ReadBatch) -> RowCounts:
            place.put(batch)
            session.progress.add(chunk.metric_id, read=batch.events)
            return {}

        left = chunk.left.resumed_at(place.reached)
        read_into(session, run, as_chunk(chunk), left, lambda _: sink, metrics, _READ_AT_ONCE)
        return Outcome(chunk)

    return read_each(chunks, extract_one, attempt)


def load(session: Session, run: Run, chunks: Sequence[BackfillChunk], metrics: Metrics, attempt: int = 1) -> Outcomes:
    """Load spooled chunks into the warehouse, and delete them from the spool."""
    spool = _open_spool(run)

    def load_one(chunk: BackfillChunk) -> Outcome[BackfillChunk]:
        place = spooled(spool, run, chunk, metrics)
        stored = transact(session, run, lambda account: _begin(account, chunk))
        if stored.state is ChunkState.DONE:
            place.clear()
            return Outcome(chunk, was_done=True)
        if not place.is_complete:
            raise Unavailable(f"The spooled data of {chunk} is no longer there. The next run reads it again.")
        counts = _load_spooled(session, run, stored, place)
        place.clear()
        return Outcome(chunk, counts)

    return read_each(chunks, load_one, attempt)


def _load_spooled(session: Session, run: Run, chunk: BackfillChunk, place: SpooledChunk) -> RowCounts:
    sink = _history_sink(session, run, chunk)
    counts: list[RowCounts] = []
    for group in grouped(place.batches(chunk.left.start), _LOADED_AT_ONCE):
        session.stop.check()
        paths, batch = [path for path, _ in group], joined([batch for _, batch in group])
        group.clear()  # otherwise its frames would be in memory twice
        counts.append(sink(batch))
        for path in paths:
            path.unlink()
    return sum_counts(counts)


def read_at_once(
    session: Session, run: Run, chunks: Sequence[BackfillChunk], metrics: Metrics, attempt: int = 1
) -> Outcomes:
    """Read chunks into the warehouse without spooling them."""

    def read_one(chunk: BackfillChunk) -> Outcome[BackfillChunk]:
        stored = transact(session, run, lambda account: _begin(account, chunk))
        if stored.state is ChunkState.DONE:
            return Outcome(chunk, was_done=True)
        sink = _history_sink(session, run, stored)

        def counting(batch: ReadBatch) -> RowCounts:
            session.progress.add(chunk.metric_id, read=batch.events)
            return sink(batch)

        counts = read_into(session, run, as_chunk(chunk), stored.left, lambda _: counting, metrics, _READ_AT_ONCE)
        return Outcome(chunk, counts)

    return read_each(chunks, read_one, attempt)


def _begin(account: Account, chunk: BackfillChunk) -> BackfillChunk:
    """Record one more attempt, unless the chunk is done, and return it as the ledger has it."""
    backfill_ledger.begin(account, chunk)
    return backfill_ledger.chunk(account, chunk)


def _history_sink(session: Session, run: Run, chunk: BackfillChunk) -> Sink:
    sink = warehouse_sink(session, run, as_chunk(chunk), BackfillLedger(chunk), nothing)

    def counting(batch: ReadBatch) -> RowCounts:
        counts = sink(batch)
        session.progress.add(chunk.metric_id, done=batch.events)
        return counts

    return counting
