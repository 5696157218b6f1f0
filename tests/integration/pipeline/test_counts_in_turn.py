"""Counts within a budget: metrics with events every day, the silent ones in turn, and nothing late is missed."""

from datetime import timedelta

import pytest

from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago
from tests.runs import ALL_EVENTS

SILENT = [f"S{number}" for number in range(4)]


@pytest.fixture(autouse=True)
def silent(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Give the account four metrics without events, and count them once."""
    for metric_id in SILENT:
        shop.add_metric(metric_id, f"Silent {metric_id}")
    warehouse.daily(*ALL_EVENTS)
    shop.recover()


def counted(shop: FakeAccount) -> list[str | None]:
    """Return the metrics that have been counted since the last call."""
    found = sorted(each.subject for each in shop.sent("counts") if each.subject)
    shop.requests.clear()
    return [*found]


def age(warehouse: Warehouse, metric_id: str, days: int) -> None:
    """Let the last comparison of a metric be so many days older."""
    latest = "SELECT max(window_end) FROM reconciliation WHERE metric_id = %s"
    warehouse.execute(
        f"DELETE FROM reconciliation WHERE metric_id = %s AND window_end < ({latest})", metric_id, metric_id
    )
    query = (
        "UPDATE reconciliation SET window_start = window_start - %s, window_end = window_end - %s,"
        " checked_at = checked_at - %s WHERE metric_id = %s"
    )
    warehouse.execute(query, *[timedelta(days=days)] * 3, metric_id)


def test_metrics_with_events_are_counted_daily_and_silent_ones_in_turn(warehouse: Warehouse, shop: FakeAccount) -> None:
    for number, metric_id in enumerate(SILENT):
        age(warehouse, metric_id, 4 - number)
    for metric_id in SILENT:
        assert warehouse.daily(*ALL_EVENTS, count_requests=3).state == "complete"
        assert counted(shop) == ["OPEN", "ORDER", metric_id]
    assert warehouse.reconcile(count_requests=3).state == "complete"
    assert len(counted(shop)) == 6, "reconcile counts all"


def test_what_was_not_counted_keeps_its_last_comparison(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The view `freshness` has the time of it."""
    age(warehouse, "S0", 3)
    age(warehouse, "S3", 2)
    query = "SELECT count_state, last_reconciled FROM freshness WHERE stream = 'events/S3'"
    before = warehouse.rows(query)
    assert before[0][0] == "complete"
    warehouse.daily(*ALL_EVENTS, count_requests=1)
    assert counted(shop) == ["OPEN", "ORDER", "S0"]
    assert warehouse.rows(query) == before


def test_a_metric_that_wakes_up_is_counted_by_the_same_run(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A recent event of it is read anyway, and then the count finds the late ones."""
    age(warehouse, "S0", 3)
    late, recent = shop.add_events("S3", days_ago(6), days_ago(1) + HOUR)
    warehouse.daily(*ALL_EVENTS, count_requests=1)
    assert counted(shop) == ["OPEN", "ORDER", "S0", "S3"]
    assert warehouse.column("SELECT id FROM events WHERE id IN (%s, %s) ORDER BY 1", late, recent) == [late, recent]


def test_a_late_event_of_a_silent_metric_is_found_when_its_turn_comes(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The comparison reaches back as far as those of the days on which the metric was left out."""
    first = {"first_sync_days": 60, "since": days_ago(40)}
    warehouse.daily(*ALL_EVENTS, **first)  # type: ignore[arg-type]
    warehouse.execute("UPDATE watermarks SET since = %s", days_ago(40))
    age(warehouse, "S0", 7)
    [late] = shop.add_events("S0", days_ago(34))
    shop.recover()
    assert warehouse.daily(*ALL_EVENTS, count_requests=1, reconcile_days=30).state == "complete"
    assert warehouse.column("SELECT id FROM events WHERE id = %s", late) == [late]
    [window] = [each.window for each in shop.sent("counts", "S0")]
    assert window.start == days_ago(30) - 6 * DAY
