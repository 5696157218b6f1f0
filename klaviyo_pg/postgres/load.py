"""Frames into tables: staged COPY, then one upsert. The caller owns the transaction."""

import io
from typing import NamedTuple

import polars as pl
import psycopg
from psycopg import Connection, errors
from psycopg.sql import Composed

from klaviyo_pg.catalogue import Absent, Load
from klaviyo_pg.postgres import statements

_UNSTORABLE = (psycopg.DataError, errors.StatementTooComplex, errors.ProgramLimitExceeded)
_ROWS_OF_TEXT = 2_000  # that are written as text at a time, so that a frame is not in memory twice
_PROBES = 64  # keys that tell whether a batch is new


class Unstorable(NamedTuple):
    """A row that Postgres will not take, as JSON, and Postgres' reason."""

    row: str
    reason: str


class Merged(NamedTuple):
    """What became of a frame: counts of rows, and the rows that could not be stored."""

    rows: int
    inserted: int
    updated: int
    unchanged: int
    unstorable: list[Unstorable]


def merge(
    connection: Connection,
    schema: str,
    load: Load,
    frame: pl.DataFrame,
    integration_id: str,
    is_complete: bool = True,
) -> Merged:
    """Bring a frame into its table, inside the caller's transaction.

    The frame has exactly the schema of the load and one row for each key. Rows that Postgres cannot store are left out
    and answered; everything else is stored whatever they are. Unless the frame is complete, no row counts as absent.
    """
    conformed = frame.select(*load.schema)
    if load.mostly_new and _appended(connection, schema, load, conformed, integration_id):
        return Merged(frame.height, frame.height, 0, 0, [])
    values = {"integration_id": integration_id}
    connection.execute(statements.create_stage(schema, load))
    unstorable = _copy(connection, statements.copy_stage(load), conformed)
    counts = connection.execute(statements.upsert(schema, load), values).fetchone()
    inserted, updated = counts or (0, 0)
    if load.absent is not Absent.STAY and is_complete and not unstorable:
        connection.execute(statements.end_absent(schema, load), values)
    connection.execute(statements.drop_stage(load))
    rows = frame.drop_nulls([name for name in load.table.primary_key if name in frame.columns]).height
    return Merged(rows, inserted, updated, rows - len(unstorable) - inserted - updated, unstorable)


def _appended(connection: Connection, schema: str, load: Load, frame: pl.DataFrame, integration_id: str) -> bool:
    """Append a frame of new rows straight to its table, which takes a third of what merging takes.

    False, and nothing is changed, where some of the rows are there already or cannot be stored.
    """
    [key] = load.table.primary_key
    keys = frame.get_column(key).gather_every(max(1, frame.height // _PROBES)).to_list()
    row = connection.execute(statements.probe(schema, load), {"keys": keys}).fetchone()
    if row is None or row[1]:
        return False
    whole = frame.sort(key).with_columns(
        esp_source=pl.lit(statements.ESP_SOURCE),
        esp_integration_id=pl.lit(integration_id),
        __synced_at=pl.lit(row[0]).dt.convert_time_zone("UTC"),
    )
    try:
        _copy_whole(connection, statements.copy_into(schema, load, whole.columns), whole)
    except (psycopg.IntegrityError, *_UNSTORABLE):
        return False
    return True


def _copy(connection: Connection, statement: Composed, frame: pl.DataFrame) -> list[Unstorable]:
    """COPY a frame; where Postgres refuses a value, halve the frame until the row that holds it stands alone."""
    if frame.is_empty():
        return []
    try:
        _copy_whole(connection, statement, frame)
    except _UNSTORABLE as error:
        if frame.height == 1:
            return [Unstorable(frame.write_ndjson().strip(), error.diag.message_primary or str(error))]
        half = frame.height // 2
        return _copy(connection, statement, frame[:half]) + _copy(connection, statement, frame[half:])
    return []


def _copy_whole(connection: Connection, statement: Composed, frame: pl.DataFrame) -> None:
    """COPY a frame; where it fails, the transaction stands as it did before."""
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
        for part in frame.iter_slices(_ROWS_OF_TEXT):
            copy.write(as_copy_text(part))


def as_copy_text(frame: pl.DataFrame) -> bytes:
    """A frame in the CSV dialect of `statements.copy_stage`.

    JSON holds many double quotes and no control characters, so with \\x01 as the quote hardly a value needs quoting.
    """
    buffer = io.BytesIO()
    frame.write_csv(
        buffer,
        include_header=False,
        separator="\t",
        quote_char="\x01",
        quote_style="necessary",
        null_value="",
        datetime_format="%Y-%m-%d %H:%M:%S%.6f%:z",
    )
    return buffer.getvalue()
