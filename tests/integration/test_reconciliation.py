"""What is stored by metric and hour, what has been read, and what comparisons leave behind."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.history import HistoryChunk
from klaviyo_pg.postgres import history, ledger, reconciliation
from klaviyo_pg.reconciliation import COMPLETE, DIFFERS, UNCOUNTED, Compared, key
from klaviyo_pg.windows import Window
from tests.integration.conftest import SCHEMA

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MIDNIGHT = NOON - timedelta(hours=12)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AROUND = Window(MIDNIGHT - 30 * DAY, NOON)


def put(connection: psycopg.Connection, table: str, integration_id: str, metric_id: str, *moments: datetime) -> None:
    """Events at these times, and their metric."""
    metric_key = f"md5('Klaviyo:{integration_id}:{metric_id}')"
    connection.execute(
        f"INSERT INTO metrics (key, id, esp_integration_id) VALUES ({metric_key}, %s, %s) ON CONFLICT DO NOTHING",  # type: ignore[arg-type]
        [metric_id, integration_id],
    )
    for moment in moments:
        connection.execute(
            f"INSERT INTO {table} (key, metric_key, event_at, esp_integration_id)"  # type: ignore[arg-type]
            f" VALUES (md5(random()::text), {metric_key}, %s, %s)",
            [moment, integration_id],
        )


def test_stored_events_by_metric_and_step(connection: psycopg.Connection) -> None:
    """All tables count, other accounts and other times do not, whatever the session's time zone."""
    connection.execute("SET timezone TO 'Asia/Kolkata'")
    put(connection, "opens", "one", "a", MIDNIGHT, MIDNIGHT + HOUR - timedelta(seconds=1), MIDNIGHT + HOUR, NOON)
    put(connection, "events", "one", "a", MIDNIGHT)
    put(connection, "sends", "one", "b", MIDNIGHT - timedelta(seconds=1))
    put(connection, "sends", "two", "a", MIDNIGHT)
    given = (connection, SCHEMA, "one", ["a", "b"], AROUND)
    assert reconciliation.stored(*given, HOUR) == {
        "a": {MIDNIGHT: 3, MIDNIGHT + HOUR: 1},
        "b": {MIDNIGHT - HOUR: 1},
    }
    assert reconciliation.stored(*given, DAY) == {"a": {MIDNIGHT: 4}, "b": {MIDNIGHT - DAY: 1}}
    assert reconciliation.stored(connection, SCHEMA, "one", [], AROUND, DAY) == {}


@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        pytest.param([(0, 30)], [(0, 30)], id="the first run"),
        pytest.param([(0, 30), (27, 31)], [(0, 31)], id="a day later"),
        pytest.param([(10, 30), (5, 31)], [(5, 31)], id="from an earlier time on"),
        pytest.param([(10, 20), (25, 31)], [(10, 20)], id="a gap"),
        pytest.param([(30, 20)], [], id="nothing"),
    ],
)
def test_what_daily_runs_have_read(
    connection: psycopg.Connection, stretches: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    """From where they began without a gap."""
    for start, end in stretches:
        ledger.advance_watermark(connection, SCHEMA, "one", "events/a", NOON + start * DAY, NOON + end * DAY)
    ledger.advance_watermark(connection, SCHEMA, "one", "profiles", NOON, NOON + DAY)
    found = reconciliation.claimed(connection, SCHEMA, "one").get("a", [])
    assert found == [Window(NOON + start * DAY, NOON + end * DAY) for start, end in expected]


def test_an_older_warehouse_claims_what_its_next_run_reads(connection: psycopg.Connection) -> None:
    """Where it was never noted from when on a metric has been read."""
    connection.execute("INSERT INTO watermarks VALUES ('one', 'events/a', %s, NULL)", [NOON])
    assert reconciliation.claimed(connection, SCHEMA, "one") == {}
    ledger.advance_watermark(connection, SCHEMA, "one", "events/a", NOON - 7 * DAY, NOON + DAY)
    assert reconciliation.claimed(connection, SCHEMA, "one") == {"a": [Window(NOON - 7 * DAY, NOON + DAY)]}


def test_what_a_backfill_has_read(connection: psycopg.Connection) -> None:
    """Chunks that are done, and others as far as they have been read."""
    chunks = [HistoryChunk("a", MIDNIGHT + day * DAY, MIDNIGHT + (day + 1) * DAY, 10) for day in range(3)]
    history.add(connection, SCHEMA, "one", chunks)
    history.advance(connection, SCHEMA, "one", chunks[0], 10, 1.0, None)
    history.advance(connection, SCHEMA, "one", chunks[1], 5, 1.0, MIDNIGHT + DAY + HOUR)
    found = reconciliation.claimed(connection, SCHEMA, "one")["a"]
    assert sorted(found) == [Window(MIDNIGHT, MIDNIGHT + DAY), Window(MIDNIGHT + DAY, MIDNIGHT + DAY + HOUR)]


def test_a_comparison_takes_the_place_of_earlier_ones(connection: psycopg.Connection) -> None:
    """Hours go when their day is complete, a part of today when there is more of it; other metrics and days stay."""
    hour = Compared("a", MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR, 3, 2, DIFFERS, NOON)
    today = Compared("a", MIDNIGHT, MIDNIGHT + 9 * HOUR, 10, 9, DIFFERS, NOON)
    others = [
        Compared("a", MIDNIGHT - DAY, MIDNIGHT, 5, 5, COMPLETE),
        Compared("b", MIDNIGHT, NOON, None, 7, UNCOUNTED),
    ]
    reconciliation.write(connection, SCHEMA, "one", [today, hour, *others], NOON)
    reconciliation.write(connection, SCHEMA, "two", [today], NOON)
    window = Window(MIDNIGHT - DAY, NOON)
    found = reconciliation.known(connection, SCHEMA, "one", window)
    assert sorted(found.values(), key=key) == sorted([today, hour, *others], key=key)
    assert reconciliation.counted_metrics(connection, SCHEMA, "one") == {"a"}

    later = Compared("a", MIDNIGHT, NOON, 12, 12, COMPLETE, NOON)
    reconciliation.write(connection, SCHEMA, "one", [later], NOON + HOUR)
    assert {each[:3] for each in reconciliation.known(connection, SCHEMA, "one", window).values()} == {
        key(each) for each in (later, *others)
    }
    assert len(reconciliation.known(connection, SCHEMA, "two", window)) == 1
    differences = connection.execute("SELECT difference FROM reconciliation WHERE metric_id = 'a' ORDER BY 1")
    assert [row[0] for row in differences] == [-1, 0, 0]
    assert bookkeeping.RECONCILIATION.primary_key == ("esp_integration_id", "metric_id", "window_start", "window_end")
