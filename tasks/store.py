"""Frames into the warehouse, with everything that has to be true at the same moment, in one transaction."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NewType

import polars as pl
from psycopg import Connection

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.klaviyo.rows import Reject
from klaviyo_pg.postgres import erase, ledger
from klaviyo_pg.postgres.load import merge
from klaviyo_pg.settings import Settings
from tasks.run import Run, patiently
from transforms.clean import conformed, last_by
from transforms.erased import without
from transforms.keys import md5
from transforms.personal import Protection, protected, protected_rejects

_REJECT = {"table_name": pl.String(), "reason": pl.String(), "raw": pl.String()}

Counts = Mapping[str, Mapping[str, int]]
"""Table -> rows_read, inserted, updated, unchanged, rejected, nul_characters."""


@dataclass
class Batch:
    """What is stored in one go: frames by load, in an order that all batches keep; rejects by table."""

    frames: Sequence[tuple[Load, pl.DataFrame]]
    rejects: Mapping[str, Sequence[Reject]] = field(default_factory=dict)
    nul_characters: Mapping[str, int] = field(default_factory=dict)


Note = Callable[[Connection], None]
"""Writes down, in the transaction of a batch, what is true once it is stored."""


Protected = NewType("Protected", Batch)
"""A batch that may leave this process, for a disk or a database. Only `protect` makes one of what has been read."""


def protect(batch: Batch, settings: Settings) -> Protected:
    """The batch as PERSONAL_DATA lets it leave this process."""
    if settings.personal_data == "keep":
        return Protected(batch)
    protection = Protection(settings.personal_data == "drop", settings.salt)
    frames = [(load, protected(frame, load, protection)) for load, frame in batch.frames]
    rejects = {table: protected_rejects(found, protection) for table, found in batch.rejects.items()}
    return Protected(replace(batch, frames=frames, rejects=rejects))


def store(run: Run, stream: str, batch: Protected, traffic: Traffic, note: Note) -> Counts:
    """Merge a batch, count it, and note what its caller has to note.

    Waits for a database that is away; nothing is half stored meanwhile. Answers the counts of rows by table.
    """

    def write(connection: Connection) -> Counts:
        counts = _merge(connection, run, stream, batch)
        note(connection)
        ledger.add_counts(connection, run.schema, run.id, run.integration_id, counts)
        ledger.add_requests(connection, run.schema, run.id, traffic)
        return counts

    return patiently(run, write)


def _merge(connection: Connection, run: Run, stream: str, batch: Protected) -> Counts:
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(ledger.COUNTS, 0))
    rejects = {table: list(found) for table, found in batch.rejects.items()}
    erased = erase.erased(connection, run.schema, run.integration_id)
    for load, whole in batch.frames:
        frame = without(whole, load, erased)
        table = load.table.name
        is_complete = not any(reject.hides for reject in batch.rejects.get(table, ()))
        merged = merge(connection, run.schema, load, frame, run.integration_id, is_complete)
        rejects.setdefault(table, []).extend(Reject(row, reason) for row, reason in merged.unstorable)
        counted = counts[table]
        counted["rows_read"] += merged.rows
        counted["inserted"] += merged.inserted
        counted["updated"] += merged.updated
        counted["unchanged"] += merged.unchanged
    for table, found in batch.rejects.items():
        counts[table]["rows_read"] += len(found)
    for table, found in rejects.items():
        counts[table]["rejected"] += len(found)
    for table, nul_characters in batch.nul_characters.items():
        counts[table]["nul_characters"] += nul_characters
    _reject(connection, run, stream, rejects)
    return {table: counted for table, counted in counts.items() if any(counted.values())}


def _reject(connection: Connection, run: Run, stream: str, rejects: Mapping[str, Sequence[Reject]]) -> None:
    found = [(table, reason, raw) for table, records in rejects.items() for raw, reason, _ in records]
    if not found:
        return
    origin = json.dumps([run.integration_id, stream.partition("/")[0]])  # whichever window it is read with
    frame = pl.DataFrame(found, _REJECT, orient="row").with_columns(
        pl.col("raw").str.replace_all("\x00", "\\u0000", literal=True),
        pl.col("reason").str.replace_all("\x00", "", literal=True),
        key=md5(pl.lit(origin) + pl.col("raw")),
        run_id=pl.lit(run.id),
        stream=pl.lit(stream),
        rejected_at=pl.lit(datetime.now(UTC)),
    )
    merge(
        connection, run.schema, loads.REJECTS, conformed(frame.pipe(last_by, "key"), loads.REJECTS), run.integration_id
    )
