"""Endpoints that the API refuses: everything that does not depend on them is read, and the run names the gap."""

import pytest

from klaviyo_pg.errors import Incomplete, NotFound, Refused
from klaviyo_pg.rows import Exclusion
from klaviyo_pg.windows import FULL_READ
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import DAY, Warehouse, days_ago
from tests.rows import campaign_row

REFUSED = "GET /api/anything: the API returned 400: A test requested this error."
EVENTS = "SELECT id FROM opens UNION ALL SELECT id FROM events"


@pytest.mark.parametrize(
    "error",
    [pytest.param(Refused(REFUSED), id="400"), pytest.param(NotFound(REFUSED), id="404", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("kind", ["lists", "segments", "campaigns", "flows", "exclusions", "profiles"])
def test_one_refused_endpoint_leaves_the_rest_intact(
    warehouse: Warehouse, shop: FakeAccount, kind: str, error: Refused
) -> None:
    shop.fail(kind, error)
    ran = warehouse.daily()
    assert (ran.state, ran.exit_code) == ("partial", 3)
    what = "lists and list members" if kind == "lists" else kind
    not_derived = ["member_lists was not derived, because the exclusions were never read completely."]
    assert ran.sentences == [f"The {what} could not be read: {REFUSED}", *not_derived * (kind == "exclusions")]
    assert len(warehouse.column(EVENTS)) == 10
    assert kind not in warehouse.watermarks()
    assert warehouse.watermarks()["events/OPEN"] == ran.run.as_of
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert kind in warehouse.watermarks()


def test_list_members_are_read_while_the_lists_are_refused(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The lists of an earlier run are read."""
    warehouse.daily()
    shop.add_member("L2", "P3", days_ago(1))
    shop.fail("lists", Refused(REFUSED))
    ran = warehouse.daily()
    assert (ran.state, ran.sentences) == ("partial", [f"The lists could not be read: {REFUSED}"])
    assert ("L2", "P3") in warehouse.rows("SELECT list_id, member_id FROM member_lists")


def test_events_of_stored_metrics_are_read_while_the_metrics_are_refused(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    warehouse.daily()
    shop.add_events("ORDER", days_ago(1))
    shop.fail("metrics", Refused(REFUSED))
    ran = warehouse.daily()
    assert (ran.state, ran.sentences) == ("partial", [f"The metrics could not be read: {REFUSED}"])
    assert len(warehouse.column(EVENTS)) == 11


def test_a_part_of_a_collection_that_is_refused_keeps_the_rest(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The other parts are stored. Nothing is deleted, and the next run reads the collection again."""
    shop.campaigns += [campaign_row("C1"), campaign_row("C2")]
    first = warehouse.daily()
    shop.campaigns[:] = [campaign_row("C1"), campaign_row("C3")]
    shop.incomplete["campaigns"] = Incomplete(["mobile_push"], REFUSED)
    ran = warehouse.daily()
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert ran.sentences == [f"The campaigns were read without mobile_push: {REFUSED}"]
    campaigns = "SELECT id, deleted_at IS NULL FROM campaigns ORDER BY id"
    assert warehouse.rows(campaigns) == [("C1", True), ("C2", True), ("C3", True)]
    assert warehouse.watermarks()["campaigns"] == first.run.as_of
    assert warehouse.column("SELECT stream FROM chunks WHERE state <> 'done'") == ["campaigns"]
    shop.incomplete.clear()
    assert warehouse.daily().state == "complete"
    assert warehouse.rows(campaigns) == [("C1", True), ("C2", False), ("C3", True)]


def test_exclusions_stay_while_one_of_their_reasons_is_refused(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The addresses with that reason are still excluded, in both tables."""
    shop.exclusions += [Exclusion(f"P{number}@example.com", "UNSUBSCRIBE", LONG_AGO) for number in range(2)]
    warehouse.daily()
    del shop.exclusions[0]
    shop.incomplete["exclusions"] = Incomplete(["UNSUBSCRIBE"], REFUSED)
    assert warehouse.daily().state == "partial"
    assert len(warehouse.column("SELECT email FROM member_exclusions WHERE removed_at IS NULL")) == 2
    assert len(warehouse.column("SELECT email FROM stg_member_exclusions")) == 2
    shop.incomplete.clear()
    assert warehouse.daily().state == "complete"
    assert warehouse.column("SELECT email FROM member_exclusions WHERE removed_at IS NULL") == ["P1@example.com"]
    assert len(warehouse.column("SELECT email FROM stg_member_exclusions")) == 1


def test_a_sweep_without_suppressions_marks_no_one_as_absent(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The members that could be looked up are stored, and the next run reads the list in full again."""
    shop.reads_all_metrics_at_once = False
    shop.set_traits(looks_up_memberships=True)
    shop.add_metric("JOIN", "Subscribed to List")
    for person in ("P0", "P1"):
        shop.add_events("JOIN", days_ago(3), person=person)
    warehouse.daily()
    shop.members["L1"] = [each for each in shop.members["L1"] if each.member_id != "P0"]
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
    shop.incomplete["memberships"] = Incomplete(["suppressions"], REFUSED)
    ran = warehouse.daily()
    assert ran.sentences == [f"The list members were read without suppressions: {REFUSED}"]
    absent = "SELECT member_id FROM stg_member_lists WHERE absent_since IS NOT NULL"
    assert warehouse.column(absent) == []
    shop.incomplete.clear()
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert FULL_READ in [each.window for each in shop.sent("memberships")]
    assert warehouse.column(absent) == ["P0"]


def test_events_of_one_metric_that_is_refused_leave_the_others_intact(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Its watermark stays, so that the next run reads it from there."""
    shop.reads_all_metrics_at_once = False
    first = warehouse.daily()
    shop.add_events("OPEN", days_ago(0.5))
    shop.add_events("ORDER", days_ago(0.5))
    shop.fail("events", Refused(REFUSED), subject="OPEN")
    ran = warehouse.daily()
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert ran.sentences[0] == f"The events of OPEN could not be read: {REFUSED}"
    assert all("the source counts" in sentence for sentence in ran.sentences[1:])
    assert len(warehouse.column("SELECT id FROM events")) == 5
    assert warehouse.watermarks()["events/OPEN"] == first.run.as_of
    assert warehouse.watermarks()["events/ORDER"] == ran.run.as_of
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert len(warehouse.column("SELECT id FROM opens")) == 7


def test_a_window_of_events_that_is_refused_keeps_their_watermarks(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The other windows are stored."""
    shop.fail("events", Refused(REFUSED), times=1)
    ran = warehouse.daily()
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert ran.sentences == [f"The events could not be read: {REFUSED}"]
    assert "events/OPEN" not in warehouse.watermarks()
    assert warehouse.column(EVENTS)
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert len(warehouse.column(EVENTS)) == 10


@pytest.mark.parametrize(
    ("kind", "what"),
    [pytest.param("events", "events", id="events"), pytest.param("metrics", "metrics and events", id="metrics")],
)
def test_a_run_in_which_all_events_are_refused_fails(
    warehouse: Warehouse, shop: FakeAccount, kind: str, what: str
) -> None:
    """Everything else is stored, and no watermark of events advances."""
    shop.fail(kind, Refused(REFUSED))
    ran = warehouse.daily()
    assert (ran.state, ran.exit_code) == ("failed", 1)
    assert ran.sentences == [
        "No events were read, because Klaviyo refused every request for them.",
        f"The {what} could not be read: {REFUSED}",
    ]
    assert len(warehouse.column("SELECT id FROM members")) == 4
    assert len(warehouse.column("SELECT list_id FROM member_lists")) == 3
    assert "events/OPEN" not in warehouse.watermarks()
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert len(warehouse.column(EVENTS)) == 10


def test_an_account_id_that_is_refused_stops_nothing(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.fail("account", Refused(REFUSED))
    ran = warehouse.daily()
    assert (ran.state, ran.run.account_id) == ("complete", None)
    assert len(warehouse.column(EVENTS)) == 10


def test_a_backfill_names_the_metrics_that_are_refused(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Without any stored metric it fails. Otherwise it reads those that are stored, and is partial."""
    shop.fail("metrics", Refused(REFUSED))
    failed = warehouse.backfill(days_ago(10))
    assert (failed.state, failed.exit_code, failed.sentences[0]) == ("failed", 1, REFUSED)
    shop.recover()
    warehouse.daily("metrics")
    shop.fail("metrics", Refused(REFUSED))
    ran = warehouse.backfill(days_ago(10))
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert f"The metrics could not be read: {REFUSED}" in ran.sentences
    assert len(warehouse.column(EVENTS)) == 10


def test_a_reread_that_is_refused_leaves_the_difference_for_the_next_run(
    warehouse: Warehouse, shop: FakeAccount
) -> None:
    warehouse.daily()
    shop.add_events("ORDER", days_ago(5) + DAY / 2)
    shop.fail("events", Refused(REFUSED), subject="ORDER")
    ran = warehouse.reconcile()
    assert ran.state == "partial"
    assert f"The events of ORDER could not be read: {REFUSED}" in ran.sentences
    shop.recover()
    assert warehouse.reconcile().state == "complete"
    assert len(warehouse.column(EVENTS)) == 11
