"""The streams that are read only if TABLES asks for them: catalog, coupons, reviews, push tokens, predictions.

A full read finds out what Klaviyo no longer has. What it finds is stored batch by batch under the id of the run, so
that nothing of a large collection is kept in memory.
"""

from collections.abc import Callable, Iterator, Sequence

from klaviyo_pg.catalogue import Load, loads, on_request
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import absent_rows, sweep_ledger, watermarks
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Page, Record
from klaviyo_pg.windows import FULL_READ, AnyWindow
from pipeline.batch import Batch, CleanedFrames, batch_of
from pipeline.chunks import key_of
from pipeline.streams.content import FULL_READS
from pipeline.streams.dimensions import full_read
from pipeline.streams.stream import Finish, OpenedChunk, Reading, Stream, SweptPart, by_rows, collected, nothing
from transforms import records

_BATCH_ROWS = 2_000  # in one transaction: a page has a hundred
_EVERY_RUN = "every daily run, in full, if TABLES asks for it"
_BY_CHANGE = "if TABLES asks for it: every daily run, from a day before its watermark on; every week in full"


def _frames(reading: Reading, fills: Sequence[Load], rows: Sequence[Record]) -> CleanedFrames:
    return [(load, records.records(rows, load, reading.integration_id)) for load in fills]


class _CollectionRead:
    """One reading of a collection. Only a full read in which every record was readable makes anything absent.

    Where a subject limits it, `owner` is the column with the key of that. A collection that does not show what is
    absent has no `is_sweep`.
    """

    def __init__(self, reading: Reading, stream: Stream, owner: str | None) -> None:
        self._reading, self._stream = reading, stream
        self._key = key_of(stream.name, reading.subject)
        self._owner = (owner, reading.subject) if owner and reading.subject else None
        self._is_sweep = reading.is_full_read and loads.SWEPT_ROWS in stream.loads
        self._part = SweptPart(reading, self._key)
        self._has_pages = False  # a dialect that does not have the collection returns none
        self._fills = [load for load in stream.loads if load not in (loads.SWEEPS, loads.SWEPT_ROWS)]

    def pages(self) -> Iterator[Page[Record]]:
        reading = self._reading
        for page in reading.source.records(self._stream.name, reading.window, reading.subject):
            self._has_pages = True
            yield page

    def batch(self, pages: Sequence[Page[Record]]) -> Batch:
        rows, rejects = collected(pages)
        frames = _frames(self._reading, self._fills, rows)
        if self._is_sweep and self._has_pages:
            found = records.swept(frames, self._key, self._reading.run.id)
            frames = [*self._part.record(pages), *frames, (loads.SWEPT_ROWS, found)]
        return batch_of(frames, {self._stream.table.name: rejects})

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
        is_readable = sweep_ledger.finish_part(account, sweep, self._key, self._reading.part, True)
        if is_readable:
            believed = [
                absent_rows.mark_unswept(account, guard, load.table, self._key, sweep, self._owner)
                for load in self._fills
            ]
            if not all(believed):
                return False
        absent_rows.forget_swept(account, self._key)
        return is_readable


def _large(
    name: str,
    *fills: Load,
    cursor: str | None = None,
    subject: str | None = None,
    is_swept: bool = True,
    needs: frozenset[str] = frozenset(),
) -> Stream:
    """Declare a stream that is stored batch by batch: read in full by every run, or by the time of the last change."""

    def open_chunk(reading: Reading) -> OpenedChunk:
        read = _CollectionRead(reading, stream, subject and f"{subject}_key")
        return OpenedChunk(read.pages(), read.batch, read.finish)

    def probe(source: Source, window: AnyWindow, wanted: str | None) -> Iterator[Page[Record]]:
        return iter(()) if subject and wanted is None else source.records(name, window, wanted)

    stream = Stream(
        name,
        open_chunk,
        by_rows,
        _BATCH_ROWS,
        (*fills, loads.SWEPT_ROWS, loads.SWEEPS) if is_swept else fills,
        _BY_CHANGE if cursor else _EVERY_RUN,
        probe,
        cursor=cursor,
        subject=subject,
        on_request=True,
        needs=needs,
        is_optional=True,
    )
    return stream


def _small(name: str, load: Load, finish: Callable[[Reading], Finish] = lambda reading: nothing) -> Stream:
    """Declare a stream that every run reads in full, and stores at once."""
    return full_read(
        name,
        lambda source: source.records(name, FULL_READ),
        lambda reading, rows: _frames(reading, [load], rows),
        load,
        rejects=name,
        finish=finish,
        is_optional=True,
        on_request=True,
    )


def _mark_codes(reading: Reading) -> Finish:
    """Mark the codes of deleted coupons, which are not read any more."""

    def mark(account: Account, guard: Guard) -> None:
        absent_rows.mark_owned(account, on_request.COUPON_CODES, "coupon_key", on_request.COUPONS)
        absent_rows.forget_owned(account, COUPON_CODES.name, on_request.COUPONS)

    return mark


CATALOG_CATEGORIES = _small("catalog_categories", loads.CATALOG_CATEGORIES)
CATALOG_ITEMS = _large("catalog_items", loads.CATALOG_ITEMS, loads.CATALOG_VARIANTS)
COUPONS = _small("coupons", loads.COUPONS, _mark_codes)
COUPON_CODES = _large("coupon_codes", loads.COUPON_CODES, subject="coupon", needs=frozenset({COUPONS.name}))
REVIEWS = _large("reviews", loads.REVIEWS, cursor="updated")
PUSH_TOKENS = _large("push_tokens", loads.PUSH_TOKENS)
MEMBER_PREDICTIONS = _large("member_predictions", loads.MEMBER_PREDICTIONS, cursor="updated", is_swept=False)
DIMENSIONS = (CATALOG_CATEGORIES, COUPONS)
"""Those that are stored at once."""
LARGE = (CATALOG_ITEMS, COUPON_CODES, PUSH_TOKENS)
"""Those that every run reads in full, and stores batch by batch."""
BY_CHANGE = (REVIEWS, MEMBER_PREDICTIONS)
"""Those that are read by the time of the last change, and every week in full."""
STREAMS = (*LARGE, *BY_CHANGE)
"""Those that are not stored at once."""
