"""Storing a batch of events reads as much in a small table as in a large one."""

from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any, NamedTuple

import polars as pl
import psycopg
import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import absence_statements, details, schema, statements
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.event_tables import one_copy
from klaviyo_pg.postgres.ledgers.reconciliation import active_metrics
from klaviyo_pg.postgres.schema import Storage
from klaviyo_pg.windows import Window
from tests.merging import counts

OPENS = loads.EVENTS["opens"]
STORED, BATCH = 30_000, 100
START, STEP = datetime(2026, 1, 1, tzinfo=UTC), timedelta(minutes=10)
_FILL = """
INSERT INTO opens (key, id, metric_key, event_at, esp_source, esp_integration_id, extracted_at)
SELECT md5(number::text), number::text, 'm' || number % 3, '2026-01-01Z'::timestamptz + number * interval '10 minutes',
    'Klaviyo', 'one', '2026-01-01Z' FROM generate_series(0, 29999) AS number
"""
_READ = """
SELECT coalesce(sum(seq_tup_read), 0)::int AS scanned, coalesce(sum(idx_tup_fetch), 0)::int AS fetched
FROM pg_stat_xact_user_tables WHERE relname LIKE 'opens%'
"""


class Read(NamedTuple):
    """The rows of the event table that a transaction has read."""

    scanned: int
    fetched: int


@pytest.fixture(params=["none", "month"])
def filled(request: pytest.FixtureRequest, connection: psycopg.Connection) -> psycopg.Connection:
    """A connection to a warehouse with many events, stored as a whole or by month."""
    if request.param == "month":
        connection.execute("DROP SCHEMA klaviyo CASCADE")
        schema.upgrade(connection, "klaviyo", Storage(by_month=True))
        connection.execute(
            "CREATE TABLE opens_2026_01 PARTITION OF opens FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z')"
        )
        connection.execute(
            "CREATE TABLE opens_later PARTITION OF opens FOR VALUES FROM ('2026-02-01Z') TO ('2050-01-01Z')"
        )
    connection.execute(_FILL)
    connection.execute("ANALYZE opens")
    return connection


def events(first: int, count: int, **others: object) -> list[dict[str, object]]:
    """Return events with consecutive numbers, of which those up to STORED are stored."""
    return [
        {
            "key": md5(str(number).encode()).hexdigest(),
            "id": str(number),
            "metric_key": f"m{number % 3}",
            "event_at": START + number * STEP,
            "extracted_at": START + timedelta(days=400),
            **others,
        }
        for number in range(first, first + count)
    ]


def loaded(connection: psycopg.Connection, merged: Any, rows: list[dict[str, object]]) -> tuple[object, Read]:
    """Merge a batch; return its counts and what it has read of the table."""
    with connection.transaction():
        result = counts(merged(OPENS, *rows))
        row = connection.execute(_READ).fetchone()
    assert row is not None
    return result, Read(*row)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        pytest.param(STORED, (BATCH, BATCH, 0, 0), id="new"),
        pytest.param(STORED // 2, (BATCH, 0, 0, BATCH), id="stored"),
        pytest.param(STORED - BATCH // 2, (BATCH, BATCH // 2, 0, BATCH // 2), id="both"),
    ],
)
def test_a_batch_reads_what_lies_near_it(
    filled: psycopg.Connection, merged: Any, first: int, expected: tuple[int, ...]
) -> None:
    """No part of the table is scanned, and few rows are fetched that are not in the batch."""
    result, read = loaded(filled, merged, events(first, BATCH))
    assert result == expected
    assert read.scanned == 0
    assert read.fetched < 4 * BATCH + 3 * 2 * 500


def test_changed_events_read_themselves(filled: psycopg.Connection, merged: Any) -> None:
    result, read = loaded(filled, merged, events(STORED // 2, BATCH, value="1"))
    assert result == (BATCH, 0, BATCH, 0)
    assert (read.scanned, read.fetched <= 3 * BATCH) == (0, True)


def test_metrics_without_events_are_found_by_the_index(filled: psycopg.Connection) -> None:
    """A table is not read to find out that it has no event of a metric."""
    filled.execute(
        "INSERT INTO metrics (key, id, name, destination, esp_source, esp_integration_id)"
        " SELECT 'm' || number, number::text, 'Metric ' || number, 'opens', 'Klaviyo', 'one'"
        " FROM generate_series(0, 99) AS number"
    )
    window = Window(START + timedelta(days=30), START + timedelta(days=60))
    with filled.transaction():
        assert active_metrics(Account(filled, "klaviyo", "one"), window) == {"0", "1", "2"}
        row = filled.execute(_READ).fetchone()
    assert row is not None and Read(*row).scanned == 0


def test_events_without_a_metric_are_looked_up_by_time(filled: psycopg.Connection, merged: Any) -> None:
    """Those that are stored with a metric, in another table, do not become a second row."""
    rows = [{**dict.fromkeys(OPENS.schema), **row, "metric_key": None} for row in events(100, BATCH)]
    frame = pl.DataFrame(rows, OPENS.schema)
    with filled.transaction():
        left = one_copy(Account(filled, "klaviyo", "one"), loads.EVENTS["events"].table, frame)
        row = filled.execute(_READ).fetchone()
    assert row is not None
    assert isinstance(left, pl.DataFrame)
    assert (left.height, row[0], row[1] <= 2 * BATCH) == (0, 0, True)


def test_properties_of_new_people_are_looked_up_by_their_keys(connection: psycopg.Connection, merged: Any) -> None:
    """Also in a table that was just filled, about which Postgres knows nothing."""
    connection.execute(
        "INSERT INTO member_attributes (key, name, value) SELECT md5((number / 20)::text), number::text, ''"
        " FROM generate_series(1, 20000) AS number"
    )
    rows = [{"key": f"new{number}", "name": f"{each}"} for number in range(70) for each in range(20)]
    with connection.transaction():
        assert counts(merged(loads.NEW_MEMBER_ATTRIBUTES, *rows)) == (1_400, 1_400, 0, 0)
        row = connection.execute(_READ.replace("'opens%'", "'member_attributes'")).fetchone()
    assert row is not None and Read(*row).scanned == 0


def test_people_of_a_batch_are_looked_up_by_their_keys(connection: psycopg.Connection, merged: Any) -> None:
    """Also a batch for which Postgres would rather read the whole table."""
    connection.execute(
        "INSERT INTO members (key, id, created_at) SELECT md5(number::text), number::text, '2026-01-01Z'"
        " FROM generate_series(1, 20000) AS number"
    )
    connection.execute("ANALYZE members")
    keys = [md5(str(number).encode()).hexdigest() for number in range(19_001, 21_001)]
    people = [{"key": key, "id": key, "details_digest": 1} for key in keys]
    with connection.transaction():
        assert counts(merged(loads.MEMBER_STUBS, *people)) == (2_000, 1_000, 0, 1_000)
        assert counts(merged(loads.MEMBERS, *people)) == (2_000, 0, 2_000, 0)
        account, frame = Account(connection, "klaviyo", "one"), pl.DataFrame({"key": keys, "details_digest": 1})
        assert details.outdated(account, loads.MEMBERS, frame) == set()
        assert details.stored(account, [str(number) for number in range(2_000)]) == {}
        row = connection.execute(_READ.replace("'opens%'", "'members'")).fetchone()
    assert row is not None and Read(*row).scanned == 0


def test_absent_rows_of_a_table_that_was_just_filled_are_found_in_one_pass(connection: psycopg.Connection) -> None:
    """Postgres takes such a table to have one row. Before version 16, it looked through the stage for each of them."""
    load, rows = loads.MEMBER_EXCLUSIONS, 2_000
    account = Account(connection, "klaviyo", "one")
    fill = "INSERT INTO {} ({}_sync_id) SELECT {}md5(number::text) FROM generate_series(1, %(rows)s) AS number".format
    connection.execute("SET enable_hashjoin = off")
    connection.execute("SET enable_mergejoin = off")  # as version 15 plans it
    with connection.transaction():
        account.execute(statements.create_stage(account.schema, load))
        connection.execute(fill("stage_member_exclusions", "", ""), {"rows": rows})
        account.execute(statements.analyze_stage(load))
        connection.execute(fill("member_exclusions", "esp_integration_id, ", "'one', "), {"rows": rows + 1})
        absent = account.execute(absence_statements.keys(account.schema, load)).fetchall()
        row = connection.execute(_READ.replace("'opens%'", "'stage_member_exclusions'")).fetchone()
    assert absent == [(md5(str(rows + 1).encode()).hexdigest(),)]
    assert row is not None and Read(*row).scanned <= 2 * rows  # once more for the planner's statistics


def test_people_without_suppressions_cost_no_write(connection: psycopg.Connection, merged: Any) -> None:
    with connection.transaction():
        assert counts(merged(loads.LIST_SUPPRESSIONS_OF_PEOPLE, *({"member_id": each} for each in "AB"))) == (0,) * 4
        assert connection.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)


def test_suppressions_that_are_stored_are_lifted(connection: psycopg.Connection, merged: Any) -> None:
    load = loads.LIST_SUPPRESSIONS_OF_PEOPLE
    merged(load, *({"member_id": each, "list_id": "L1"} for each in "ABC"))
    merged(load, {"member_id": "A"}, {"member_id": "B", "list_id": "L2"}, {"member_id": "D"})
    lifted = connection.execute(
        "SELECT member_id, list_id FROM list_suppressions WHERE lifted_at IS NOT NULL ORDER BY 1"
    )
    assert lifted.fetchall() == [("A", "L1"), ("B", "L1")]
