"""The attributions of events: they come with the events, follow them, and are those that the source returned last."""

from functools import partial
from typing import Any

import pytest

from klaviyo_pg.rows import Attribution, Reject
from pipeline.runs import transact
from tests.erasing import erase
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import HOUR, Warehouse, days_ago
from tests.runs import ALL_EVENTS

ORDER = "E00009"  # of yesterday's evening, which every daily run reads again
ATTRIBUTED = """
SELECT event.id, touch.id, campaign_id, flow_id FROM event_attributions
JOIN events AS event ON event.key = event_key AND event.event_at = event_attributions.event_at
LEFT JOIN opens AS touch ON touch.key = attributed_event_key ORDER BY 1, 2
"""


@pytest.fixture(autouse=True)
def attributed(shop: FakeAccount) -> None:
    """Attribute an older order to a campaign."""
    shop.attribute("E00006", "E00000", campaign_id="C1", campaign_message_id="M1")


@pytest.mark.parametrize(
    "protection",
    [
        pytest.param({}, id="lines"),
        pytest.param({"personal_data": "drop", "personal_data_salt": "a salt of a test"}, id="frames"),
    ],
)
def test_a_late_attribution_is_stored_by_the_next_daily_run(
    warehouse: Warehouse, shop: FakeAccount, protection: dict[str, Any]
) -> None:
    """Its event has not changed. A run without news writes nothing."""
    daily = partial(warehouse.daily, *ALL_EVENTS, **protection)
    assert daily().counts["event_attributions"]["inserted"] == 1
    shop.attribute(ORDER, "E00005", flow_id="F1", flow_message_id="X1", variation_id="V1")
    assert daily().changed() == {"event_attributions": (1, 0)}
    assert warehouse.rows(ATTRIBUTED) == [("E00006", "E00000", "C1", None), (ORDER, "E00005", None, "F1")]
    assert daily().changed() == {}


def test_an_attribution_that_changes_is_replaced(warehouse: Warehouse, shop: FakeAccount) -> None:
    """One that the source no longer returns with the event is deleted, and returns when the source has it again."""
    shop.attribute(ORDER, "E00005", campaign_id="C1")
    warehouse.daily(*ALL_EVENTS)
    shop.attributions.pop(ORDER)
    shop.attribute(ORDER, "E00004", flow_id="F1")
    assert warehouse.daily(*ALL_EVENTS).changed() == {"event_attributions": (1, 0)}
    assert warehouse.rows(ATTRIBUTED)[1:] == [(ORDER, "E00004", None, "F1")]
    withdrawn = shop.attributions.pop(ORDER)
    synced = f"SELECT __synced_at FROM events WHERE id = '{ORDER}'"
    before = warehouse.one(synced)
    warehouse.daily(*ALL_EVENTS)
    assert [row[0] for row in warehouse.rows(ATTRIBUTED)] == ["E00006"]
    assert warehouse.one(synced) > before, "what follows changed events has to see that one"
    shop.attributions[ORDER] = withdrawn
    warehouse.daily(*ALL_EVENTS)
    assert warehouse.rows(ATTRIBUTED)[1:] == [(ORDER, "E00004", None, "F1")]


def test_attributions_that_cannot_be_read_stay_as_they_are(warehouse: Warehouse, shop: FakeAccount) -> None:
    """They are not withdrawn, neither in the batch of their event nor in the one that holds its last second back."""
    shop.attribute(ORDER, "E00005", campaign_id="C1")
    warehouse.daily(*ALL_EVENTS)
    del shop.attributions[ORDER]
    shop.hidden_attributions = [Reject('{"type": "attribution", "id": 7}', "Expected `str`, got `int`")]
    ran = warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.rows(ATTRIBUTED)) == 2
    assert ran.counts["event_attributions"]["rejected"] > 0
    assert warehouse.column("SELECT DISTINCT table_name FROM rejects") == ["event_attributions"]
    shop.hidden_attributions = []
    warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.rows(ATTRIBUTED)) == 1


def test_attributions_that_are_not_included_stay_as_they_are(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Of a new one the ID is stored, and the rest as soon as the source includes it."""
    shop.attribute(ORDER, "E00005", campaign_id="C1")
    warehouse.daily(*ALL_EVENTS)
    [row] = shop.attributions[ORDER]
    nothing = Attribution(row.id, row.event_id, row.at, None, None, None, None, None, None, is_included=False)
    shop.attributions[ORDER] = [nothing, nothing._replace(id="another")]
    assert warehouse.daily(*ALL_EVENTS).changed() == {"event_attributions": (1, 0)}
    assert warehouse.rows(ATTRIBUTED)[1:] == [(ORDER, "E00005", "C1", None), (ORDER, None, None, None)]
    shop.attributions[ORDER] = [row, row._replace(id="another", flow_id="F1")]
    assert warehouse.daily(*ALL_EVENTS).changed() == {"event_attributions": (0, 1)}


@pytest.mark.parametrize("spool", [None, True, False], ids=["daily", "backfill, spooled", "backfill"])
def test_a_dialect_without_attributions_withdraws_nothing(
    warehouse: Warehouse, shop: FakeAccount, spool: bool | None
) -> None:
    """They are withdrawn as soon as a dialect that has them no longer returns them."""
    shop.attribute(ORDER, "E00005", campaign_id="C1")
    warehouse.daily(*ALL_EVENTS)
    shop.set_traits(reads_attributions=False, lists_people=False)
    if spool is None:
        warehouse.daily(*ALL_EVENTS)
    else:
        warehouse.backfill(days_ago(9), spool=spool)
    assert len(warehouse.rows(ATTRIBUTED)) == 2
    shop.set_traits(reads_attributions=True, lists_people=True)
    shop.attributions.pop(ORDER)
    warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.rows(ATTRIBUTED)) == 1


def test_an_older_extraction_withdraws_nothing(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A backfill can load what it read before a daily run found the attribution."""
    shop.attribute(ORDER, "E00005", campaign_id="C1")
    warehouse.daily(*ALL_EVENTS)
    warehouse.execute("UPDATE event_attributions SET extracted_at = now() + interval '1 minute'")
    shop.attributions.pop(ORDER)
    warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.rows(ATTRIBUTED)) == 2
    warehouse.execute("UPDATE event_attributions SET extracted_at = now() + interval '2 days'")  # a wrong clock
    warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.rows(ATTRIBUTED)) == 1


def test_attributions_follow_an_event_that_moves(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.attribute(ORDER, "E00005", campaign_id="C1")
    warehouse.daily(*ALL_EVENTS)
    shop.events = [each._replace(at=each.at - HOUR) if each.id == ORDER else each for each in shop.events]
    warehouse.daily(*ALL_EVENTS)
    stored = warehouse.column("SELECT event_at FROM event_attributions ORDER BY 1")
    assert stored == [days_ago(5), days_ago(2) - HOUR]
    warehouse.execute("DELETE FROM events WHERE id = %s", ORDER)
    warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.rows(ATTRIBUTED)) == 2, "an event that is loaded again has its attributions"


def test_an_event_that_moves_far_leaves_no_attribution_behind(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Its old row is found by counts."""
    warehouse.daily(*ALL_EVENTS)
    shop.events = [each._replace(at=days_ago(1)) if each.id == "E00006" else each for each in shop.events]
    warehouse.daily(*ALL_EVENTS)
    warehouse.reconcile()
    assert warehouse.column("SELECT event_at FROM event_attributions") == [days_ago(1)]


def test_events_of_erased_people_keep_what_they_are_attributed_to(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Revenue stays complete, but nothing says any more that two events are those of one person."""
    shop.add_events("ORDER", days_ago(1) + 2 * HOUR, person="P3")
    shop.attribute("E00010", "E00005", campaign_id="C1")
    ran = warehouse.daily(*ALL_EVENTS)
    with warehouse.open() as session:
        transact(session, ran.run, lambda account: erase(account, None, ["P2"]))
    shop.attribute(ORDER, "E00005", flow_id="F1")
    warehouse.daily(*ALL_EVENTS)
    assert warehouse.rows(ATTRIBUTED) == [
        ("E00006", None, "C1", None),
        (ORDER, None, None, "F1"),
        ("E00010", "E00005", "C1", None),
    ]


def test_odd_ids_of_erased_people_take_attributions_along(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The ID of the event, or of the attribution, is an address."""
    shop.events = [each._replace(id="p2@example.com") if each.id == "E00008" else each for each in shop.events]
    shop.attribute("p2@example.com", "E00005", campaign_id="C1")
    ran = warehouse.daily(*ALL_EVENTS)
    assert len(warehouse.rows(ATTRIBUTED)) == 2
    with warehouse.open() as session:
        transact(session, ran.run, lambda account: erase(account, None, ["P2"]))
    shop.attribute(ORDER, "p2@example.com", campaign_id="C1")
    for _ in range(2):
        assert warehouse.rows(ATTRIBUTED) == [("E00006", None, "C1", None)]
        warehouse.daily(*ALL_EVENTS)
    assert warehouse.column("SELECT count(*) FROM event_attributions") == [1]


def test_two_accounts_have_their_own(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Both have events with the same IDs. What one of them withdraws stays in the other."""
    other = warehouse.variant(klaviyo_integration="other")
    shop.attribute(ORDER, "E00005", campaign_id="C1")
    warehouse.daily(*ALL_EVENTS)
    shop.account_id = "ANOTHER"
    other.daily(*ALL_EVENTS)
    shop.attributions.pop(ORDER)
    other.daily(*ALL_EVENTS)
    accounts = "SELECT name, count(*) FROM event_attributions JOIN integrations USING (esp_integration_id)"
    assert dict(warehouse.rows(f"{accounts} GROUP BY 1")) == {"shop": 2, "other": 1}


def test_the_view_adds_up_the_values_of_attributed_events(warehouse: Warehouse, shop: FakeAccount) -> None:
    """An event counts once for each message, even if it is attributed to it twice."""
    warehouse.daily(*ALL_EVENTS)
    shop.attribute(ORDER, "E00005", campaign_id="C1", campaign_message_id="M1")
    shop.attribute(ORDER, "E00004", campaign_id="C1", campaign_message_id="M1")
    shop.attribute(ORDER, "E00003", flow_id="F1")
    warehouse.daily(*ALL_EVENTS)
    warehouse.execute("UPDATE events SET value = 12.5, value_currency = 'EUR'")
    columns = "integration, campaign_id, flow_id, metric_name, conversions, revenue, first_event_at"
    assert warehouse.rows(f"SELECT {columns} FROM attributed_revenue ORDER BY 2") == [
        ("shop", "C1", None, "Placed Order", 2, 25, days_ago(5)),
        ("shop", None, "F1", "Placed Order", 1, 12.5, days_ago(2)),
    ]
