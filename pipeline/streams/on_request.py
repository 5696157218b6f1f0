"""The streams that are read only if TABLES asks for them: the catalog.

A full read finds out what Klaviyo no longer has. What it finds is stored batch by batch under the id of the run, so
that nothing of a large collection is kept in memory.
"""

from collections.abc import Iterator, Sequence

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import sweeps, swept
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Page, Record
from klaviyo_pg.windows import FULL_READ, AnyWindow
from pipeline.batch import Batch
from pipeline.chunks import key_of
from pipeline.streams.dimensions import full_read
from pipeline.streams.stream import Reading, Reads, Stream, SweptPart, by_rows, collected
from transforms import records

_BATCH_ROWS = 2_000  # in one transaction: a page has a hundred
_EVERY_RUN = "every daily run, in full, if TABLES asks for it"


def _batch(reading: Reading, fills: Sequence[Load], rows: Sequence[Record]) -> Batch:
    made = [(load, records.records(rows, load, reading.integration_id)) for load in fills]
    numbers = {load.table.name: each.nul_characters for load, each in made}
    return Batch([(load, each.frame) for load, each in made], nul_characters=numbers)


class _Sweep:
    """One reading of a collection. Only a full read in which every record was readable makes anything absent."""

    def __init__(self, reading: Reading, stream: Stream) -> None:
        self._reading, self._stream = reading, stream
        self._key = key_of(stream.name, reading.subject)
        self._part = SweptPart(reading, self._key)
        self._has_pages = False  # a dialect that does not have the collection returns none
        self._fills = [load for load in stream.loads if load not in (loads.SWEEPS, loads.SWEPT_ROWS)]

    def pages(self) -> Iterator[Page[Record]]:
        reading = self._reading
        for page in reading.source.records(self._stream.name, reading.window, reading.subject):
            self._has_pages = True
            yield page

    def batch(self, pages: Sequence[Page[Record]]) -> Batch:
        if not self._has_pages:
            return Batch()
        rows, rejects = collected(pages)
        made = _batch(self._reading, self._fills, rows)
        found = records.swept(made.frames, self._key, self._reading.run.id)
        frames = [*self._part.record(pages), *made.frames, (loads.SWEPT_ROWS, found)]
        return Batch(frames, {self._stream.table.name: rejects}, made.nul_characters)

    def finish(self, account: Account, guard: Guard) -> None:
        """Mark what is absent, in the transaction of the last rows.

        A read whose loss is not believed keeps what it has found: a resumed run continues it.
        """
        if not self._has_pages:
            return
        sweep = self._reading.run.id
        sweeps.forget_others(account, sweep, self._key)
        if sweeps.finish_part(account, sweep, self._key, self._reading.part, True):
            marked = [swept.mark(account, guard, load.table, self._key, sweep) for load in self._fills]
            if not all(marked):
                return
        swept.forget(account, self._key)


def _swept(name: str, *fills: Load) -> Stream:
    """Declare a stream that every run reads in full, and stores batch by batch."""

    def open_chunk(reading: Reading) -> Reads:
        sweep = _Sweep(reading, stream)
        return Reads(sweep.pages(), sweep.batch, sweep.finish)

    def probe(source: Source, window: AnyWindow, subject: str | None) -> Iterator[Page[Record]]:
        return source.records(name, FULL_READ, subject)

    stream = Stream(
        name,
        open_chunk,
        by_rows,
        _BATCH_ROWS,
        (*fills, loads.SWEPT_ROWS, loads.SWEEPS),
        _EVERY_RUN,
        probe,
        on_request=True,
        is_optional=True,
    )
    return stream


def _small(name: str, load: Load) -> Stream:
    """Declare a stream that every run reads in full, and stores at once."""
    return full_read(
        name,
        lambda source: source.records(name, FULL_READ),
        lambda reading, rows: _batch(reading, [load], rows),
        load,
        rejects=name,
        is_optional=True,
        on_request=True,
    )


CATALOG_CATEGORIES = _small("catalog_categories", loads.CATALOG_CATEGORIES)
CATALOG_ITEMS = _swept("catalog_items", loads.CATALOG_ITEMS, loads.CATALOG_VARIANTS)
DIMENSIONS = (CATALOG_CATEGORIES,)
"""Those that are stored at once."""
LARGE = (CATALOG_ITEMS,)
"""Those that every run reads in full, and stores batch by batch."""
