"""The view `freshness`: what is known of each metric and stream, without reading the events."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import ledger

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
def account(merged: Any, connection: psycopg.Connection) -> str:
    """An account with two metrics, a list and a complete run; answers its integration id."""
    one = ledger.register(connection, "klaviyo", "shop", None)
    metric = {"name": "Opened Email", "destination": "opens"}
    merged(loads.METRICS, {"key": "k1", "id": "m1", **metric}, {"key": "k2", "id": "m2", **metric}, integration_id=one)
    merged(loads.LISTS, {"key": "l1", "id": "L1", "name": "News", "list_type": "list"}, integration_id=one)
    opens = [{"key": str(day), "id": str(day), "metric_key": "k1", "event_at": NOW - day * DAY} for day in range(5)]
    merged(loads.EVENTS["opens"], *opens, integration_id=one)
    for stream in ("events/m1", "profiles", "list_members/L1", "membership_sweep/L1"):
        ledger.advance_watermark(connection, "klaviyo", one, stream, None, NOW - DAY)
    run = ledger.open_run(connection, "klaviyo", one, "daily", "all", NOW)
    ledger.plan_chunks(connection, "klaviyo", run.run_id, one, [("metrics", ".."), ("flows", "..")])
    ledger.finish_chunk(connection, "klaviyo", run.run_id, "metrics", "..")
    ledger.close_run(connection, "klaviyo", run.run_id, "complete", None)
    return one


def test_one_row_for_each_metric_and_stream(account: str, connection: psycopg.Connection) -> None:
    """Names, tables, newest events, watermarks; what was never read has none."""
    query = "SELECT stream, name, table_name, newest_event, watermark, round(age_hours::numeric, 1) FROM freshness"
    rows = {stream: tuple(rest) for stream, *rest in connection.execute(query)}
    before, hours = NOW - DAY, rows["profiles"][-1]
    assert 24 <= hours < 25
    assert rows == {
        "events/m1": ("Opened Email", "opens", NOW, before, hours),
        "events/m2": ("Opened Email", "opens", None, None, None),
        "profiles": ("profiles", "members", None, before, hours),
        "list_members/L1": ("News", "stg_member_lists", None, before, hours),
        "metrics": ("metrics", "metrics", None, NOW, rows["metrics"][-1]),
    }
    complete = connection.execute("SELECT DISTINCT integration, last_complete_run IS NULL FROM freshness").fetchall()
    assert complete == [("shop", False)]


def test_what_was_compared(account: str, connection: psycopg.Connection) -> None:
    """The differences of days, today's first hour among them; hours only repeat those of their day."""
    day = NOW.replace(hour=0, minute=0, second=0)
    for start, length, difference in ((day - DAY, DAY, -2), (day, DAY / 24, 1), (day - DAY, DAY / 24, -2)):
        connection.execute(
            "INSERT INTO reconciliation"
            " (esp_integration_id, metric_id, window_start, window_end, difference, checked_at)"
            " VALUES (%s, 'm1', %s, %s, %s, %s)",
            [account, start, start + length, difference, NOW],
        )
    query = "SELECT stream, last_reconciled, difference FROM freshness WHERE stream LIKE 'events/%' ORDER BY 1"
    assert connection.execute(query).fetchall() == [("events/m1", NOW, -1), ("events/m2", None, None)]


def test_the_newest_event_is_found_in_an_index(account: str, connection: psycopg.Connection) -> None:
    """However large the table is."""
    connection.execute("SET enable_seqscan = off")
    plan = connection.execute("EXPLAIN SELECT newest_event FROM freshness").fetchall()
    assert any("opens_metric_key_event_at_idx" in line for (line,) in plan)
