"""The first run of an account: whichever flow it is, it leaves no dimension empty."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

import pytest

from klaviyo_pg.errors import BadAnswer, MissingScope
from klaviyo_pg.rows import Exclusion, Flow, Group
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import HOUR, Result, Warehouse, days_ago
from tests.rows import campaign_row

DIMENSIONS = {"metrics", "lists", "segments", "campaigns", "flows", "tags", "exclusions"}
FILLED = {"metrics": 2, "lists": 3, "campaigns": 1, "campaign_lists": 2, "automations": 1, "member_exclusions": 1}


@pytest.fixture(autouse=True)
def dimensions(shop: FakeAccount) -> None:
    """Give the account a campaign, a flow, a segment and an excluded address."""
    shop.campaigns.append(campaign_row("C1", included=("L1",), excluded=("S1",)))
    shop.flows.append(Flow("F1", "Welcome", "live", LONG_AGO, LONG_AGO))
    shop.segments.append(Group("S1", "Buyers", LONG_AGO))
    shop.exclusions.append(Exclusion("P3@example.com", "HARD_BOUNCE", LONG_AGO))


def first_run(warehouse: Warehouse, flow: str, start: datetime) -> Result:
    runs: dict[str, Callable[..., Result]] = {
        "daily": warehouse.daily,
        "reconcile": warehouse.reconcile,
        "backfill": partial(warehouse.backfill, start),
    }
    return runs[flow](tables=("default",))


@pytest.mark.parametrize("flow", ["daily", "backfill", "reconcile"])
def test_every_dimension_is_complete_after_the_first_run(warehouse: Warehouse, flow: str) -> None:
    assert first_run(warehouse, flow, days_ago(10)).state == "complete"
    assert {table: warehouse.one(f"SELECT count(*) FROM {table}") for table in FILLED} == FILLED
    assert warehouse.watermarks().keys() >= DIMENSIONS


def test_a_backfill_reads_a_dimension_that_has_never_been_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The daily run could not read it. Dimensions that have been read before are left to daily runs."""
    shop.fail("campaigns", MissingScope("campaigns:read"))
    assert warehouse.daily().state == "partial"
    shop.recover()
    assert warehouse.backfill(days_ago(10)).state == "complete"
    assert DIMENSIONS & {each.kind for each in shop.requests} == {"metrics", "lists", "campaigns"}
    assert warehouse.column("SELECT id FROM campaigns") == ["C1"]


def test_a_backfill_does_not_depend_on_dimensions(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It loads all events, ends as partial, and the next one reads what is still missing."""
    shop.fail("campaigns", BadAnswer("Odd."))
    ran = warehouse.backfill(days_ago(10), tables=("default",))
    assert (ran.state, ran.sentences, ran.exit_code) == ("partial", ["Odd."], 3)
    assert len(warehouse.event_ids()) == len(shop.events)
    assert warehouse.watermarks().keys() >= DIMENSIONS - {"campaigns"}
    shop.recover()
    assert warehouse.backfill(days_ago(10), tables=("default",)).state == "complete"
    assert warehouse.column("SELECT id FROM campaigns") == ["C1"]


def test_a_reconcile_run_compares_counts_before_it_reads_dimensions(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Events that were missing are stored, even if a dimension that has never been read cannot be read now."""
    shop.fail("campaigns", MissingScope("campaigns:read"))
    assert warehouse.daily().state == "partial"
    shop.recover()
    shop.fail("campaigns", BadAnswer("Odd."))
    [late] = shop.add_events("ORDER", days_ago(5) + HOUR)
    ran = warehouse.reconcile()
    assert (ran.state, ran.sentences) == ("failed", ["Odd."])
    assert late in warehouse.event_ids()


def test_tables_limit_the_metrics_that_are_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Only events of these tables are read. The watermarks of other metrics stay, so that a full run loses nothing."""
    ran = warehouse.daily("opens")
    assert ran.state == "complete", ran.sentences
    assert {each.subject for each in shop.sent("events")} == {"OPEN"}
    assert warehouse.one("SELECT count(*) FROM opens") > 0
    assert warehouse.one("SELECT count(*) FROM events") == 0
    assert "events/OPEN" in warehouse.watermarks() and "events/ORDER" not in warehouse.watermarks()
    assert warehouse.daily().state == "complete"
    assert sorted(warehouse.event_ids()) == sorted(event.id for event in shop.events)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"metrics": ("Opened Email", "Placed Order")}, id="METRICS"),
        pytest.param({"tables": ("opens", "events")}, id="TABLES"),
    ],
)
def test_limited_runs_lose_no_events_of_metrics_that_are_not_listed(
    warehouse: Warehouse, shop: FakeAccount, limits: Mapping[str, tuple[str, ...]]
) -> None:
    """Only runs of all metrics read them, and the next one reads them from where the last one stopped."""
    assert warehouse.daily().state == "complete"
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '10 days'")
    [late] = shop.add_events("UNLISTED", days_ago(8))
    assert warehouse.variant(**limits).daily().state == "complete"
    assert late not in warehouse.event_ids()
    full = warehouse.daily()
    assert full.state == "complete" and late in warehouse.event_ids()
    assert warehouse.watermarks()["events"] == full.run.as_of


def test_a_setting_leaves_tables_out_of_every_flow(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Their streams are not read, and neither are the events of their metrics; the next full run reads everything."""
    some = warehouse.variant(tables=("-opens", "-automations", "-campaigns"))
    for ran in (some.daily(), some.backfill(days_ago(20)), some.reconcile()):
        assert ran.exit_code == 0, ran.sentences
    assert {each.kind for each in shop.requests} & {"flows", "campaigns"} == set()
    assert {each.subject for kind in ("events", "counts", "beginning") for each in shop.sent(kind)} == {"ORDER"}
    assert "exclusions" in some.watermarks() and "flows" not in some.watermarks()
    assert warehouse.daily().state == "complete"
    assert sorted(warehouse.event_ids()) == sorted(event.id for event in shop.events)
