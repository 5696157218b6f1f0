"""Events that an import adds long after their date: found by reconcile, year by year, within a budget of requests."""

from datetime import timedelta

import pytest

from klaviyo_pg.errors import Refused, Unavailable
from klaviyo_pg.states import RunState
from klaviyo_pg.windows import Window
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago
from tests.runs import ALL_EVENTS

YEAR = 365 * DAY
ORDERS = "SELECT id FROM events ORDER BY id"


@pytest.fixture
def loaded(warehouse: Warehouse, shop: FakeAccount) -> Warehouse:
    """Return a warehouse with three years of history and the days since then."""
    warehouse.backfill(days_ago(3 * 365), days_ago(4))
    warehouse.daily(*ALL_EVENTS)
    shop.recover()
    return warehouse


def import_orders(shop: FakeAccount, age: float, number: int = 500) -> list[str]:
    """Add orders within a day, so many days ago."""
    return shop.add_events("ORDER", *(days_ago(age) + each * DAY / number for each in range(number)), person="P1")


def history_requests(shop: FakeAccount) -> list[tuple[str | None, Window]]:
    """Return the counts that were asked for and end before the last 30 days."""
    return [(each.subject, each.window) for each in shop.sent("counts") if each.window.end <= days_ago(30)]  # type: ignore[misc,operator]


def test_reconcile_reads_events_that_an_import_added_45_days_ago(loaded: Warehouse, shop: FakeAccount) -> None:
    orders = import_orders(shop, 45)
    loaded.daily(*ALL_EVENTS)
    assert not set(orders) & set(loaded.column(ORDERS)), "a daily run compares only RECONCILE_DAYS"
    ran = loaded.reconcile()
    assert (ran.state, ran.sentences) == (RunState.COMPLETE, [])
    assert set(orders) <= set(loaded.column(ORDERS))
    assert loaded.column("SELECT DISTINCT difference FROM freshness WHERE stream LIKE 'events/%%'") == [0]


def test_one_request_compares_a_metric_for_a_year(loaded: Warehouse, shop: FakeAccount) -> None:
    """Years are fixed, so that three years of history touch four of them at most."""
    loaded.reconcile()
    asked = history_requests(shop)
    assert {metric for metric, _ in asked} == {"OPEN", "ORDER"}
    assert 2 * 3 <= len(asked) <= 2 * 4
    assert all(window.end - window.start <= YEAR for _, window in asked)
    assert min(window.start for _, window in asked) == days_ago(3 * 365)
    assert len(set(asked)) == len(asked)


def test_history_is_compared_within_a_budget_the_oldest_comparison_first(loaded: Warehouse, shop: FakeAccount) -> None:
    """Some runs together compare all of it once before any of it is compared again."""
    loaded.reconcile()
    everything = set(history_requests(shop))
    seen: list[tuple[str | None, Window]] = []
    for _ in range(-(-len(everything) // 3)):
        shop.recover()
        loaded.reconcile(reconcile_history_requests=3)
        asked = history_requests(shop)
        assert len(asked) == 3
        seen += asked
    assert set(seen) == everything


def test_history_that_was_not_kept_is_compared_first_once_it_is_loaded_again(
    loaded: Warehouse, shop: FakeAccount
) -> None:
    """Until then, it does not count as compared."""
    loaded.reconcile()
    loaded.daily(*ALL_EVENTS, events_since=days_ago(400).date())
    assert loaded.one("SELECT min(window_start) FROM reconciled_history") == days_ago(400)
    loaded.backfill(days_ago(3 * 365), days_ago(4))
    shop.recover()
    loaded.reconcile(reconcile_history_requests=1)
    [(_, window)] = history_requests(shop)
    assert window.start < days_ago(400)


@pytest.mark.slow
def test_a_source_that_counts_by_month_has_the_same_budget(loaded: Warehouse, shop: FakeAccount) -> None:
    """A year takes 12 requests of the legacy API: what does not fit waits for the next run."""
    shop.set_traits(longest_count=timedelta(days=31), count_interval=DAY)
    loaded.reconcile(reconcile_history_requests=30)
    asked = history_requests(shop)
    assert asked and sum(-(-(window.end - window.start) // shop.dialect.longest_count) for _, window in asked) <= 30


@pytest.mark.slow
def test_a_budget_of_0_turns_history_off(loaded: Warehouse, shop: FakeAccount) -> None:
    loaded.reconcile(reconcile_history_requests=0)
    assert history_requests(shop) == []


def test_a_budget_that_is_too_small_for_a_year_still_compares_one(loaded: Warehouse, shop: FakeAccount) -> None:
    """Otherwise history would never be compared."""
    shop.set_traits(longest_count=timedelta(days=31), count_interval=DAY)
    loaded.reconcile(reconcile_history_requests=1)
    assert len(history_requests(shop)) == 1


def test_an_old_difference_remains_visible(loaded: Warehouse, shop: FakeAccount) -> None:
    """Also in a run that compares another year."""
    shop.miscounts["ORDER", days_ago(400) + HOUR] = 3
    ran = loaded.reconcile()
    sentence = f"Placed Order, {days_ago(400):%Y-%m-%d}: the source counts 3 events, the warehouse has 0."
    assert (ran.state, ran.sentences) == (RunState.COMPLETE_WITH_DIFFERENCES, [sentence])
    short = "1 day differs as in an earlier check: the source counts 3 events, the warehouse has 0."
    for budget in (0, 1, 1, 1):
        ran = loaded.reconcile(reconcile_history_requests=budget)
        assert (ran.state, ran.sentences) == (RunState.COMPLETE_WITH_DIFFERENCES, [short])
    assert loaded.column("SELECT difference FROM freshness WHERE stream = 'events/ORDER'") == [-3]
    shop.miscounts.clear()
    assert loaded.reconcile().state == RunState.COMPLETE


def test_an_import_of_many_events_is_read_in_chunks(loaded: Warehouse, shop: FakeAccount) -> None:
    """Of about CHUNK_EVENTS, so that they are read side by side."""
    orders = shop.add_events("ORDER", *(days_ago(60) + number * HOUR / 100 for number in range(4_000)), person="P1")
    loaded.reconcile(chunk_events=1_000)
    assert set(orders) <= set(loaded.column(ORDERS))
    assert len({each.window for each in shop.sent("events")}) == 4


def test_years_that_cannot_be_counted_are_reported(loaded: Warehouse, shop: FakeAccount) -> None:
    """The rotation continues with others: one that is always refused does not keep them waiting."""
    loaded.execute("TRUNCATE reconciliation")
    shop.fail("counts", Refused("Not counted."), subject="ORDER")
    ran = loaded.reconcile()
    assert ran.sentences == [
        "1 metric could not be counted, so missing events of it would not be noticed: Not counted."
    ]
    assert loaded.one("SELECT count(*) FROM reconciled_history WHERE metric_id = 'ORDER'") > 0


def test_an_outage_fails_reconcile_and_the_next_run_continues(loaded: Warehouse, shop: FakeAccount) -> None:
    shop.before("counts", lambda: shop.fail("counts", Unavailable("Away.")), times=1)
    ran = loaded.reconcile(concurrency=1)
    assert (ran.state, ran.exit_code) == (RunState.FAILED, 1)
    shop.recover()
    orders = import_orders(shop, 45)
    assert loaded.reconcile().state == RunState.COMPLETE
    assert set(orders) <= set(loaded.column(ORDERS))


def test_a_year_that_could_not_be_read_again_is_compared_first_by_the_next_run(
    loaded: Warehouse, shop: FakeAccount
) -> None:
    """Even if the budget is for one year only, and other years were compared longer ago."""
    loaded.reconcile()
    shop.recover()
    orders = import_orders(shop, 45)
    shop.fail("events", Unavailable("Away."), subject="ORDER")
    assert loaded.reconcile().state == RunState.FAILED
    shop.recover()
    assert loaded.reconcile(reconcile_history_requests=1).state == RunState.COMPLETE
    assert set(orders) <= set(loaded.column(ORDERS))


def test_a_year_whose_events_are_refused_does_not_keep_others_waiting(loaded: Warehouse, shop: FakeAccount) -> None:
    """Even if the budget is for one year only. The difference remains one to read again once it has its turn."""
    loaded.reconcile()
    everything = set(history_requests(shop))
    orders = import_orders(shop, 45)
    shop.recover()
    shop.fail("events", Refused("Not served."), subject="ORDER")
    states = {loaded.reconcile(reconcile_history_requests=1).state for _ in everything}
    assert RunState.PARTIAL in states
    assert set(history_requests(shop)) == everything
    shop.recover()
    assert loaded.reconcile().state == RunState.COMPLETE
    assert set(orders) <= set(loaded.column(ORDERS))


def test_compared_history_is_complete_in_the_coverage(loaded: Warehouse) -> None:
    """Except today, the last part of the strip: in the first hour of a day nothing of it has been compared."""
    [line] = [each for each in loaded.reconcile().published.texts["coverage"].splitlines() if "Placed Order" in each]
    strip = line.rstrip("` |")
    assert "▒" not in strip[:-1] and strip[-1] in "█▒"
