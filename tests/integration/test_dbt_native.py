"""The models of examples/dbt_native over rows written by hand. dbt does not run here: its functions are replaced."""

from datetime import UTC, datetime, timedelta

import jinja2
import psycopg
import pytest
import yaml

from klaviyo_pg.catalogue import dimensions, loads
from klaviyo_pg.settings import Settings
from tests.driver import ROOT
from tests.integration.conftest import Merge

EXAMPLE = ROOT / "examples" / "dbt_native"
NOW = datetime.now(UTC)


def rendered(is_incremental: bool) -> str:
    """Return the query of the model, as dbt runs it the first time or later."""
    model = (EXAMPLE / "models" / "orders.sql").read_text("utf-8")
    query: str = jinja2.Template(model).render(
        config=lambda **_: "", source=lambda _, table: table, is_incremental=lambda: is_incremental, this="orders"
    )
    return query


@pytest.fixture
def connection(connection: psycopg.Connection, merged: Merge) -> psycopg.Connection:
    """Return a connection to a warehouse with an order, and with the table that the model's first run creates."""
    merged(loads.METRICS, {"key": "m", "id": "m", "name": "Placed Order", "destination": "events"})
    store(connection, merged, "first", written=NOW)
    connection.execute(f"CREATE TABLE orders AS {rendered(is_incremental=False)}".encode())
    return connection


def store(connection: psycopg.Connection, merged: Merge, key: str, written: datetime, days_ago: int = 1) -> None:
    """Store an order of some days ago whose transaction began at this time."""
    event_at = NOW - timedelta(days=days_ago)
    merged(loads.EVENTS["events"], {"key": key, "id": key, "event_at": event_at, "metric_key": "m"})
    connection.execute("UPDATE events SET __synced_at = %s WHERE key = %s", [written, key])


def test_the_first_run_has_all_orders(connection: psycopg.Connection) -> None:
    assert connection.execute("SELECT key FROM orders").fetchall() == [("first",)]


def test_orders_of_a_transaction_that_was_committed_late_are_found(
    connection: psycopg.Connection, merged: Merge
) -> None:
    """Their `__synced_at` is before the latest one that the model has."""
    store(connection, merged, "late", written=NOW - timedelta(minutes=50))
    store(connection, merged, "next", written=NOW + timedelta(minutes=5))
    store(connection, merged, "read long ago", written=NOW - timedelta(days=1))
    found = connection.execute(rendered(is_incremental=True).encode()).fetchall()
    assert {row[1] for row in found} == {"first", "late", "next"}


def test_late_orders_that_daily_runs_find_are_found(connection: psycopg.Connection, merged: Merge) -> None:
    """They compare counts of whole days up to RECONCILE_DAYS ago. Older orders need a full refresh."""
    oldest = Settings.model_fields["reconcile_days"].default + 1
    store(connection, merged, "late", written=NOW, days_ago=oldest)
    store(connection, merged, "old", written=NOW, days_ago=oldest + 10)
    found = connection.execute(rendered(is_incremental=True).encode()).fetchall()
    assert {row[1] for row in found} == {"first", "late"}


def test_the_snapshot_compares_columns_that_exist() -> None:
    [snapshot] = yaml.safe_load((EXAMPLE / "snapshots" / "people.yml").read_text("utf-8"))["snapshots"]
    config = snapshot["config"]
    assert {config["unique_key"], *config["check_cols"]} <= set(dimensions.MEMBERS.column_names)
