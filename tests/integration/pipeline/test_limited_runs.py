"""Daily runs that METRICS or TABLES limits: where list members are read, so is who has unsubscribed."""

from typing import Any

import pytest

from klaviyo_pg.rows import Metric
from tests.fakes import Event, FakeAccount
from tests.integration.pipeline.conftest import HOUR, LEFT_OUT, Warehouse, days_ago

STATUS = "SELECT member_id, is_subscribed IS FALSE, left_reason FROM member_lists WHERE list_id = 'L1' ORDER BY 1"


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param({"metrics": ("Placed Order",)}, id="one metric"),
        pytest.param({"metrics": ("-Unsubscribed from List",)}, id="all metrics but unsubscribes"),
        pytest.param({"tables": ("stg_member_lists", "stg_member_exclusions")}, id="tables without events"),
        pytest.param({"tables": ("stg_member_lists",)}, id="nothing but list members"),
        pytest.param({"tables": ("list_suppressions", "sends")}, id="tables with other events"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False], ids=["first run", "later run"])
def test_a_limited_run_reads_who_has_unsubscribed(
    warehouse: Warehouse, shop: FakeAccount, limit: dict[str, Any], is_first: bool
) -> None:
    """P1 has left a list by an event alone: Klaviyo still returns the membership and the consent."""
    for person in ("P0", "P1"):
        shop.add_person(person, days_ago(19), consent="SUBSCRIBED")
    shop.add_metric("UNSUB", "Unsubscribed from List")
    if not is_first:
        warehouse.daily()
    shop.events.append(Event("UNSUB1", days_ago(0) - HOUR, "UNSUB", "P1", "List L1"))
    ran = warehouse.daily(**limit)
    assert (ran.state, ran.sentences) == ("complete", [])
    assert warehouse.rows(STATUS) == [("P0", False, None), ("P1", True, "event")]


def test_metrics_that_were_left_out_before_have_a_note(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Once, if others have a longer history. A metric that is new in the account lacks none."""
    shop.add_events("OPEN", days_ago(30))
    shop.add_events("ORDER", days_ago(30))
    left_out: dict[str, Any] = {"tables": (*LEFT_OUT, "-opens")}
    assert warehouse.daily(**left_out).sentences == []
    warehouse.backfill(days_ago(40), **left_out)
    shop.metrics.append(Metric("NEW", "New", None, days_ago(1), days_ago(1)))
    shop.add_events("NEW", days_ago(1))
    ran = warehouse.daily()
    new, note = ran.sentences
    assert new == "New metric: New."
    assert "'Opened Email' is read for the first time" in note
    assert ran.state == "complete"
    assert warehouse.daily().sentences == []


def test_metrics_that_a_backfill_has_loaded_have_no_note(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.add_events("OPEN", days_ago(30))
    warehouse.backfill(days_ago(40))
    assert warehouse.daily().sentences == []
