"""Counts of the source compared with the warehouse: late events are found, and what still differs is reported."""

from datetime import datetime

import pytest

from klaviyo_pg.errors import BadSettings, MissingScope, Refused, Throttled, Unavailable
from klaviyo_pg.windows import Window
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago
from tests.runs import ALL_EVENTS

OPENS = "SELECT id FROM opens ORDER BY id"
LATE = days_ago(5) + 2.5 * HOUR  # older than the overlap of a daily run


def rereads(shop: FakeAccount) -> list[Window]:
    """Return the windows that were read again, which daily runs do metric by metric."""
    return [each.window for each in shop.sent("events") if each.subject is not None]  # type: ignore[misc]


def hour_of_late(first: float, last: float) -> Window:
    """Return a window that begins and ends so many hours after the hour of LATE."""
    return Window(days_ago(5) + (2 + first) * HOUR, days_ago(5) + (2 + last) * HOUR)


def test_late_events_are_found_by_counts(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A daily run reads the hour again in which the source has more events. Watermarks stay those of the run."""
    warehouse.daily(*ALL_EVENTS)
    shop.recover()
    [late] = shop.add_events("OPEN", LATE)
    ran = warehouse.daily(*ALL_EVENTS)
    assert (ran.state, ran.sentences) == ("complete", [])
    assert late in warehouse.column(OPENS)
    assert rereads(shop) == [hour_of_late(0, 1)]
    assert warehouse.column("SELECT state FROM chunks WHERE stream LIKE 'events/OPEN/reread %%'") == ["done"]
    assert warehouse.watermarks()["events/OPEN"] == ran.run.as_of
    shop.recover()
    warehouse.daily(*ALL_EVENTS)
    assert rereads(shop) == []


def test_a_daily_run_does_not_read_again_what_it_has_just_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """If the source counts more than it serves within the overlap, the run reports it, and the next check reads it."""
    shop.miscounts["OPEN", days_ago(1) + 2 * HOUR] = 1
    assert warehouse.daily(*ALL_EVENTS).state == "complete with differences"
    assert rereads(shop) == []
    assert warehouse.column("SELECT difference FROM reconciliation WHERE state = 'differs'") == [-1, -1]


def test_counts_by_day_find_late_events(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A source that counts by day has the whole day read again."""
    shop.set_traits(count_interval=DAY)
    warehouse.daily(*ALL_EVENTS)
    shop.recover()
    [late] = shop.add_events("OPEN", LATE)
    assert warehouse.daily(*ALL_EVENTS).state == "complete"
    assert rereads(shop) == [Window(days_ago(5), days_ago(4))]
    assert late in warehouse.column(OPENS)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Unavailable("Away."), id="unavailable"),
        pytest.param(MissingScope("metrics:read"), id="missing scope"),
        pytest.param(Refused("Not counted."), id="refused"),
    ],
)
def test_a_daily_run_without_counts_succeeds_and_the_next_overlaps_more(
    warehouse: Warehouse, shop: FakeAccount, error: Exception
) -> None:
    """Late events are then found by an overlap of a week. The run says that they would otherwise not be noticed."""
    shop.fail("counts", error)
    ran = warehouse.daily(*ALL_EVENTS)
    message = f"2 metrics could not be counted, so missing events of them would not be noticed: {error}"
    assert (ran.state, ran.sentences, ran.exit_code) == ("complete", [message], 0)
    assert set(warehouse.column("SELECT state FROM reconciliation")) == {"uncounted"}
    [late] = shop.add_events("OPEN", LATE)
    shop.requests.clear()
    assert warehouse.daily(*ALL_EVENTS).state == "complete"
    assert min(each.window.start or LATE for each in shop.sent("events")) == ran.run.as_of - 7 * DAY
    assert late in warehouse.column(OPENS)


@pytest.mark.parametrize(
    ("metric", "first", "overlap"),
    [("UNLISTED", days_ago(4), 7), (None, days_ago(4), 7), ("UNLISTED", days_ago(40), 3), ("ORDER", days_ago(4), 3)],
)
def test_late_events_of_metrics_that_are_not_listed_are_found_by_a_longer_overlap(
    warehouse: Warehouse, shop: FakeAccount, metric: str | None, first: datetime, overlap: int
) -> None:
    """They are never counted. An account that has had no such events lately is not read for them."""
    shop.add_events(metric, first)
    ran = warehouse.daily(*ALL_EVENTS, first_sync_days=60)
    [late] = shop.add_events("UNLISTED", LATE)
    shop.recover()
    warehouse.daily(*ALL_EVENTS)
    starts = [each.window.start or LATE for each in shop.sent("events") if each.subject is None]
    assert min(starts) == ran.run.as_of - overlap * DAY
    assert (late in warehouse.column("SELECT id FROM events")) is (overlap == 7)


def test_after_one_failure_no_other_metric_is_counted(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Otherwise each of them would be waited for in turn."""
    shop.fail("counts", Unavailable("Away."))
    warehouse.daily(*ALL_EVENTS, concurrency=1)
    assert len(shop.sent("counts")) == 1


def test_lost_rows_are_restored(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Reconcile reads only the hours again that differ."""
    warehouse.daily(*ALL_EVENTS)
    before = warehouse.column(OPENS)
    warehouse.execute("DELETE FROM opens WHERE id IN ('E00001', 'E00005')")
    shop.recover()
    ran = warehouse.reconcile()
    assert (ran.state, ran.sentences, ran.exit_code) == ("complete", [], 0)
    assert warehouse.column(OPENS) == before
    assert len(rereads(shop)) == 1, "the hours between them fit on one page"
    assert set(warehouse.column("SELECT state FROM reconciliation")) == {"complete"}
    assert "coverage" in ran.published.texts and "reconciliation" not in ran.published.tables


def test_what_still_differs_is_reported(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It is read again once, and reported with both counts. Later runs report it in fewer words, until it is gone."""
    warehouse.daily(*ALL_EVENTS)
    shop.miscounts["OPEN", days_ago(4) + HOUR] = 2
    shop.recover()
    first = warehouse.reconcile()
    sentence = f"Opened Email, {days_ago(4):%Y-%m-%d}: the source counts 3 events, the warehouse has 1."
    assert (first.state, first.sentences, first.exit_code) == ("complete with differences", [sentence], 0)
    assert len(rereads(shop)) == 1
    [row] = first.published.tables["reconciliation"]
    assert (row["metric"], row["source"], row["warehouse"], row["difference"]) == ("Opened Email", 3, 1, -2)
    second = warehouse.reconcile()
    assert second.state == "complete with differences"
    assert second.sentences == [
        "1 day differs as in an earlier check: the source counts 3 events, the warehouse has 1."
    ]
    assert len(rereads(shop)) == 1
    shop.miscounts["OPEN", days_ago(4) + HOUR] = 3
    third = warehouse.reconcile()
    assert third.sentences == [sentence.replace("3 events", "4 events")]
    assert len(rereads(shop)) == 2
    shop.miscounts.clear()
    last = warehouse.reconcile()
    assert (last.state, last.sentences) == ("complete", [])
    assert set(warehouse.column("SELECT state FROM reconciliation")) == {"complete"}


def test_daily_runs_read_a_difference_again_once(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Each run reports it, and the view `freshness` has the difference."""
    warehouse.daily(*ALL_EVENTS)
    shop.miscounts["OPEN", LATE] = 1
    shop.recover()
    new = f"Opened Email, {LATE:%Y-%m-%d}: the source counts 2 events, the warehouse has 1."
    known = "1 day differs as in an earlier check: the source counts 2 events, the warehouse has 1."
    for sentence in (new, known):
        ran = warehouse.daily(*ALL_EVENTS)
        assert (ran.state, ran.sentences) == ("complete with differences", [sentence])
    assert rereads(shop) == [hour_of_late(0, 1)]
    assert warehouse.column("SELECT difference FROM freshness WHERE stream = 'events/OPEN'") == [-1]


def test_events_that_the_source_has_lost_are_read_again_by_reconcile_only(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """They stay in the warehouse."""
    warehouse.daily(*ALL_EVENTS)
    lost = shop.events.pop(1)
    shop.recover()
    assert warehouse.daily(*ALL_EVENTS).state == "complete with differences"
    assert rereads(shop) == []
    ran = warehouse.reconcile()
    assert ran.sentences == [f"Opened Email, {lost.at:%Y-%m-%d}: the source counts 0 events, the warehouse has 1."]
    assert len(rereads(shop)) == 1
    assert lost.id in warehouse.column(OPENS)


def test_a_failed_reread_is_repeated_by_the_next_run(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Differences count as read again only if reading succeeded."""
    warehouse.daily(*ALL_EVENTS)
    [late] = shop.add_events("OPEN", LATE)
    shop.fail("events", MissingScope("events:read"), subject="OPEN")
    ran = warehouse.daily(*ALL_EVENTS)
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert late not in warehouse.column(OPENS)
    shop.recover()
    assert warehouse.daily(*ALL_EVENTS).state == "complete"
    assert rereads(shop) == [hour_of_late(0, 1)]
    assert late in warehouse.column(OPENS)


def test_reconcile_fails_where_it_cannot_count(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Only the metric that got no answer is left out."""
    warehouse.daily(*ALL_EVENTS)
    warehouse.execute("TRUNCATE reconciliation")
    shop.fail("counts", Unavailable("Away."), subject="ORDER")
    ran = warehouse.reconcile(concurrency=1)
    assert (ran.state, ran.sentences, ran.exit_code) == ("failed", ["Away."], 1)
    assert set(warehouse.column("SELECT metric_id FROM reconciliation")) == {"OPEN"}


def test_reconcile_tolerates_metrics_that_are_not_counted(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Their days are stored as uncounted, with the number of events in the warehouse."""
    warehouse.daily(*ALL_EVENTS)
    shop.fail("counts", Refused("Not counted."), subject="ORDER")
    ran = warehouse.reconcile()
    assert (ran.state, ran.exit_code) == ("complete", 0)
    rows = warehouse.rows(
        "SELECT state, sum(warehouse_events) FROM reconciliation WHERE metric_id = 'ORDER' GROUP BY 1"
    )
    assert rows == [("uncounted", 4)]


def test_a_long_pause_postpones_a_reconciliation(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily(*ALL_EVENTS)
    shop.fail("counts", Throttled("Wait a day."))
    ran = warehouse.reconcile()
    assert (ran.state, ran.sentences, ran.exit_code) == ("to be continued", ["Wait a day."], 4)


def test_reconcile_needs_a_number_of_days(warehouse: Warehouse) -> None:
    ran = warehouse.reconcile(reconcile_days=0)
    assert (ran.state, ran.exit_code) == ("failed", BadSettings.exit_code)
    assert ran.sentences == ["RECONCILE_DAYS is 0, so there is nothing to compare: set the number of days."]


def test_nothing_is_counted_where_nothing_was_loaded(warehouse: Warehouse, shop: FakeAccount) -> None:
    assert warehouse.reconcile().state == "complete"
    assert not shop.sent("counts")


def test_requests_for_counts_belong_to_the_run(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily(*ALL_EVENTS)
    shop.recover()
    warehouse.reconcile()
    assert len(shop.sent("counts")) == 2
    assert warehouse.column("SELECT requests FROM runs WHERE flow = 'reconcile'") == [len(shop.requests)]
