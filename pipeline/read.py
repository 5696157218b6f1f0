"""The one reader: a chunk of any stream, from its checkpoint on, batch by batch into a sink."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Protocol, TypeVar

from klaviyo_pg.errors import (
    Incomplete,
    MissingScope,
    QuotaUsedUp,
    Refused,
    Stopped,
    SweepLost,
    Throttled,
    UnconfirmedLoss,
    UserError,
)
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import chunk_ledger, watermarks
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.states import ChunkState
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.uptime import uptime
from klaviyo_pg.windows import AnyWindow, divided, exact
from pipeline.batch import Batch, ReadBatch, protect
from pipeline.chunks import Chunk, key_of
from pipeline.clocks import check_reading
from pipeline.outage import Outage
from pipeline.outcome import Outcome, RowCounts, sum_counts
from pipeline.runs import Run, add_requests, transact
from pipeline.session import Session
from pipeline.store import store
from pipeline.streams import STREAMS
from pipeline.streams.stream import Finish, Group, Reading
from transforms.events import Metrics

_FIRST_ROWS = 1  # progress begins with the first page; of history, whose batches are small, with the first batch
_MOST_PIECES = 8  # of a chunk that is divided: as many as read side by side
_LEAST_ROWS = 2_000  # that each piece is expected to have
_FINAL = (UserError, Throttled, QuotaUsedUp, Stopped)  # errors that concern all chunks of a group
_FAILURES = 2  # consecutive failures of the API within a group, after which the rest of it is not tried

ChunkType = TypeVar("ChunkType")
Sink = Callable[[ReadBatch], RowCounts]
"""Takes a batch; returns the counts of the rows that it has stored."""


IsEnough = Callable[[ReadBatch, Source], bool]
"""Returns whether reading ends after a batch, although more follows."""


def never(batch: ReadBatch, source: Source) -> bool:
    """Read everything."""
    return False


def read_into(
    session: Session,
    run: Run,
    chunk: Chunk,
    window: AnyWindow,
    sink_for: Callable[[Finish], Sink],
    metrics: Metrics | None = None,
    batch_rows: int | None = None,
    is_enough: IsEnough = never,
) -> RowCounts:
    """Read what is left of a chunk, `window`, into a sink.

    `sink_for` gets what the end of the chunk has to record. Reading ends early once `is_enough` says so of a stored
    batch. Raises the errors of klaviyo_pg.errors; requests that no batch accounts for are noted then. If the API
    refused a part of a collection, the rest is stored before Incomplete is raised.
    """
    stream = STREAMS[chunk.stream]
    session.stop.check()
    counts: list[RowCounts] = []
    incomplete: Incomplete | None = None
    with session.source() as source:
        reading = Reading(session, run, source, chunk, window, metrics)
        meter = _Meter(source, window)
        try:
            reads = stream.open(reading)
            sink = sink_for(reads.finish)
            for group in stream.group(reads.pages, batch_rows or stream.batch_rows, 0 if batch_rows else _FIRST_ROWS):
                prepared = reads.prepare(group.pages)
                with session.batch_turn:
                    batch = meter.measure(group, reading, reads.batch(prepared))
                counts.append(sink(batch))
                incomplete = incomplete or batch.incomplete
                reads.stored(group.pages)
                if not batch.is_last:
                    session.stop.check()
                    if is_enough(batch, source):
                        add_requests(session, run, meter.unrecorded)
                        break
        except Exception as error:
            session.stop.request_if_throttled(error)
            add_requests(session, run, meter.unrecorded)
            raise
    if incomplete:
        raise incomplete
    return sum_counts(counts)


class _Meter:
    """Measures what each batch took: time, and requests of the API client that read it. Notices a clock that is set."""

    def __init__(self, source: Source, window: AnyWindow) -> None:
        self._source, self._start = source, window.start
        self._traffic, self._began = source.traffic, monotonic()
        self._opened = uptime()

    @property
    def unrecorded(self) -> Traffic:
        """Requests since the last batch."""
        return self._source.traffic.since(self._traffic)

    def measure(self, group: Group, reading: Reading, batch: Batch) -> ReadBatch:
        """Return a batch with what it took since the last one."""
        now, traffic = monotonic(), self._source.traffic
        measured = ReadBatch(
            protect(batch, reading.run.settings),
            self._start,
            group.reached,
            group.is_last,
            group.rows,
            now - self._began,
            traffic.since(self._traffic),
            group.incomplete,
        )
        self._start, self._traffic, self._began = group.reached or self._start, traffic, now
        self._check_clock(group, reading.session)
        return measured

    def _check_clock(self, group: Group, session: Session) -> None:
        """Raise ClocksDiffer if the machine's clock has been set since a page of the group was read."""
        now, elapsed = session.now(), timedelta(seconds=uptime() - self._opened)
        for page in group.pages:
            check_reading(page.read_at, now, elapsed, session.clock_tolerance)


class Ledger(Protocol):
    """The record of one chunk's progress."""

    def record(self, account: Account, batch: ReadBatch, seconds: float) -> None:
        """Record that a batch is stored; `seconds` is what reading and storing it took."""
        ...


def warehouse_sink(
    session: Session, run: Run, chunk: Chunk, ledger: Ledger, finish: Finish, is_repeated: bool = False
) -> Sink:
    """Return a sink that stores each batch with the chunk's progress; with the last one it calls `finish`.

    The sink raises UnconfirmedLoss, and stores nothing, where the batch loses too many rows to believe it. Where the
    read `is_repeated`, it stores the batch first, without its losses and without the end of the chunk.
    """
    whole = Guard(chunk.key, run.settings.max_loss_percent / 100, run.as_of)

    def sink(batch: ReadBatch) -> RowCounts:
        began = monotonic()

        def store_with(guard: Guard) -> RowCounts:
            def record(account: Account) -> None:
                if batch.is_last:
                    finish(account, guard)
                if guard.believes_losses:
                    ledger.record(account, batch, batch.seconds + monotonic() - began)

            return store(session, run, chunk, batch.batch, batch.traffic, guard, record, batch.incomplete is None)

        try:
            return store_with(whole)
        except UnconfirmedLoss:
            if is_repeated:
                store_with(whole.believing_no_losses())
            raise

    return sink


class RunLedger:
    """The progress of a chunk of a run, in the table `chunks`, and the watermarks of its stream."""

    def __init__(self, run: Run, chunk: Chunk) -> None:
        self._run, self._chunk = run, chunk

    def record(self, account: Account, batch: ReadBatch, seconds: float) -> None:
        """Record the checkpoint, or that the chunk is done; with the last chunk of a stream its watermarks advance.

        An incomplete chunk stays as it is, so that the next run reads it again.
        """
        run, chunk = self._run, self._chunk
        if batch.incomplete:
            return
        if not batch.is_last:
            if batch.reached is not None:
                chunk_ledger.advance(account, run.id, chunk.key, chunk.part, batch.reached)
        elif chunk_ledger.finish(account, run.id, chunk.key, chunk.part):
            table = STREAMS[chunk.stream].table.name
            for subject in chunk.marks:
                stream = key_of(chunk.stream, subject)
                watermarks.advance(account, stream, chunk.start, run.as_of, table, subject)


class Division:
    """The part of a divisible chunk that its reader reads itself, and the division of the rest.

    The number of people in a window cannot be requested. So the rest is estimated from the latest time in it, for which
    one request is sent, and from how fast time passed in the last batches; and windows with more than that are divided
    again. It is looked at after 2, 4, 8 ... batches.
    """

    def __init__(self, session: Session, run: Run, chunk: Chunk, window: AnyWindow) -> None:
        self._session, self._run, self._chunk, self._window = session, run, chunk, window
        self._batches, self._next, self._rows = 0, 2, 0
        self._since = window.start

    def is_enough(self, batch: ReadBatch, source: Source) -> bool:
        """Divide what is left after a batch, if it is much. Return whether it was divided."""
        self._batches, self._rows = self._batches + 1, self._rows + batch.events
        if self._since is None:
            self._since, self._rows = batch.reached, 0
        if self._batches < self._next or batch.reached is None or self._since is None:
            return False
        seconds = (batch.reached - self._since).total_seconds()
        windows = self._pieces(source, self._window.resumed_at(batch.reached), seconds)
        self._next, self._since, self._rows = 2 * self._next, batch.reached, 0
        if len(windows) > 1:
            self._divide(windows)
        return len(windows) > 1

    def _pieces(self, source: Source, left: AnyWindow, seconds: float) -> list[AnyWindow]:
        last = source.latest_change(left)
        if last is None or left.start is None or last <= left.start:
            return []
        expected = self._rows / max(seconds, 1.0) * (last - left.start).total_seconds()
        pieces = min(_MOST_PIECES, int(expected / _LEAST_ROWS))
        return divided(left, last, pieces) if pieces > 1 else []

    def _divide(self, windows: Sequence[AnyWindow]) -> None:
        run, chunk, parts = self._run, self._chunk, [exact(window) for window in windows]
        transact(self._session, run, lambda account: chunk_ledger.divide(account, run.id, chunk.key, chunk.part, parts))


def read_chunks(session: Session, run: Run, chunks: Sequence[Chunk], attempt: int = 1) -> tuple[Outcome[Chunk], ...]:
    """Read chunks of a run into the warehouse, one after the other."""
    are_refused_together = any(STREAMS[chunk.stream].in_turn for chunk in chunks)
    final = (*_FINAL, MissingScope, Refused) if are_refused_together else _FINAL
    return read_each(chunks, lambda chunk: _read_chunk(session, run, chunk), attempt, final)


def _read_chunk(session: Session, run: Run, chunk: Chunk) -> Outcome[Chunk]:
    """Read what is left of a chunk. It is read once more, from its beginning, if it loses too many rows to believe it,
    or if the database has lost what was stored of it.

    Raises UnconfirmedLoss if it still loses them: then its rows are stored, but it is not done.
    """
    progress = transact(session, run, lambda account: chunk_ledger.progress(account, run.id, chunk.key, chunk.part))
    if progress.state is ChunkState.DONE:
        return Outcome(chunk, was_done=True)

    try:
        return _read_window(session, run, chunk, chunk.window.resumed_at(_past(session, progress.reached)))
    except (UnconfirmedLoss, SweepLost):
        return _read_window(session, run, chunk, chunk.window, is_repeated=True)


def _past(session: Session, reached: datetime | None) -> datetime | None:
    """Return a checkpoint, or the present if it is in the future, as events can be: the API refuses such a time."""
    return reached and min(reached, session.now() - session.clock_tolerance)


def _read_window(
    session: Session, run: Run, chunk: Chunk, window: AnyWindow, is_repeated: bool = False
) -> Outcome[Chunk]:
    def sink_for(finish: Finish) -> Sink:
        sink = warehouse_sink(session, run, chunk, RunLedger(run, chunk), finish, is_repeated)

        def counting(batch: ReadBatch) -> RowCounts:
            counts = sink(batch)
            session.progress.add(chunk.stream, rows=Outcome(chunk, counts).rows_read)
            return counts

        return counting

    division = Division(session, run, chunk, window)
    counts = read_into(
        session, run, chunk, window, sink_for, is_enough=division.is_enough if chunk.is_divisible else never
    )
    return Outcome(chunk, counts)


def read_each(
    chunks: Sequence[ChunkType],
    read_one: Callable[[ChunkType], Outcome[ChunkType]],
    attempt: int = 1,
    final: tuple[type[Exception], ...] = _FINAL,
) -> tuple[Outcome[ChunkType], ...]:
    """Read chunks one after the other; one that fails does not stop the others.

    What concerns all of them ends the group at once: an error that is `final`, such as a stop, something the user has
    to change or a long pause that the API requires; or an API that does not answer. Later attempts begin further on, so
    that chunks that always fail cannot keep the others waiting. Chunks that were not tried have no outcome.
    """
    first = (attempt - 1) * _FAILURES % max(1, len(chunks))
    outage, outcomes = Outage(_FAILURES), list[Outcome[ChunkType]]()
    for chunk in [*chunks[first:], *chunks[:first]]:
        try:
            outcomes.append(read_one(chunk))
        except Exception as error:
            outcomes.append(Outcome(chunk, error=error))
            outage.failed(error)
            if outage.error or isinstance(error, final):
                break
        else:
            outage.succeeded()
    return tuple(outcomes)
