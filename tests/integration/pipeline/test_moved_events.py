"""Events that come with another time: the new row replaces the old one, and no event is counted twice."""

from datetime import datetime, timedelta

import pytest

from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago
from tests.runs import ALL_EVENTS

OPENS = "SELECT id, event_at FROM opens ORDER BY id"


def move(shop: FakeAccount, event_id: str, to: datetime) -> None:
    """Give an event another time, as no API is known to do."""
    shop.events = [each._replace(at=to) if each.id == event_id else each for each in shop.events]


def held(shop: FakeAccount) -> list[tuple[str, datetime]]:
    """Return the opened emails of the account: the id and time of each."""
    return sorted((each.id, each.at) for each in shop.events if each.metric_id == "OPEN")


@pytest.mark.parametrize("by", [HOUR, -HOUR, -DAY, timedelta(minutes=1)], ids=str)
def test_an_event_that_moves_replaces_the_old_row(warehouse: Warehouse, shop: FakeAccount, by: timedelta) -> None:
    """It is among events that are stored already, and counts as updated."""
    warehouse.daily(*ALL_EVENTS)
    move(shop, "E00005", days_ago(1) + HOUR + by)
    ran = warehouse.daily(*ALL_EVENTS)
    assert warehouse.rows(OPENS) == held(shop)
    assert ran.changed()["opens"] == (0, 1)
    assert (ran.state, ran.sentences) == ("complete", [])


def test_an_event_that_moves_into_an_empty_time_replaces_the_old_row(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The batch has nothing but new rows, so it would be appended without looking for them."""
    shop.events = [each for each in shop.events if each.metric_id != "OPEN"]
    [moved] = shop.add_events("OPEN", days_ago(2))
    warehouse.daily(*ALL_EVENTS)
    move(shop, moved, days_ago(1))
    ran = warehouse.daily(*ALL_EVENTS)
    assert warehouse.rows(OPENS) == [(moved, days_ago(1))]
    assert ran.changed()["opens"] == (0, 1)


def test_an_event_that_moves_far_is_found_by_counts(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Its old row is too far away for the merge. Reconcile finds that its day has an event too many."""
    warehouse.daily(*ALL_EVENTS)
    move(shop, "E00000", days_ago(1))
    warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.rows(OPENS)) == len(held(shop)) + 1
    ran = warehouse.reconcile()
    assert warehouse.rows(OPENS) == held(shop)
    assert (ran.state, ran.sentences) == ("complete", [])
    assert set(warehouse.column("SELECT state FROM reconciliation")) == {"complete"}


def test_an_event_that_comes_while_reconcile_deletes_outdated_rows_is_no_difference(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    """The first count does not have it yet, but the reread stores it."""
    warehouse.daily(*ALL_EVENTS)
    move(shop, "E00000", days_ago(1))
    warehouse.daily(*ALL_EVENTS)
    shop.add_events("OPEN", days_ago(6) + HOUR)
    shop.miscounts["OPEN", days_ago(6) + HOUR] = -1
    shop.before("events", shop.miscounts.clear)
    ran = warehouse.reconcile()
    assert warehouse.rows(OPENS) == held(shop)
    assert (ran.state, ran.sentences) == ("complete", [])
    assert set(warehouse.column("SELECT state FROM reconciliation")) == {"complete"}


def test_reconcile_keeps_events_that_the_source_has_lost(warehouse: Warehouse, shop: FakeAccount) -> None:
    """An event that is stored once is not one that has moved, even if the source does not count it."""
    warehouse.daily(*ALL_EVENTS)
    before = warehouse.rows(OPENS)
    shop.events = [each for each in shop.events if each.id != "E00001"]
    move(shop, "E00000", days_ago(1))
    warehouse.daily(*ALL_EVENTS)
    ran = warehouse.reconcile()
    assert warehouse.rows(OPENS) == [(id_, days_ago(1) if id_ == "E00000" else at) for id_, at in before]
    assert ran.state == "complete with differences"
