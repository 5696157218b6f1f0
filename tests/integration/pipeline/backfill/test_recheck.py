"""A backfill that runs again: it compares counts with the ledger, and reads chunks again that have more events now."""

from dataclasses import replace
from datetime import datetime

import pytest

from klaviyo_pg.errors import Refused, Unavailable
from klaviyo_pg.states import RunState
from klaviyo_pg.windows import Window
from pipeline.backfill.runbook import publish
from pipeline.job import Job
from tests.fakes import FakeAccount
from tests.integration.pipeline.backfill.conftest import START, STORED, Backfill, assert_complete
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago

DIFFERS = RunState.COMPLETE_WITH_DIFFERENCES


def test_the_same_backfill_reads_what_an_import_has_added(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    """Of a metric with four events and of one with thousands. Chunks that have not grown are not read again."""
    backfill()
    [grown] = warehouse.rows(
        "SELECT window_start, window_end FROM backfill_chunks WHERE metric_id = 'OPEN'"
        " AND window_start <= %s AND window_end > %s",
        *[days_ago(25)] * 2,
    )
    shop.recover()
    orders = shop.add_events("ORDER", *(days_ago(35) + number * DAY / 100 for number in range(700)), person="P1")
    opens = shop.add_events("OPEN", days_ago(25), days_ago(25) + HOUR, person="P1")
    ran = backfill()
    assert (ran.state, ran.sentences) == (RunState.COMPLETE, [])
    assert set(orders) | set(opens) <= set(warehouse.column(STORED))
    assert warehouse.column(STORED) == sorted(event.id for event in shop.events)
    read = [each.window for each in shop.sent("events", "OPEN")]
    assert (min(read).start, max(read).end) == grown
    shop.recover()
    assert backfill().state == RunState.COMPLETE
    assert shop.sent("events") == []


def test_a_few_more_events_of_a_small_metric_are_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """One request shows that they fit on one page. It costs no count."""
    warehouse.backfill(START, days_ago(15))
    warehouse.backfill(START)
    shop.recover()
    [order] = shop.add_events("ORDER", days_ago(30), person="P1")
    warehouse.backfill(START, metrics=("ORDER",))
    assert order in warehouse.column(STORED)
    assert (len(shop.sent("beginning", "ORDER")), shop.sent("counts")) == (1, [])


def test_an_import_into_time_before_the_first_event_is_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.backfill(days_ago(1_000))
    early = shop.add_events("OPEN", days_ago(900), days_ago(700), person="P1")
    assert warehouse.backfill(days_ago(1_000)).state == RunState.COMPLETE
    assert set(early) <= set(warehouse.column(STORED))


def test_a_rerun_of_an_interrupted_backfill_does_not_count_again(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """A resumed run does not check what it has counted itself."""
    shop.before("events", warehouse.stop, subject="OPEN", page=1)
    assert spooled(concurrency=1).state == RunState.STOPPED
    shop.recover()
    assert spooled().state == RunState.COMPLETE
    assert shop.sent("beginning") == [] and shop.sent("counts") == []
    assert_complete(warehouse, shop)


def test_events_that_the_source_counts_and_does_not_serve_are_reported(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    """By every run. They are not read again as long as the count stays."""
    shop.miscounts["OPEN", days_ago(25)] = 1_000
    message = "Opened Email, 1 chunk of history: the source counts 1,005 events, the warehouse has 5."
    for _ in range(2):
        ran = backfill()
        assert (ran.state, ran.exit_code, ran.sentences) == (DIFFERS, 0, [message])
    assert sum(row["difference"] for row in ran.published.tables["backfill"]) == -1_000  # type: ignore[misc]
    shop.recover()
    assert backfill().state == DIFFERS
    assert shop.sent("events") == []
    shop.miscounts.clear()
    ran = backfill()
    assert (ran.state, ran.sentences) == (RunState.COMPLETE, [])


def test_events_that_reconcile_has_read_are_not_read_again(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    """The ledger of the backfill did not know them. It takes over their number."""
    backfill()
    shop.add_events("OPEN", days_ago(25), days_ago(25) + HOUR, person="P1")
    warehouse.reconcile()
    shop.recover()
    assert backfill().state == RunState.COMPLETE
    assert shop.sent("events") == []
    assert sum(loaded for _, _, _, loaded in warehouse.history()) == len(shop.events)


@pytest.mark.parametrize("runs", [1, 2])
def test_a_backfill_reports_what_the_source_does_not_count(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill, runs: int
) -> None:
    """In every run. The metric is read in equal windows, and what was loaded of it cannot be compared."""
    shop.fail("counts", Refused("Not counted."), subject="OPEN")
    for _ in range(runs):
        ran = backfill()
    assert (ran.state, ran.exit_code) == (RunState.COMPLETE, 0)
    assert ran.sentences == [
        "1 metric could not be counted, so missing events of it would not be noticed: Not counted."
    ]
    assert warehouse.column(STORED) == sorted(event.id for event in shop.events)


def test_a_count_of_0_is_not_believed_if_there_are_events(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    """Otherwise the history would be skipped without a message."""
    shop.counts_nothing.add("OPEN")
    ran = backfill()
    assert warehouse.column(STORED) == sorted(event.id for event in shop.events)
    assert (ran.state, ran.exit_code) == (RunState.COMPLETE, 0)
    assert ran.sentences == [
        "1 metric could not be counted, so missing events of it would not be noticed: The source counts 0 events "
        "where it has some."
    ]


def test_a_recheck_that_fails_leaves_the_run_partial(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    backfill()
    shop.fail("counts", Unavailable("Away."))
    ran = backfill()
    assert (ran.state, ran.sentences, ran.exit_code) == (RunState.PARTIAL, ["Away."], 3)
    shop.recover()
    assert backfill().state == RunState.COMPLETE


@pytest.mark.parametrize(("miscount", "at_half_past"), [(-3, RunState.COMPLETE), (3, DIFFERS)])
def test_events_that_are_counted_later_are_no_difference(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill, miscount: int, at_half_past: RunState
) -> None:
    """Klaviyo counts the hour before midnight by one o'clock. What is missing is reported at once."""
    shop.add_events("OPEN", *[days_ago(0) - HOUR / 2] * 3)
    shop.miscounts["OPEN", days_ago(0) - HOUR / 2] = miscount
    spooled()
    states = [published_at(warehouse, days_ago(0) + after) for after in (HOUR / 2, 2 * HOUR)]
    assert states == [at_half_past, DIFFERS]


def published_at(warehouse: Warehouse, as_of: datetime) -> RunState:
    """Publish the result of a backfill as a run at another time does, and return the state of that run."""

    def runbook(job: Job) -> None:
        publish(replace(job, run=replace(job.run, as_of=as_of)), Window(START, days_ago(0)))

    return warehouse.follow("backfill", runbook, {"as_of": as_of}, {}).state
