"""The view `freshness`, which shows the state of each metric and stream without reading the events."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import accounts
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import run_ledger, watermarks
from klaviyo_pg.states import RunState
from tests.driver import ROOT
from tests.integration.conftest import SCHEMA

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
TODAY = NOW.replace(hour=0, minute=0, second=0)
PANELS = json.loads((ROOT / "grafana" / "dashboards" / "klaviyo.json").read_text("utf-8"))["panels"]


@pytest.fixture
def integration_id(merged: Any, connection: psycopg.Connection) -> str:
    """Store an account with two metrics, two lists (one deleted) and a complete run. Return its integration ID."""
    shop = accounts.register(connection, SCHEMA, "shop", None)
    one = shop.integration_id
    metric = {"name": "Opened Email", "destination": "opens"}
    merged(loads.METRICS, {"key": "k1", "id": "m1", **metric}, {"key": "k2", "id": "m2", **metric}, integration_id=one)
    lists = [{"key": each, "id": each, "name": f"News {each}", "list_type": "list"} for each in ("L1", "L2")]
    merged(loads.LISTS, *lists, integration_id=one)
    merged(loads.LISTS, lists[0], integration_id=one)
    opens = [{"key": str(day), "id": str(day), "metric_key": "k1", "event_at": NOW - day * DAY} for day in range(5)]
    merged(loads.EVENTS["opens"], *opens, integration_id=one)
    for stream, table_name, subject in (
        ("events/m1", "opens", "m1"),
        ("profiles", "members", None),
        ("list_members/L1", "stg_member_lists", "L1"),
        ("list_members/L2", "stg_member_lists", "L2"),
        ("membership_sweep/L1", None, "L1"),
        ("metrics", "metrics", None),
    ):
        watermarks.advance(shop, stream, None, NOW - DAY, table_name, subject)
    run = run_ledger.open_run(shop, "daily", "all", NOW, is_limited=False)
    run_ledger.close_run(shop, run.run_id, RunState.COMPLETE, None)
    return one


def test_each_metric_and_stream_has_one_row(integration_id: str, connection: psycopg.Connection) -> None:
    """A metric that was never read has no watermark. Sweeps, and lists that were deleted, are left out."""
    query = "SELECT stream, name, table_name, newest_event, watermark, round(age_hours::numeric, 1) FROM freshness"
    rows = {stream: tuple(rest) for stream, *rest in connection.execute(query)}
    before, hours = NOW - DAY, rows["profiles"][-1]
    assert 24 <= float(hours) <= round((datetime.now(UTC) - before) / HOUR + 0.1, 1)
    assert rows == {
        "events/m1": ("Opened Email", "opens", NOW, before, hours),
        "events/m2": ("Opened Email", "opens", None, None, None),
        "profiles": ("profiles", "members", None, before, hours),
        "list_members/L1": ("News L1", "stg_member_lists", None, before, hours),
        "metrics": ("metrics", "metrics", None, before, hours),
    }
    complete = connection.execute("SELECT DISTINCT integration, last_complete_run IS NULL FROM freshness").fetchall()
    assert complete == [("shop", False)]


def test_the_oldest_event_shows_where_history_begins(integration_id: str, connection: psycopg.Connection) -> None:
    query = "SELECT stream, oldest_event FROM freshness WHERE stream LIKE 'events/%' ORDER BY 1"
    assert connection.execute(query).fetchall() == [("events/m1", NOW - 4 * DAY), ("events/m2", None)]


def test_campaigns_sent_before_the_first_stored_email_are_left_out(
    integration_id: str, connection: psycopg.Connection, merged: Any
) -> None:
    """Two of its emails bounced late, and three people opened it: that would be 150 percent."""
    merged(loads.METRICS, {"key": "k3", "id": "m3", "destination": "sends"}, integration_id=integration_id)
    names = {"before": NOW - 6 * DAY, "after": NOW - 2 * DAY}
    merged(
        loads.CAMPAIGNS,
        *({"key": name, "id": name, "campaign_key": name, "name": name, "sent_at": at} for name, at in names.items()),
        integration_id=integration_id,
    )
    event = {"event_at": NOW - DAY, "is_machine_open": False}
    sends = [
        {**event, "key": "a", "id": "a", "metric_key": "k3", "campaign_key": "after", "member_key": "p1"},
        {**event, "key": "b", "id": "b", "metric_key": "k3", "event_at": NOW - 5 * DAY},
    ]
    merged(loads.EVENTS["sends"], *sends, integration_id=integration_id)
    for table, people in (("bounces", ("p1", "p2")), ("opens", ("p3", "p4", "p5"))):
        rows = [{**event, "key": each, "id": each, "campaign_key": "before", "member_key": each} for each in people]
        merged(loads.EVENTS[table], *rows, integration_id=integration_id)
    [panel] = (each for each in PANELS if each["title"] == "Campaigns sent")
    shown = panel["targets"][0]["rawSql"].replace("${account:sqlstring}", f"'{integration_id}'")
    shown = shown.replace("$__timeFilter(sent_at)", "sent_at > now() - interval '30 days'")
    assert [row[1] for row in connection.execute(shown)] == ["after"]


def hours_since_the_last_load(connection: psycopg.Connection, integration_id: str) -> list[int]:
    """Return what the view and the dashboard show, as whole hours."""
    [panel] = (each for each in PANELS if each["title"] == "Hours since the last complete load")
    shown = panel["targets"][0]["rawSql"].replace("${account:sqlstring}", f"'{integration_id}'")
    query = "SELECT DISTINCT extract(epoch FROM now() - last_complete_run) / 3600 FROM freshness"
    return [int(row[-1]) for each in (query, shown) for row in connection.execute(each)]


@pytest.mark.parametrize(("is_limited", "hours"), [(True, 216), (False, 0), (None, 0)])
def test_a_run_that_arguments_limited_is_not_a_complete_load(
    integration_id: str, connection: psycopg.Connection, is_limited: bool | None, hours: int
) -> None:
    """Runs of earlier versions count."""
    connection.execute("UPDATE runs SET finished_at = now() - interval '9 days'")
    shop = Account(connection, SCHEMA, integration_id)
    run = run_ledger.open_run(shop, "daily", "some", NOW, is_limited=is_limited is True)
    connection.execute("UPDATE runs SET is_limited = %s WHERE run_id = %s", [is_limited, run.run_id])
    run_ledger.close_run(shop, run.run_id, RunState.COMPLETE, None)
    assert hours_since_the_last_load(connection, integration_id) == [hours, hours]


def test_deleted_metrics_are_left_out(integration_id: str, connection: psycopg.Connection) -> None:
    connection.execute("UPDATE metrics SET deleted_at = now() WHERE id = 'm1'")
    query = "SELECT stream FROM freshness WHERE stream LIKE 'events/%' ORDER BY 1"
    assert connection.execute(query).fetchall() == [("events/m2",)]


def compared(
    connection: psycopg.Connection, integration_id: str, *differences: tuple[datetime, timedelta, int]
) -> None:
    """Store comparisons of the metric m1: the start and the length of a window, and its difference."""
    for start, length, difference in differences:
        connection.execute(
            "INSERT INTO reconciliation"
            " (esp_integration_id, metric_id, window_start, window_end, difference, checked_at)"
            " VALUES (%s, 'm1', %s, %s, %s, %s)",
            [integration_id, start, start + length, difference, NOW],
        )


def test_differences_of_days_are_added_up(integration_id: str, connection: psycopg.Connection) -> None:
    """An hour counts only if it is the beginning of today; other hours repeat a part of their day."""
    compared(connection, integration_id, (TODAY - DAY, DAY, -2), (TODAY, HOUR, 1), (TODAY - DAY, HOUR, -2))
    query = "SELECT stream, last_reconciled, difference FROM freshness WHERE stream LIKE 'events/%' ORDER BY 1"
    assert connection.execute(query).fetchall() == [("events/m1", NOW, -1), ("events/m2", None, None)]


@pytest.mark.parametrize(
    ("differences", "differing"),
    [
        pytest.param([(TODAY - DAY, DAY, 1), (TODAY, HOUR, -1)], 2, id="two days"),
        pytest.param([(TODAY, DAY, 0), (TODAY, HOUR, 1), (TODAY + HOUR, HOUR, -1)], 2, id="two hours of a day"),
        pytest.param([(TODAY, DAY, -3), (TODAY, HOUR, -3)], 3, id="a day and its hour"),
        pytest.param([(TODAY - DAY, DAY, 0), (TODAY, DAY, 0)], 0, id="no difference"),
    ],
)
def test_a_surplus_does_not_hide_missing_events(
    integration_id: str,
    connection: psycopg.Connection,
    differences: list[tuple[datetime, timedelta, int]],
    differing: int,
) -> None:
    """Neither in the view nor on the dashboard."""
    compared(connection, integration_id, *differences)
    query = "SELECT stream, differing_events FROM freshness WHERE stream LIKE 'events/%' ORDER BY 1"
    assert connection.execute(query).fetchall() == [("events/m1", differing), ("events/m2", None)]
    [panel] = (each for each in PANELS if each["title"] == "Events that differ from Klaviyo's own counts")
    shown = panel["targets"][0]["rawSql"].replace("${account:sqlstring}", f"'{integration_id}'")
    assert connection.execute(shown).fetchall() == [(differing,)]


def test_the_newest_event_is_found_by_an_index(integration_id: str, connection: psycopg.Connection) -> None:
    connection.execute("SET enable_seqscan = off")
    plan = connection.execute("EXPLAIN SELECT newest_event FROM freshness").fetchall()
    assert any("opens_metric_key_event_at_idx" in line for (line,) in plan)
