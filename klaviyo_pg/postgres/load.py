"""Frames into tables: staged COPY, then one upsert. The caller owns the transaction."""

import io
from typing import NamedTuple

import polars as pl
import psycopg
from psycopg import Connection, errors
from psycopg.sql import Composed

from klaviyo_pg.catalogue import Absent, Load
from klaviyo_pg.postgres import statements


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


def merge(connection: Connection, schema: str, load: Load, frame: pl.DataFrame, integration_id: str) -> Merged:
    """Bring a frame into its table, inside the caller's transaction.

    The frame has exactly the schema of the load and one row for each key. Rows that Postgres cannot store are left out
    and answered; everything else is stored whatever they are.
    """
    values = {"integration_id": integration_id}
    connection.execute(statements.create_stage(schema, load))
    unstorable = _copy(connection, statements.copy_stage(load), frame.select(*load.schema))
    counts = connection.execute(statements.upsert(schema, load), values).fetchone()
    inserted, updated = counts or (0, 0)
    if load.absent is not Absent.STAY:
        connection.execute(statements.end_absent(schema, load), values)
    connection.execute(statements.drop_stage(load))
    rows = frame.drop_nulls([name for name in load.table.primary_key if name in frame.columns]).height
    return Merged(rows, inserted, updated, rows - len(unstorable) - inserted - updated, unstorable)


def _copy(connection: Connection, statement: Composed, frame: pl.DataFrame) -> list[Unstorable]:
    """COPY a frame; where Postgres refuses a value, halve the frame until the row that holds it stands alone."""
    if frame.is_empty():
        return []
    try:
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(as_copy_text(frame))
    except (psycopg.DataError, errors.StatementTooComplex, errors.ProgramLimitExceeded) as error:
        if frame.height == 1:
            return [Unstorable(frame.write_ndjson().strip(), error.diag.message_primary or str(error))]
        half = frame.height // 2
        return _copy(connection, statement, frame[:half]) + _copy(connection, statement, frame[half:])
    return []


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
