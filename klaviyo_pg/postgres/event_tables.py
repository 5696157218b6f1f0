"""Moving events between event tables, and keeping each event in one of them, once. The caller owns the transaction."""

from collections.abc import Mapping, Sequence

import polars as pl
from psycopg.sql import SQL, Placeholder

from klaviyo_pg.catalogue import Table, events
from klaviyo_pg.postgres import assigned_unsubscribes, attributions, partitions
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.dropped_rows import check_stored
from klaviyo_pg.postgres.erasing.erase_events import clear_moved
from klaviyo_pg.postgres.erasing.erased_people import block_erasing
from klaviyo_pg.postgres.statements import names, row_key
from klaviyo_pg.rows import Lines
from klaviyo_pg.windows import Window

_MONTHS = """
SELECT DISTINCT date_trunc('month', event_at AT TIME ZONE 'UTC')::date FROM {source} WHERE metric_key = {metric_key}
"""
_EVENT = SQL(
    'SELECT event_at, key COLLATE "C" AS key'
    " FROM unnest(%(event_at)s::timestamptz[], %(key)s::text[]) AS event (event_at, key)"
)
# Reads all events of the metric, because no index finds a key without its time.
_DELETE_OUTDATED = """
DELETE FROM {} AS outdated USING {} AS newer, unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[])
    AS surplus (window_start, window_end)
WHERE outdated.metric_key = {metric_key} AND newer.metric_key = {metric_key}
AND outdated.event_at >= surplus.window_start AND outdated.event_at < surplus.window_end
AND newer.key = outdated.key AND newer.event_at <> outdated.event_at AND newer.extracted_at > outdated.extracted_at
RETURNING outdated.event_at, outdated.key
"""


def move_events(account: Account, metric_id: str, source: str, target: str) -> int:
    """Move a metric's events from one event table to another, and return how many left the first.

    Creates the partitions that they need. Keeps people from being recorded as erased until the transaction ends. Events
    of people who are being erased are cleared, because the table may have been searched for them already. Events that
    move into or out of `unsubscribes` take their list changes along.
    """
    from_table, to_table = (_event_table(name) for name in (source, target))
    parts = {"source": account.table(from_table), "metric_key": row_key(Placeholder("metric_id"))}
    if partitions.is_partitioned(account.connection, account.schema, to_table):
        months = account.column(account.compose(_MONTHS, **parts), metric_id=metric_id)
        partitions.prepare_months(account, to_table, months)
    block_erasing(account.connection, account.schema)
    query = account.compose(
        "WITH moved AS (DELETE FROM {source} WHERE metric_key = {metric_key} RETURNING {columns}),"
        " missing AS (SELECT {columns} FROM moved WHERE NOT EXISTS"
        " (SELECT FROM {target} AS existing WHERE (existing.event_at, existing.key) = (moved.event_at, moved.key))),"
        " inserted AS (INSERT INTO {target} ({columns}) SELECT {columns} FROM missing ON CONFLICT DO NOTHING"
        " RETURNING key)"
        " SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM missing), (SELECT count(*) FROM inserted)",
        **parts,
        target=account.table(to_table),
        columns=names(events.EVENTS.column_names),
    )
    row = account.execute(query, metric_id=metric_id).fetchone()
    assert row is not None
    moved, missing, inserted = row
    check_stored(account, to_table, missing, inserted)
    clear_moved(account, to_table, metric_id)
    if to_table is events.UNSUBSCRIBES:
        assigned_unsubscribes.add(account, metric_id)
    elif from_table is events.UNSUBSCRIBES:
        assigned_unsubscribes.withdraw(account, metric_id, to_table)
    return int(moved)


def _event_table(name: str) -> Table:
    return next(table for table in events.EVENT_TABLES if table.name == name)


def one_copy(account: Account, table: Table, frame: pl.DataFrame | Lines) -> pl.DataFrame | Lines:
    """Return the events of a frame that belong in its table, and delete their copies from the table `events`.

    An event that the source returned without a metric is in `events`. Once it returns it with one, that row is
    superseded; and a row without a metric never joins one that has it. All events of lines have one.
    """
    if table is events.EVENTS:
        return frame if isinstance(frame, Lines) else _without_superseded(account, frame)
    condition = "metric_key IS NULL AND esp_integration_id = %(account)s"
    if account.is_true(f"SELECT EXISTS (SELECT FROM {{}} WHERE {condition})", events.EVENTS):
        keys = list(frame.each_key()) if isinstance(frame, Lines) else frame.get_column("key").to_list()
        account.execute(f"DELETE FROM {{}} WHERE {condition} AND key = ANY(%(keys)s)", events.EVENTS, keys=keys)
    return frame


def _without_superseded(account: Account, frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame for `events` without the rows that lack a metric and are stored in another table with one."""
    without_metric = frame.filter(pl.col("metric_key").is_null()).select("event_at", "key").drop_nulls()
    if without_metric.is_empty():
        return frame
    others = [account.table(each) for each in events.EVENT_TABLES if each is not events.EVENTS]
    stored = SQL("(SELECT key FROM {} AS stored WHERE (stored.event_at, stored.key) = (event.event_at, event.key))")
    copies = SQL(" UNION ALL ").join(map(stored.format, others))
    query = account.compose(
        "SELECT copy.key FROM ({event}) AS event CROSS JOIN LATERAL ({copies} OFFSET 0) AS copy",
        event=_EVENT,
        copies=copies,
    )
    known = account.column(query, **without_metric.to_dict(as_series=False))
    return frame.filter(~pl.col("key").is_in(known))


def delete_outdated(account: Account, surplus: Mapping[str, Sequence[Window]]) -> int:
    """Delete the events in some windows, by metric, that are stored with another time as well; return their number.

    The row that was extracted later has the right time. A merge deletes only rows that are near the batch.
    """
    deleted = 0
    for metric_id, windows in surplus.items():
        for table in events.EVENT_TABLES:
            query = account.compose(_DELETE_OUTDATED, table, table, metric_key=row_key(SQL("%(metric_id)s::text")))
            starts, ends = ([window[side] for window in windows] for side in (0, 1))
            found = account.execute(query, metric_id=metric_id, starts=starts, ends=ends).fetchall()
            attributions.forget(account, [{"event_at": at, "key": key} for at, key in found])
            deleted += len(found)
    return deleted
