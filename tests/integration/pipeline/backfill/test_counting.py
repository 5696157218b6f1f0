"""Counting history: how few requests plan a backfill, and what happens when the source does not count."""

from collections.abc import Iterable
from threading import Event

import pytest

from klaviyo_pg.cli import preview as cli
from klaviyo_pg.errors import MissingScope, Refused, Unavailable
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.windows import Window
from pipeline.commands.preview import Preview, Stored, facts, preview
from tests.fakes import FakeAccount
from tests.integration.pipeline.backfill.conftest import OPENS, ORDERS, START, STORED, Backfill, assert_complete
from tests.integration.pipeline.conftest import DAY, Warehouse, days_ago

PATIENCE = 60.0  # seconds after which a wait counts as failed


def test_only_large_metrics_are_counted(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    """One request finds out that a metric has few events, or when it begins: years before that are not counted."""
    spooled(days_ago(1_000))
    assert {each.subject for each in shop.sent("beginning")} == {"OPEN", "ORDER"}
    assert [(each.subject, each.window) for each in shop.sent("counts")] == [
        ("OPEN", Window(days_ago(31), days_ago(0))),
    ]


def test_chunks_are_read_while_others_are_still_counted(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """Counting waits here until events have been requested."""
    reading = Event()
    shop.before("events", reading.set, subject="ORDER")
    shop.before("counts", lambda: _wait(reading))
    assert spooled().state == "complete"
    assert_complete(warehouse, shop)


def _wait(event: Event) -> None:
    assert event.wait(PATIENCE)


@pytest.mark.parametrize("error", [Refused("Not counted."), MissingScope("metrics:read")])
def test_metrics_that_cannot_be_counted_are_read_in_equal_windows(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill, error: Exception
) -> None:
    """Of 30 days at most, without a number of expected events."""
    shop.fail("counts", error)
    assert backfill().state == "complete"
    assert warehouse.column(STORED) == sorted(event.id for event in shop.events)
    chunks = "SELECT expected, window_end - window_start FROM backfill_chunks WHERE metric_id = 'OPEN' AND loaded > 0"
    assert all(expected is None and length <= 30 * DAY for expected, length in warehouse.rows(chunks))
    assert len(warehouse.rows(chunks)) == 2


def test_counting_that_fails_leaves_the_run_partial(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    """The run reads the metrics that it was able to count. The next run counts the others."""
    shop.fail("counts", Unavailable("Away."))
    ran = backfill()
    assert (ran.state, ran.sentences, ran.exit_code) == ("partial", ["Away."], 3)
    assert warehouse.column(STORED) == [event.id for event in shop.events if event.metric_id == "ORDER"]
    shop.recover()
    assert backfill().state == "complete"
    assert_complete(warehouse, shop)
    assert {each.subject for each in shop.sent("events")} == {"OPEN"}


def test_counting_can_do_without_the_beginnings(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    """After two failures no other metric is asked for its first event: counts are enough to plan.

    Nor is it, after two more, in order to check a count of 0.
    """
    for number in range(4):
        shop.add_metric(f"M{number}", f"Metric {number}")
    shop.fail("beginning", Unavailable("Away."))
    assert spooled(concurrency=1).state == "complete"
    assert len(shop.sent("beginning")) == 2 + 2
    assert_complete(warehouse, shop)


def test_a_preview_counts_everything_and_writes_nothing(warehouse: Warehouse, shop: FakeAccount) -> None:
    shown: list[int] = []

    def watch(answers: Iterable[list[BackfillChunk]], *, total: int) -> Iterable[list[BackfillChunk]]:
        shown.append(total)
        return answers

    with warehouse.open(chunk_events=1_000) as session:
        found = preview(session, Window(START, days_ago(0)), watch)
    assert {name: summary.expected for name, summary in found.metrics} == {
        "Opened Email": OPENS,
        "Placed Order": ORDERS,
    }
    assert shown == [1]
    assert not shop.sent("events")
    assert warehouse.rows("SELECT FROM integrations UNION ALL SELECT FROM backfill_chunks") == []


def test_each_metric_counts_only_what_is_loaded_of_itself(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Neither another metric that is loaded nor a surplus of one hides what is missing of another."""
    with warehouse.open(metrics=["Placed Order"]) as session:
        found = preview(session, Window(START, days_ago(0)), lambda answers, *, total: answers)
        for loaded, left in (
            ({"OPEN": OPENS}, ORDERS),
            ({"ORDER": 3, "OPEN": OPENS}, ORDERS - 3),
            ({"ORDER": 10**9}, 0),
        ):
            assert facts(session, found, Stored(loaded=loaded), 0).events == left


def test_a_preview_has_what_cannot_be_counted(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The forecast is a lower bound until all of it is loaded. Its events do not count as those of others."""
    window = Window(START, days_ago(0))
    shop.fail("counts", Refused("Not counted."))
    with warehouse.open() as session:
        found = preview(session, window, lambda answers, *, total: answers)
        assert {each.metric_id for each in found.uncounted_chunks} == {"OPEN"}
        before = facts(session, found, Stored(), 0)
    assert (before.events, before.event_requests) == (ORDERS, 2 + len(found.uncounted_chunks))
    assert not before.are_all_counted
    ran = warehouse.backfill(START)
    [opens] = [row for row in ran.published.tables["backfill"] if row["metric"] == "Opened Email"]
    assert [opens[name] for name in ("expected", "loaded", "loaded_uncounted", "difference")] == [0, 0, OPENS, 0]
    stored = cli._stored(warehouse.configured(), window)
    assert stored.loaded == {"OPEN": 0, "ORDER": ORDERS}
    with warehouse.open() as session:
        after = facts(session, found, stored, 0)
    assert (after.events, after.event_requests, after.are_all_counted) == (0, 0, True)


def test_the_forecast_has_as_many_readers_as_the_run(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The number follows from the first, small answer, however slow the answers are to many requests at once."""
    shop.set_traits(event_requests_per_minute=3_000, people_requests_per_minute=700)
    with warehouse.open(rate_limit_share=0.5, concurrency=None) as session:
        found = facts(session, Preview([], answer_seconds=0.1), Stored(), 0)
        assert found.readers == session.worker_count(0.1, 3_000) == 10
    assert (found.events_limit, found.people_limit) == (1_500, 350)


def test_time_after_loaded_history_is_counted_at_once(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """The metric has begun by then, so that no request has to find out. What is loaded is counted again."""
    warehouse.backfill(START, days_ago(20), chunk_events=1_000)
    shop.recover()
    assert spooled().state == "complete"
    assert {each.window for each in shop.sent("beginning")} == {Window(START, days_ago(20))}
    new, loaded = Window(days_ago(20), days_ago(0)), Window(days_ago(31), days_ago(20))
    assert {each.window for each in shop.sent("counts")} == {new, loaded}
    assert_complete(warehouse, shop)
