"""Collections that are stored batch by batch, and of which a full read shows what Klaviyo no longer has.

What a full read finds is stored under the id of the run, so that nothing of a large collection is kept in memory and an
interrupted read can be resumed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from klaviyo_pg.catalogue import Absent, Load, loads
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import absent_rows
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import sweep_ledger, watermarks
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Page, Reject
from klaviyo_pg.windows import AnyWindow
from pipeline.batch import Batch, CleanedFrames, batch_of
from pipeline.chunks import key_of
from pipeline.streams.stream import OpenedChunk, Reading, Stream, SweptPart, by_rows, collected
from transforms import records

FULL_READS = "content_read"
"""The name under which watermarks record when a collection with a cursor was last read in full."""

ReadPages = Callable[[Source, AnyWindow, str | None], Iterator[Page[Any]]]
"""Reads a window of a collection, limited to a subject if there is one."""
ToFrames = Callable[[Reading, list[Any]], CleanedFrames]
RejectsOf = Callable[[list[Any]], Mapping[str, Sequence[Reject]]]
"""Returns, by table, what was unreadable within rows."""


class _CollectionRead:
    """One reading of a collection. Only a full read in which every record was readable makes anything absent.

    Where a subject limits it, such as a coupon, the table has the key of that in a column, such as coupon_key.
    """

    def __init__(
        self, reading: Reading, stream: Stream, read: ReadPages, to_frames: ToFrames, rejects: RejectsOf
    ) -> None:
        self._reading, self._stream, self._read = reading, stream, read
        self._to_frames, self._rejects = to_frames, rejects
        self._key = key_of(stream.name, reading.subject)
        self._owner = (f"{stream.subject}_key", reading.subject) if reading.subject else None
        self._is_sweep = reading.is_full_read and loads.SWEPT_ROWS in stream.loads
        self._part = SweptPart(reading, self._key)
        self._is_complete = True
        self._has_pages = False  # a dialect that does not have the collection returns none

    def pages(self) -> Iterator[Page[Any]]:
        for page in self._read(self._reading.source, self._reading.window, self._reading.subject):
            self._has_pages = True
            self._is_complete &= page.incomplete is None
            yield page

    def batch(self, pages: Sequence[Page[Any]]) -> Batch:
        rows, rejects = collected(pages)
        frames = self._to_frames(self._reading, rows)
        if self._is_sweep and self._has_pages:
            found = [(load, each) for load, each in frames if _is_swept(load)]
            swept = records.swept(found, self._key, self._reading.run.id)
            frames = [*self._part.record(pages), *frames, (loads.SWEPT_ROWS, swept)]
        return batch_of(frames, {self._stream.table.name: rejects, **self._rejects(rows)})

    def finish(self, account: Account, guard: Guard) -> None:
        """Mark what is absent, in the transaction of the last rows, and record the full read.

        A read whose loss is not believed keeps what it has found: a resumed run continues it.
        """
        if not (self._has_pages and self._reading.is_full_read):
            return
        if self._is_sweep and not self._is_believed(account, guard):
            return
        if self._stream.cursor:
            watermarks.advance(account, key_of(FULL_READS, self._stream.name), None, self._reading.run.as_of, None)

    def _is_believed(self, account: Account, guard: Guard) -> bool:
        sweep = self._reading.run.id
        sweep_ledger.forget_others(account, sweep, self._key)
        is_readable = sweep_ledger.finish_part(account, sweep, self._key, self._reading.part, self._is_complete)
        if is_readable:
            believed = [
                absent_rows.mark_unswept(account, guard, load.table, self._key, sweep, self._owner)
                for load in filter(_is_swept, self._stream.loads)
            ]
            if not all(believed):
                return False
        absent_rows.forget_swept(account, self._key)
        return is_readable


def _is_swept(load: Load) -> bool:
    """Return whether the end of a full read shows what is absent: not each batch, as for the versions of a form."""
    return load.absent is Absent.KEEP and load not in (loads.SWEEPS, loads.SWEPT_ROWS)


def collection(
    name: str,
    read: ReadPages,
    to_frames: ToFrames,
    *fills: Load,
    batch_rows: int,
    schedule: str,
    rejects: RejectsOf = lambda rows: {},
    cursor: str | None = None,
    subject: str | None = None,
    is_swept: bool = True,
    on_request: bool = False,
    needs: frozenset[str] = frozenset(),
) -> Stream:
    """Declare a stream that is stored batch by batch: read in full by every run, or by the time of the last change.

    `is_swept` says that a full read shows what is absent.
    """

    def open_chunk(reading: Reading) -> OpenedChunk:
        opened = _CollectionRead(reading, stream, read, to_frames, rejects)
        return OpenedChunk(opened.pages(), opened.batch, opened.finish)

    def probe(source: Source, window: AnyWindow, wanted: str | None) -> Iterator[Page[Any]]:
        return iter(()) if subject and wanted is None else read(source, window, wanted)

    stream = Stream(
        name,
        open_chunk,
        by_rows,
        batch_rows,
        (*fills, loads.SWEPT_ROWS, loads.SWEEPS) if is_swept else fills,
        schedule,
        probe,
        cursor=cursor,
        subject=subject,
        on_request=on_request,
        needs=needs,
        is_optional=True,
    )
    return stream
