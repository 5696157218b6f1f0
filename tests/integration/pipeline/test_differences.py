"""Checks that used to fail in silence: what a run reports if counts differ, or if the source cannot count."""

import pytest

from klaviyo_pg.errors import Refused, Unavailable
from klaviyo_pg.states import RunState
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import HOUR, Warehouse, days_ago
from tests.runs import ALL_EVENTS

LONG_AGO = days_ago(5) + 2 * HOUR
DIFFERS = RunState.COMPLETE_WITH_DIFFERENCES


def test_a_daily_run_reports_events_that_it_could_not_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The source counts 1,000 events more than it serves. Already the first run says so."""
    shop.miscounts["OPEN", LONG_AGO] = 1_000
    ran = warehouse.daily(*ALL_EVENTS)
    sentence = f"Opened Email, {days_ago(5):%Y-%m-%d}: the source counts 1,001 events, the warehouse has 1."
    assert (ran.state, ran.exit_code, ran.sentences) == (DIFFERS, 0, [sentence])
    assert warehouse.rows("SELECT state, message FROM runs") == [("complete with differences", sentence)]
    assert [row["difference"] for row in ran.published.tables["reconciliation"]] == [-1_000]


def test_a_difference_that_remains_is_reported_by_every_run(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Later messages are shorter, but the state stays until the counts agree."""
    shop.miscounts["OPEN", LONG_AGO] = 2
    warehouse.daily(*ALL_EVENTS)
    warehouse.daily(*ALL_EVENTS)
    short = "1 day differs as in an earlier check: the source counts 3 events, the warehouse has 1."
    for ran in (
        warehouse.daily(*ALL_EVENTS),
        warehouse.reconcile(),
        warehouse.reconcile(),
        warehouse.daily(*ALL_EVENTS),
    ):
        assert (ran.state, ran.exit_code) == (DIFFERS, 0)
    assert ran.sentences == [short]
    shop.miscounts.clear()
    ran = warehouse.daily(*ALL_EVENTS)
    assert (ran.state, ran.sentences) == (RunState.COMPLETE, [])


def test_a_difference_is_a_fact_of_the_view_freshness(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A run with differences is a complete run. The view says which metric differs, even if the sum is right."""
    shop.miscounts |= {("OPEN", LONG_AGO): 2, ("OPEN", LONG_AGO + 24 * HOUR): -1}
    shop.miscounts |= {("ORDER", LONG_AGO): 1, ("ORDER", days_ago(4)): -1}
    assert warehouse.daily(*ALL_EVENTS).state == DIFFERS
    columns = "stream, difference, differing_events, count_state, last_complete_run IS NOT NULL"
    assert warehouse.rows(f"SELECT {columns} FROM freshness WHERE difference IS NOT NULL ORDER BY 1") == [
        ("events/OPEN", -1, 3, "differs", True),
        ("events/ORDER", 0, 2, "differs", True),
    ]


@pytest.mark.parametrize("error", [Refused("Bad request."), Unavailable("Away.")])
def test_a_daily_run_reports_that_the_source_does_not_count(
    warehouse: Warehouse, shop: FakeAccount, error: Exception
) -> None:
    """In one sentence for each reason, in every run."""
    shop.fail("counts", error)
    for _ in range(2):
        ran = warehouse.daily(*ALL_EVENTS)
        assert (ran.state, ran.exit_code) == (RunState.COMPLETE, 0)
        assert ran.sentences == [
            f"2 metrics could not be counted, so missing events of them would not be noticed: {error}"
        ]
    query = "SELECT DISTINCT count_state, difference, last_reconciled FROM freshness WHERE stream LIKE 'events/%%'"
    assert warehouse.rows(query) == [("uncounted", None, None)]


def test_reconcile_reports_what_the_source_does_not_count(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily(*ALL_EVENTS)
    shop.fail("counts", Refused("Bad request."), subject="ORDER")
    ran = warehouse.reconcile()
    assert (ran.state, ran.exit_code) == (RunState.COMPLETE, 0)
    assert ran.sentences == [
        "1 metric could not be counted, so missing events of it would not be noticed: Bad request."
    ]


def test_a_failed_run_also_reports_differences(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The failure decides the state."""
    warehouse.daily(*ALL_EVENTS)
    shop.miscounts["OPEN", LONG_AGO] = 1
    shop.fail("events", Unavailable("Away."), subject="OPEN")
    ran = warehouse.daily(*ALL_EVENTS)
    assert ran.state == RunState.FAILED
    assert ran.sentences[0] == "Away." and "the source counts 2 events" in ran.sentences[1]


def test_a_known_difference_outlives_a_check_that_cannot_count(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It is still reported as known, and not as new once the source counts again."""
    shop.miscounts["OPEN", LONG_AGO] = 2
    warehouse.daily(*ALL_EVENTS)
    warehouse.daily(*ALL_EVENTS)
    short = "1 day differs as in an earlier check: the source counts 3 events, the warehouse has 1."
    shop.fail("counts", Unavailable("Away."))
    ran = warehouse.daily(*ALL_EVENTS)
    assert (ran.state, ran.sentences[0]) == (DIFFERS, short)
    assert "could not be counted" in ran.sentences[1]
    query = "SELECT count_state, difference FROM freshness WHERE stream = 'events/OPEN'"
    assert warehouse.rows(query) == [("differs", -2)]
    shop.recover()
    assert warehouse.daily(*ALL_EVENTS).sentences == [short]
