"""Metrics that DESTINATIONS assigns to `unsubscribes`: who has unsubscribed is never shown as contactable."""

from typing import Any

import pytest

from klaviyo_pg.errors import BadSettings
from tests.fakes import Event, FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago

ASSIGNED = {"Left Newsletter": "unsubscribes"}
PROTECTED: dict[str, Any] = {"personal_data_salt": "a salt that is long enough for hashes"}
STATUS = "SELECT list_id, is_subscribed, left_reason FROM member_lists WHERE member_id = 'P1' ORDER BY list_id"
ON_BOTH = [("L1", True, None), ("L2", True, None)]
LEFT_ONE = [("L1", False, "event"), ("L2", True, None)]
LEFT_BOTH = [("L1", False, "event"), ("L2", False, "event")]


@pytest.fixture(autouse=True)
def left(shop: FakeAccount) -> None:
    """Let P1, who has consented and is on two lists, leave one of them by an event that is too old to be read again."""
    shop.add_person("P1", days_ago(19), consent="SUBSCRIBED")
    shop.add_metric("GONE", "Left Newsletter")
    shop.events.append(Event("GONE1", days_ago(6), "GONE", "P1", "List L1"))


@pytest.mark.parametrize(
    ("personal_data", "expected"), [("keep", LEFT_ONE), ("hash", LEFT_ONE), ("drop", LEFT_BOTH)], ids=str
)
def test_stored_events_that_move_into_unsubscribes_end_memberships(
    warehouse: Warehouse, personal_data: str, expected: list[object]
) -> None:
    """Without properties, the list that the event names is not known: then it ends all of them."""
    settings: dict[str, Any] = {"personal_data": personal_data, **({} if personal_data == "keep" else PROTECTED)}
    warehouse.daily(**settings)
    assert warehouse.rows(STATUS) == ON_BOTH
    warehouse.daily(**settings, destinations=ASSIGNED)
    assert warehouse.column("SELECT id FROM unsubscribes") == ["GONE1"]
    assert warehouse.rows(STATUS) == expected
    warehouse.backfill(days_ago(10), restart=True, **settings, destinations=ASSIGNED)
    warehouse.daily(**settings, destinations=ASSIGNED)
    assert warehouse.rows(STATUS) == LEFT_ONE


def test_events_without_a_list_that_move_into_unsubscribes_end_all_memberships(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    shop.events[-1] = shop.events[-1]._replace(list_name=None)
    warehouse.daily()
    warehouse.daily(destinations=ASSIGNED)
    assert warehouse.rows(STATUS) == LEFT_BOTH


def test_a_wrong_entry_can_be_taken_back(warehouse: Warehouse) -> None:
    """An entry that is removed leaves the metric where it is; another table moves its events out."""
    warehouse.daily(destinations=ASSIGNED)
    assert warehouse.rows(STATUS) == LEFT_ONE
    warehouse.daily()
    assert warehouse.rows(STATUS) == LEFT_ONE
    warehouse.daily(destinations={"Left Newsletter": "events"})
    assert warehouse.column("SELECT id FROM unsubscribes") == []
    assert warehouse.rows(STATUS) == ON_BOTH


@pytest.mark.parametrize("name", ["Unsubscribed from SMS", "Unsubscribed from List"])
def test_a_move_changes_nothing_about_metrics_whose_name_decides(
    warehouse: Warehouse, shop: FakeAccount, name: str
) -> None:
    """Text messages say nothing about emails, and Unsubscribed from List ends memberships wherever its events are."""
    shop.metrics = [each._replace(name=name) if each.id == "GONE" else each for each in shop.metrics]
    tables = ["events", "unsubscribes", "events"]
    seen = []
    for table in tables:
        warehouse.daily(destinations={name: table})
        seen.append(warehouse.rows(STATUS))
    assert seen == 3 * [ON_BOTH if "SMS" in name else LEFT_ONE]


def test_a_misspelled_metric_in_destinations_is_refused(warehouse: Warehouse) -> None:
    """One wrong letter would leave people contactable who are not. Names and IDs of existing metrics are accepted."""
    with pytest.raises(BadSettings, match=r"DESTINATIONS: .* 'Left Newsleter'\. Did you mean 'Left Newsletter'"):
        warehouse.daily(destinations={"Left Newsleter": "unsubscribes"})
    warehouse.daily(destinations={"GONE": "unsubscribes"})
    with pytest.raises(BadSettings, match=r"DESTINATIONS: .* 'Left Newsleter'\."):
        warehouse.daily(destinations={"Left Newsleter": "unsubscribes"})
    assert warehouse.rows(STATUS) == LEFT_ONE
