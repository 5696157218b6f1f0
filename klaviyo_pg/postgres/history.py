"""The ledger of the backfill: which chunks of history there are to read, and how far each has been read.

The caller owns the transaction; progress is noted in that of the rows, so the ledger never claims what is not there.
"""

from collections.abc import Iterable
from datetime import datetime

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.history import HistoryChunk
from klaviyo_pg.windows import Window

_COLUMNS = "metric_id, window_start, window_end, expected, loaded, reached, state, seconds"
_WHICH = "esp_integration_id = %s AND metric_id = %s AND window_start = %s"


def _sql(schema: str, query: str) -> Composed:
    return SQL(query).format(Identifier(schema, bookkeeping.BACKFILL_CHUNKS.name))


def chunks(connection: Connection, schema: str, integration_id: str) -> list[HistoryChunk]:
    """Everything in the ledger, by metric and time."""
    query = _sql(schema, f"SELECT {_COLUMNS} FROM {{}} WHERE esp_integration_id = %s ORDER BY metric_id, window_start")
    with connection.cursor(row_factory=class_row(HistoryChunk)) as cursor:
        return cursor.execute(query, [integration_id]).fetchall()


def chunk(connection: Connection, schema: str, integration_id: str, which: HistoryChunk) -> HistoryChunk:
    """One chunk as it stands."""
    query = _sql(schema, f"SELECT {_COLUMNS} FROM {{}} WHERE {_WHICH}")
    with connection.cursor(row_factory=class_row(HistoryChunk)) as cursor:
        [stands] = cursor.execute(query, [integration_id, which.metric_id, which.window_start]).fetchall()
        return stands


def add(connection: Connection, schema: str, integration_id: str, planned: Iterable[HistoryChunk]) -> None:
    """Note chunks that are to be read; those without any event are done at once."""
    query = _sql(
        schema,
        "INSERT INTO {} (esp_integration_id, metric_id, window_start, window_end, expected, loaded, state, attempts,"
        " seconds, updated_at) VALUES (%s, %s, %s, %s, %s, 0, %s, 0, 0, now()) ON CONFLICT DO NOTHING",
    )
    rows = [
        (integration_id, each.metric_id, each.window_start, each.window_end, each.expected, each.state)
        for each in planned
    ]
    with connection.cursor() as cursor:
        cursor.executemany(query, rows)


def forget(connection: Connection, schema: str, integration_id: str, metric_ids: list[str], window: Window) -> None:
    """Take out of the ledger what lies in the window, so that it is read again; rows that are stored stay."""
    query = _sql(
        schema,
        "DELETE FROM {} WHERE esp_integration_id = %s AND metric_id = ANY(%s)"
        " AND window_start < %s AND window_end > %s",
    )
    connection.execute(query, [integration_id, metric_ids, window.end, window.start])


def begin(connection: Connection, schema: str, integration_id: str, chunk: HistoryChunk) -> None:
    """Note one more attempt, unless the chunk is done."""
    more = "attempts = attempts + (state <> 'done')::int, error = NULL"
    _update(connection, schema, integration_id, chunk, more, [])


def advance(
    connection: Connection,
    schema: str,
    integration_id: str,
    chunk: HistoryChunk,
    loaded: int,
    seconds: float,
    reached: datetime | None,
) -> None:
    """Note that so many more events are stored, and everything before `reached`; None: the whole chunk."""
    assignments = (
        "loaded = loaded + %s, seconds = seconds + %s, reached = coalesce(%s, window_end),"
        " state = CASE WHEN %s::timestamptz IS NULL THEN 'done' ELSE state END"
    )
    _update(connection, schema, integration_id, chunk, assignments, [loaded, seconds, reached, reached])


def fail(connection: Connection, schema: str, integration_id: str, chunk: HistoryChunk, error: str) -> None:
    """Note that reading it failed; what is stored of it stays, and the next run goes on behind it."""
    _update(connection, schema, integration_id, chunk, "state = 'failed', error = %s", [error])


def _update(
    connection: Connection,
    schema: str,
    integration_id: str,
    chunk: HistoryChunk,
    assignments: str,
    values: list[object],
) -> None:
    query = _sql(
        schema,
        f"UPDATE {{}} SET {assignments}, updated_at = now() WHERE {_WHICH}",
    )
    connection.execute(query, [*values, integration_id, chunk.metric_id, chunk.window_start])
