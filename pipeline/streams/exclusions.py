"""Addresses that are excluded from email marketing: a full read in chunks, by reason, of which each batch is stored.

An address counts as excluded from the batch on that contains it. Only the end of a full read of which every chunk is
complete changes stored rows, and ends the exclusion of addresses that it lacks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import polars as pl

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import excluded
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import run_ledger, sweep_ledger, watermarks
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Exclusion, Page
from pipeline.batch import Batch, batch_of
from pipeline.chunks import key_of
from pipeline.streams.stream import OpenedChunk, Reading, Stream, SweptPart, by_rows, collected
from transforms import membership
from transforms.clean import Cleaned

_NAME = "exclusions"
_BATCH_ROWS = 5_000  # addresses in one transaction: a page has a hundred


class _Part:
    """One chunk of the full read."""

    def __init__(self, reading: Reading) -> None:
        self._reading, self._key = reading, key_of(_NAME, reading.subject)
        self._part = SweptPart(reading, self._key)
        self._was_allowed = True

    def pages(self) -> Iterator[Page[Exclusion]]:
        reading = self._reading
        for page in reading.source.exclusions(reading.subject, reading.window):
            self._was_allowed &= not page.incomplete
            yield page

    def batch(self, pages: Sequence[Page[Exclusion]]) -> Batch:
        rows, rejects = collected(pages)
        exclusions = membership.exclusions(rows, self._reading.run.account_id)
        part = f"{self._key} {self._reading.part}"
        swept = exclusions.frame.with_columns(sweep=pl.lit(self._reading.run.id), part=pl.lit(part))
        frames = [
            *self._part.record(pages),
            (loads.SWEPT_EXCLUSIONS, Cleaned(swept)),
            (loads.NEW_EXCLUSIONS, exclusions),
        ]
        return batch_of(frames, {"member_exclusions": rejects})

    def finish(self, account: Account, guard: Guard) -> None:
        """Complete the part, and with the last one the full read, whose loss is that of all parts."""
        run = self._reading.run
        if not self._was_allowed:
            return
        sweep_ledger.lock(account, run.id, _NAME)
        has_all = not run_ledger.has_rejected(account, run.id, loads.SWEPT_EXCLUSIONS.table.name)
        sweep_ledger.finish_part(account, run.id, self._key, self._reading.part, has_all)
        standing = sweep_ledger.standing(account, run.id, _NAME, (self._key, self._reading.part))
        if not standing.is_done:
            return
        whole = replace(guard, stream=_NAME)
        run_ledger.add_counts(account, run.id, excluded.merge(account, run.id, standing.is_complete, whole))
        if guard.believes_losses:
            excluded.forget(account)
            sweep_ledger.forget(account, _NAME)
            watermarks.advance(account, _NAME, None, run.as_of, EXCLUSIONS.table.name)


def _open(reading: Reading) -> OpenedChunk:
    part = _Part(reading)
    return OpenedChunk(part.pages(), part.batch, part.finish)


EXCLUSIONS = Stream(
    _NAME,
    _open,
    by_rows,
    _BATCH_ROWS,
    (loads.MEMBER_EXCLUSIONS, loads.STG_MEMBER_EXCLUSIONS, loads.SWEPT_EXCLUSIONS, loads.SWEEPS),
    schedule="every daily run, in full",
    probe=lambda source, window, reason: source.exclusions(source.dialect.exclusion_reasons[0], window),
    cursor="created",
    subject="reason",
    is_read_in_parts=True,
)
