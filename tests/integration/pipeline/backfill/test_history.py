"""Backfills: history is read once, in planned chunks; options and settings limit what is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from klaviyo_pg.errors import BadAnswer, MissingScope, Unavailable
from klaviyo_pg.postgres.ledgers import backfill_ledger
from tests.fakes import FakeAccount
from tests.integration.pipeline.backfill.conftest import (
    OPENS,
    ORDERS,
    START,
    STORED,
    Backfill,
    assert_complete,
    spool_files,
)
from tests.integration.pipeline.conftest import HOUR, Warehouse, days_ago
from tests.runs import ALL_EVENTS

CHUNK_WINDOWS = "SELECT metric_id, window_start, window_end FROM backfill_chunks ORDER BY 1, 2"


def test_a_backfill_loads_every_event_once(warehouse: Warehouse, shop: FakeAccount, backfill: Backfill) -> None:
    ran = backfill()
    assert (ran.state, ran.sentences, ran.exit_code) == ("complete", [], 0)
    assert_complete(warehouse, shop)
    [small] = [row for row in warehouse.history() if row[0] == "ORDER"]
    assert small == ("ORDER", "done", ORDERS, ORDERS)
    assert len([row for row in warehouse.history() if row[2]]) >= 4
    assert ran.counts["opens"]["inserted"] == ran.counts["opens"]["rows_read"] == OPENS
    assert [row["difference"] for row in ran.published.tables["backfill"]] == [0, 0]
    assert "coverage" in ran.published.texts
    assert spool_files(warehouse) == []
    assert warehouse.column("SELECT requests FROM runs") == [len(shop.requests)]


def test_a_backfill_without_a_spool_resumes_and_loads_every_event_once(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.before("events", warehouse.stop)
    assert warehouse.backfill(START, spool=False, concurrency=1).state == "stopped"
    shop.recover()
    assert warehouse.backfill(START, spool=False).state == "complete"
    assert_complete(warehouse, shop)


def test_a_complete_backfill_reads_no_events_again(warehouse: Warehouse, shop: FakeAccount, backfill: Backfill) -> None:
    backfill()
    shop.recover()
    assert backfill().state == "complete"
    assert {each.kind for each in shop.requests} == {"account", "metrics", "lists", "beginning", "counts"}
    assert (len(shop.sent("beginning")), len(shop.sent("counts"))) == (2, 1)


def test_an_earlier_start_reads_only_what_is_missing(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    backfill(days_ago(10))
    first = sum(loaded for _, _, _, loaded in warehouse.history())
    assert 0 < first < OPENS
    shop.recover()
    assert backfill().state == "complete"
    assert max(each.window.end or START for each in shop.sent("events")) == days_ago(10)
    assert_complete(warehouse, shop)


def test_restart_reads_everything_again(warehouse: Warehouse, shop: FakeAccount, backfill: Backfill) -> None:
    """Stored events stay, but the ledger starts over."""
    backfill()
    shop.recover()
    ran = backfill(restart=True)
    assert (ran.state, ran.changed()) == ("complete", {})
    assert sum(len(each) for each in (shop.sent("beginning"), shop.sent("counts"))) == 3
    assert ran.counts["opens"]["unchanged"] == OPENS
    assert_complete(warehouse, shop)


def test_a_restart_of_some_days_keeps_what_is_loaded_around_them(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """A chunk that is partly within these days is read as a whole. Otherwise the rest would count as not loaded."""
    loaded = (
        "SELECT metric_id, min(window_start), max(window_end), sum(window_end - window_start), sum(loaded)"
        " FROM backfill_chunks WHERE state = 'done' GROUP BY 1 ORDER BY 1"
    )
    spooled()
    before = warehouse.rows(loaded)
    shop.recover()
    ran = spooled(days_ago(20), end=days_ago(18), restart=True)
    assert (ran.state, ran.changed(), ran.sentences) == ("complete", {}, [])
    assert {each.subject for each in shop.sent("events")} == {"OPEN", "ORDER"}
    assert warehouse.rows(loaded) == before
    spooled()
    assert_complete(warehouse, shop)


def test_a_restart_does_not_read_what_is_not_kept(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    """The chunk of the orders begins before the first day to keep."""
    spooled()
    shop.recover()
    spooled(restart=True, events_since=days_ago(18).date())
    assert min(each.window.seconds[0] for each in shop.sent("events")) == days_ago(18).timestamp()


def test_history_that_was_not_kept_is_loaded_again(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    """EVENTS_SINCE moves back after earlier events were dropped. The chunk of the orders begins before that day."""
    spooled()
    warehouse.execute("DELETE FROM events WHERE event_at < %s", days_ago(18))
    warehouse.execute("DELETE FROM opens WHERE event_at < %s", days_ago(18))
    warehouse.daily(*ALL_EVENTS, events_since=days_ago(18).date())
    assert all(loaded == expected for _, state, expected, loaded in warehouse.history() if expected is not None)
    assert spooled(events_since=days_ago(18).date()).changed() == {}
    assert spooled().state == "complete"
    assert_complete(warehouse, shop)


@pytest.mark.parametrize("kept_days", [18, 5], ids=["before the checkpoint", "after the checkpoint"])
def test_history_that_was_read_in_part_and_not_kept_is_loaded_again(
    warehouse: Warehouse, shop: FakeAccount, kept_days: int
) -> None:
    """The chunk of the opens fails after 20 of its 30 days."""
    backfill = partial(warehouse.backfill, START, chunk_events=10_000, spool=False)
    shop.fail("events", Unavailable("Away."), subject="OPEN", page=5)
    assert backfill().state == "partial"
    shop.recover()
    warehouse.execute("DELETE FROM events WHERE event_at < %s", days_ago(kept_days))
    warehouse.execute("DELETE FROM opens WHERE event_at < %s", days_ago(kept_days))
    warehouse.daily(*ALL_EVENTS, events_since=days_ago(kept_days).date())
    assert backfill().state == "complete"
    assert_complete(warehouse, shop)


def test_a_resumed_backfill_does_not_read_what_is_not_kept(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """Chunks that were planned begin before the first day to keep."""
    shop.fail("events", BadAnswer("Odd."))
    spooled()
    shop.recover()
    assert spooled(events_since=days_ago(18).date()).state == "complete"
    assert min(each.window.seconds[0] for each in shop.sent("events")) == days_ago(18).timestamp()
    assert min(warehouse.column("SELECT event_at FROM opens UNION SELECT event_at FROM events")) >= days_ago(18)


@pytest.mark.parametrize("claim", ["backfill", backfill_ledger.part_claim("G")], ids=["backfill", "part"])
def test_chunks_stay_as_they_are_while_a_backfill_reads_them(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill, claim: str
) -> None:
    """EVENTS_SINCE is followed by the next run."""
    spooled()
    warehouse.execute("UPDATE backfill_chunks SET group_name = 'G', state = 'planned' WHERE metric_id = 'ORDER'")
    follow = partial(warehouse.daily, "metrics", events_since=days_ago(18).date())
    before = warehouse.rows(CHUNK_WINDOWS)
    with in_progress_elsewhere(warehouse, claim):
        follow()
        assert warehouse.rows(CHUNK_WINDOWS) == before
    follow()
    assert min(start for _, start, _ in warehouse.rows(CHUNK_WINDOWS)) == days_ago(18)


def test_an_end_leaves_later_events_out(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The end is exclusive."""
    assert warehouse.backfill(START, days_ago(18)).state == "complete"
    expected = sorted(event.id for event in shop.events if event.at < days_ago(18))
    assert warehouse.column(STORED) == expected


def test_a_backfill_needs_metrics(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A key that may not read metrics fails the run with the exit code of a missing scope."""
    shop.fail("metrics", MissingScope("metrics:read"))
    ran = warehouse.backfill(START)
    assert (ran.state, ran.exit_code) == ("failed", MissingScope.exit_code)
    assert len(ran.sentences) == 1


def test_the_error_of_the_metrics_fails_a_backfill(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Without them, it is not known what there is to read."""
    shop.fail("metrics", BadAnswer("Odd."))
    ran = warehouse.backfill(START)
    assert (ran.state, ran.sentences) == ("failed", ["Odd."])


def test_an_account_without_metrics_has_no_history(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.metrics.clear()
    shop.events.clear()
    ran = warehouse.backfill(START, restart=True)
    assert (ran.state, ran.exit_code) == ("complete", 0)
    assert ran.sentences == ["The account has no metrics yet, so there is no history to load."]


@pytest.mark.parametrize(
    "selected",
    [
        pytest.param({"tables": ("lists",)}, id="tables"),
        pytest.param({"tables": ("clicks",), "metrics": ("OPEN",)}, id="metrics"),
    ],
)
def test_a_selection_without_events_has_no_history(
    warehouse: Warehouse, shop: FakeAccount, selected: dict[str, Any]
) -> None:
    ran = warehouse.backfill(START, **selected)
    assert (ran.state, ran.changed().keys() & {"opens", "clicks", "events"}) == ("complete", set())
    assert ran.sentences == ["No selected metric has events for the selected tables, so there is no history to load."]


@pytest.mark.parametrize(
    ("in_progress", "flow"), [("backfill", "daily"), ("daily", "backfill"), ("reconcile", "daily")]
)
def test_no_run_moves_events_during_another_one(
    warehouse: Warehouse, shop: FakeAccount, in_progress: str, flow: str
) -> None:
    """The run in progress stores events in the tables that were right when it began."""
    runs = {"daily": partial(warehouse.daily, "metrics"), "backfill": partial(warehouse.backfill, START)}
    warehouse.backfill(START)
    with in_progress_elsewhere(warehouse, in_progress):
        runs[flow](destinations={"ORDER": "clicks"})
        assert warehouse.column("SELECT id FROM clicks") == []
    runs[flow](destinations={"ORDER": "clicks"})
    assert len(warehouse.column("SELECT id FROM clicks")) == ORDERS


def test_no_run_moves_events_while_parts_of_a_backfill_are_reading(warehouse: Warehouse, shop: FakeAccount) -> None:
    """They continue although the run that has started them is gone, and no longer holds the claim of the flow."""
    warehouse.backfill(START)
    warehouse.execute("UPDATE backfill_chunks SET group_name = 'G', state = 'planned' WHERE metric_id = 'ORDER'")
    with in_progress_elsewhere(warehouse, backfill_ledger.part_claim("G")):
        warehouse.daily("metrics", destinations={"ORDER": "clicks"})
        assert warehouse.column("SELECT id FROM clicks") == []
    warehouse.daily("metrics", destinations={"ORDER": "clicks"})
    assert len(warehouse.column("SELECT id FROM clicks")) == ORDERS


def test_a_new_metric_has_its_events_where_a_daily_run_in_progress_puts_them(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """That run does not know the metric. Its events would stay in `events`, and be in another table as well."""
    warehouse.daily("metrics")
    shop.add_metric("CLICK", "Clicked Email")
    clicks = shop.add_events("CLICK", days_ago(2))
    with in_progress_elsewhere(warehouse, "daily"):
        warehouse.backfill(START, metrics=("CLICK",))
        assert warehouse.column("SELECT id FROM events") == clicks
    warehouse.daily("metrics")
    assert (warehouse.column("SELECT id FROM events"), warehouse.column("SELECT id FROM clicks")) == ([], clicks)


@contextmanager
def in_progress_elsewhere(warehouse: Warehouse, claim: str) -> Iterator[None]:
    """Let another session hold a claim, such as that of a flow."""
    [integration_id] = warehouse.column("SELECT esp_integration_id FROM integrations")
    with warehouse.open() as other:
        other.claims.take(integration_id, claim)
        yield


def test_coverage_shows_what_was_loaded(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A day without events counts as such if the source has counted it."""
    ran = warehouse.backfill(days_ago(20) - HOUR, metrics=("ORDER",))
    [line] = [line for line in ran.published.texts["coverage"].splitlines() if "Placed Order" in line]
    assert f"{'▒' * 21}" in line
