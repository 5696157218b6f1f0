"""Moving events between event tables, and keeping each event in one of them. The caller owns the transaction."""

import polars as pl
from psycopg.sql import SQL, Identifier, Placeholder

from klaviyo_pg.catalogue import Table, events
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erase import wait_for_erasing
from klaviyo_pg.postgres.erase_events import clear_moved
from klaviyo_pg.postgres.statements import names, row_key
from klaviyo_pg.postgres.suppressed import check_stored


def move_events(account: Account, metric_id: str, source: str, target: str) -> int:
    """Move a metric's events from one event table to another, and return how many left the first.

    Keeps people from being recorded as erased until the transaction ends. Events of people who are being erased are
    cleared, because the table may have been searched for them already.
    """
    wait_for_erasing(account.connection, account.schema)
    query = account.compose(
        "WITH moved AS (DELETE FROM {source} WHERE metric_key = {metric_key} RETURNING {columns}),"
        " missing AS (SELECT {columns} FROM moved WHERE NOT EXISTS"
        " (SELECT FROM {target} AS existing WHERE existing.key = moved.key)),"
        " inserted AS (INSERT INTO {target} ({columns}) SELECT {columns} FROM missing ON CONFLICT DO NOTHING"
        " RETURNING key)"
        " SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM missing), (SELECT count(*) FROM inserted)",
        source=Identifier(account.schema, source),
        target=Identifier(account.schema, target),
        metric_key=row_key(Placeholder("metric_id")),
        columns=names(events.EVENTS.column_names),
    )
    row = account.execute(query, metric_id=metric_id).fetchone()
    assert row is not None
    moved, missing, inserted = row
    check_stored(account, target, missing, inserted)
    clear_moved(account, next(table for table in events.EVENT_TABLES if table.name == target), metric_id)
    return int(moved)


def one_copy(account: Account, table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the events of a frame that belong in its table, and delete their copies from the table `events`.

    An event that the source returned without a metric is in `events`. Once it returns it with one, that row is
    superseded; and a row without a metric never joins one that has it.
    """
    if table is events.EVENTS:
        return _without_superseded(account, frame)
    condition = "metric_key IS NULL AND esp_integration_id = %(account)s"
    exists = account.execute(f"SELECT EXISTS (SELECT FROM {{}} WHERE {condition})", events.EVENTS)
    if (row := exists.fetchone()) and row[0]:
        keys = frame.get_column("key").to_list()
        account.execute(f"DELETE FROM {{}} WHERE {condition} AND key = ANY(%(keys)s)", events.EVENTS, keys=keys)
    return frame


def _without_superseded(account: Account, frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame for `events` without the rows that lack a metric and are stored in another table with one."""
    keys = frame.filter(pl.col("metric_key").is_null()).get_column("key").to_list()
    if not keys:
        return frame
    others = [account.table(each) for each in events.EVENT_TABLES if each is not events.EVENTS]
    copies = SQL(" UNION ALL ").join(
        SQL("SELECT key FROM {} WHERE key = ANY(%(keys)s)").format(each) for each in others
    )
    known = [key for (key,) in account.execute(copies, keys=keys)]
    return frame.filter(~pl.col("key").is_in(known))
