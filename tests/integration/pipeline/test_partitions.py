"""Event tables with a partition for each month: created as they are needed, and otherwise as any other table."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import polars as pl
import psycopg
import pytest

from klaviyo_pg.catalogue import events, loads
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import partitions, schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.event_tables import move_events
from klaviyo_pg.postgres.load import merge
from klaviyo_pg.postgres.schema import Storage
from tests.driver import PATIENCE
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago
from tests.merging import counts
from tests.runs import ALL_EVENTS

SCHEMA = "by_month"
OPENS = loads.EVENTS["opens"]
PARTITIONS = """
SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'by_month.opens'::regclass ORDER BY 1
"""
OUTER = ["opens_before_2010", "opens_from_2050"]


@pytest.fixture
def connection(database: str) -> Any:
    """A connection to a warehouse with partitions, in autocommit mode."""
    with psycopg.connect(database, autocommit=True) as connection:
        schema.upgrade(connection, SCHEMA, Storage(by_month=True))
        yield connection


def names(connection: psycopg.Connection) -> list[str]:
    return [name for (name,) in connection.execute(PARTITIONS)]


def frame(*times: datetime, value: str = "1") -> pl.DataFrame:
    rows = [
        {**dict.fromkeys(OPENS.schema), "key": f"k{at}", "event_at": at, "metric_key": "m", "value": value}
        for at in times
    ]
    return pl.DataFrame(rows, OPENS.schema)


def test_runs_load_partitioned_tables(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A second run changes nothing; a changed event is updated; one with another time replaces the old one."""
    by_month = warehouse.variant(warehouse_schema=SCHEMA, event_partitions="month", first_sync_days=90)
    shop.add_events("OPEN", days_ago(70), days_ago(35))
    assert by_month.daily(*ALL_EVENTS).changed()["opens"] == (8, 0)
    assert by_month.daily(*ALL_EVENTS).changed() == {}
    assert f"opens_{days_ago(70):%Y_%m}" in by_month.column(PARTITIONS)
    shop.events = [each._replace(at=days_ago(1) + 3 * HOUR) if each.id == "E00005" else each for each in shop.events]
    assert by_month.daily(*ALL_EVENTS).changed()["opens"] == (0, 1)
    by_month.execute("UPDATE opens SET event_name = 'Something else' WHERE id = 'E00004'")
    assert by_month.daily(*ALL_EVENTS).changed()["opens"] == (0, 1)
    assert by_month.reconcile().sentences == []
    held = sorted((each.id, each.at) for each in shop.events if each.metric_id == "OPEN")
    assert by_month.rows("SELECT id, event_at FROM opens ORDER BY id") == held


def test_a_table_without_partitions_is_not_changed(warehouse: Warehouse) -> None:
    """The setting applies to new warehouses."""
    warehouse.daily(*ALL_EVENTS)
    with pytest.raises(DatabaseUnusable, match=r"^EVENT_PARTITIONS=month applies to new warehouses only"):
        warehouse.daily(*ALL_EVENTS, event_partitions="month")


def test_months_are_created_for_a_batch(connection: psycopg.Connection) -> None:
    """They have the primary key and the indexes of the table. Creating them again changes nothing."""
    account, batch = Account(connection, SCHEMA, "one"), frame(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
    for value, expected in (("1", (1, 1, 0, 0)), ("1", (1, 0, 0, 1)), ("2", (1, 0, 1, 0))):
        with connection.transaction():
            partitions.prepare(account, events.OPENS, batch)
            assert counts(merge(account, OPENS, batch.with_columns(value=pl.lit(value)))) == expected
    assert names(connection) == sorted([*OUTER, "opens_2026_12"])
    [count] = connection.execute("SELECT count(*) FROM by_month.opens_2026_12").fetchone() or [0]
    [indexes] = connection.execute(
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'opens_2026_12' AND schemaname = 'by_month'"
    ).fetchone() or [0]
    assert (count, indexes) == (1, 2)


def test_months_are_created_for_events_that_move(connection: psycopg.Connection) -> None:
    """A metric that gets another table takes its events along."""
    account, times = Account(connection, SCHEMA, "one"), [datetime(2026, month, 3, tzinfo=UTC) for month in (2, 5)]
    clicks, key = loads.EVENTS["clicks"], hashlib.md5(b"Klaviyo:one:m").hexdigest()
    with connection.transaction():
        rows = frame(*times, datetime(1990, 1, 1, tzinfo=UTC)).with_columns(metric_key=pl.lit(key))
        partitions.prepare(account, events.CLICKS, rows)
        merge(account, clicks, rows)
    with connection.transaction():
        assert move_events(account, "m", "clicks", "opens") == 3
    assert names(connection) == sorted([*OUTER, "opens_2026_02", "opens_2026_05"])


def test_a_table_without_partitions_is_looked_at_once(database: str) -> None:
    """Not before each batch."""
    partitioning, rows = partitions.Partitioning(), frame(datetime(2026, 12, 31, tzinfo=UTC))
    with psycopg.connect(database) as connection:
        partitioning.prepare(Account(connection, "klaviyo", "one"), events.OPENS, rows)
    assert connection.closed
    partitioning.prepare(Account(connection, "klaviyo", "one"), events.OPENS, rows)


def test_wrong_dates_create_no_partitions(connection: psycopg.Connection) -> None:
    """Events of the year 1 and of the year 9999 are stored in the outer partitions."""
    times = [datetime(1, 1, 1, tzinfo=UTC), datetime(2009, 12, 31, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
    account = Account(connection, SCHEMA, "one")
    with connection.transaction():
        partitions.prepare(account, events.OPENS, frame(*times))
        assert merge(account, OPENS, frame(*times)).inserted == 3
    assert names(connection) == OUTER


def test_two_loaders_create_the_same_month(connection: psycopg.Connection, database: str) -> None:
    """One waits for the other, and uses its partition."""
    barrier = Barrier(4)

    def load(number: int) -> int:
        batch = frame(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1 + number, tzinfo=UTC))
        with psycopg.connect(database) as own:
            account = Account(own, SCHEMA, "one")
            barrier.wait(PATIENCE)
            partitions.prepare(account, events.OPENS, batch)
            return merge(account, OPENS, batch).inserted

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(load, range(4))) == 5
    assert names(connection) == sorted([*OUTER, "opens_2026_03", "opens_2026_04"])


def test_a_month_can_be_created_while_others_read_the_table(connection: psycopg.Connection, database: str) -> None:
    """A long query does not delay loading, and loading does not delay the query."""
    with psycopg.connect(database) as reader, connection.transaction():
        reader.execute("SELECT FROM by_month.opens")
        connection.execute("SET LOCAL lock_timeout = '1s'")
        account, batch = Account(connection, SCHEMA, "one"), frame(datetime(2026, 5, 1, tzinfo=UTC))
        partitions.prepare(account, events.OPENS, batch)
        assert merge(account, OPENS, batch).inserted == 1
        assert reader.execute("SELECT FROM by_month.opens").fetchall() == []


def test_a_dropped_month_takes_its_rows_along(connection: psycopg.Connection) -> None:
    """Dropping a partition is how history is removed; a late event of it creates the partition again."""
    account, batch = Account(connection, SCHEMA, "one"), frame(datetime(2026, 5, 1, tzinfo=UTC))
    for _ in range(2):
        with connection.transaction():
            partitions.prepare(account, events.OPENS, batch)
            assert merge(account, OPENS, batch).inserted == 1
        connection.execute("DROP TABLE by_month.opens_2026_05")
    assert names(connection) == OUTER


def test_a_detached_month_is_attached_with_the_columns_that_it_lacks(connection: psycopg.Connection) -> None:
    """A later version adds columns to the table, but not to what was detached from it before."""
    account = Account(connection, SCHEMA, "one")
    for day in (1, 2):
        with connection.transaction():
            partitions.prepare(account, events.OPENS, batch := frame(datetime(2026, 5, day, tzinfo=UTC)))
            assert merge(account, OPENS, batch).inserted == 1
        connection.execute("ALTER TABLE by_month.opens DETACH PARTITION by_month.opens_2026_05")
        assert connection.execute("SELECT count(channel), count(*) FROM by_month.opens_2026_05").fetchone() == (0, day)
        connection.execute("ALTER TABLE by_month.opens_2026_05 DROP COLUMN channel")


def test_a_dropped_month_is_not_missing(warehouse: Warehouse, shop: FakeAccount) -> None:
    """With EVENTS_SINCE, nothing before that day is compared, read again or reported; without it, all is restored."""
    by_month = warehouse.variant(warehouse_schema=SCHEMA, event_partitions="month", first_sync_days=120)
    shop.add_events("OPEN", days_ago(100), days_ago(99) + HOUR)
    by_month.daily(*ALL_EVENTS)
    dropped = {f"opens_{each:%Y_%m}" for each in (days_ago(100), days_ago(99) + HOUR)}
    shop.miscounts["OPEN", days_ago(100)] = 1
    assert by_month.reconcile(reconcile_days=120).state == "complete with differences"
    for name in dropped:
        by_month.execute(f"DROP TABLE {name}")
    shop.recover()
    since = (days_ago(98).replace(day=1) + 32 * DAY).replace(day=1).date()
    ran = by_month.reconcile(reconcile_days=120, events_since=since)
    assert (ran.state, ran.sentences) == ("complete", [])
    assert shop.sent("events") == []
    assert f"days from {since}" in ran.published.texts["coverage"]
    assert by_month.one("SELECT count(*) FROM opens") == 6
    by_month.reconcile(reconcile_days=120)
    assert by_month.one("SELECT count(*) FROM opens") == 8
