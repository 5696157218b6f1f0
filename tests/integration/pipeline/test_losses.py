"""Full reads that lose many rows: they are repeated, and a loss that remains has to be confirmed by a later run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.rows import Exclusion, Flow, Group
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import Result, Warehouse, days_ago
from tests.rows import campaign_row

MARKED = {
    "metrics": "SELECT count(*) FROM metrics WHERE deleted_at IS NOT NULL",
    "lists": "SELECT count(*) FROM lists WHERE list_type = 'list' AND deleted_at IS NOT NULL",
    "segments": "SELECT count(*) FROM lists WHERE list_type = 'segment' AND deleted_at IS NOT NULL",
    "campaigns": "SELECT count(*) FROM campaigns WHERE deleted_at IS NOT NULL",
    "flows": "SELECT count(*) FROM automations WHERE deleted_at IS NOT NULL",
    "exclusions": "SELECT count(*) FROM member_exclusions WHERE removed_at IS NOT NULL",
}
_slow = partial(pytest.param, marks=pytest.mark.slow)  # each other stream is one of their kind
SUSPECTED = "SELECT DISTINCT stream FROM missing_rows"
ABSENT = "SELECT member_id FROM stg_member_lists WHERE absent_since IS NOT NULL ORDER BY 1"


@pytest.fixture(autouse=True)
def many(shop: FakeAccount) -> None:
    """Give the account twenty rows of every kind."""
    for number in range(18):
        shop.add_metric(f"M{number:02}", f"Metric {number}")
        shop.add_list(f"X{number:02}", f"List {number}")
    for number in range(20):
        shop.campaigns.append(campaign_row(f"C{number:02}", included=("L1", "L2")))
        shop.flows.append(Flow(f"F{number:02}", "Welcome", "live", LONG_AGO, LONG_AGO))
        shop.segments.append(Group(f"S{number:02}", "Buyers", LONG_AGO))
        shop.exclusions.append(Exclusion(f"X{number}@example.com", "HARD_BOUNCE", LONG_AGO))


def later(warehouse: Warehouse) -> None:
    """Move what the runs so far have recorded as missing a day back, as if the next run began a day later."""
    warehouse.execute("UPDATE missing_rows SET missed_at = missed_at - interval '1 day'")


def unconfirmed(stream: str, missing: int, stored: int) -> str:
    """Return the sentence about a loss that is not confirmed."""
    return (
        f"Klaviyo's answer lacks {missing} of {stored} stored rows of {stream}, also after a second request. "
        "No row was marked as deleted. The next run marks those that are still missing."
    )


def assert_held(ran: Result, warehouse: Warehouse, stream: str, missing: int, stored: int) -> None:
    read_to = warehouse.watermarks()[stream]
    derived = (
        f"member_lists was derived with the exclusions of the last complete read, at {read_to:%Y-%m-%d %H:%M} UTC."
    )
    sentences = [unconfirmed(stream, missing, stored), *[derived] * (stream == "exclusions")]
    assert (ran.state, ran.sentences, ran.exit_code) == ("partial", sentences, 3)
    assert warehouse.one(MARKED[stream]) == 0
    assert warehouse.column(SUSPECTED) == [stream]
    assert warehouse.watermarks()[stream] < ran.run.as_of


@pytest.mark.parametrize("stream", ["metrics", "segments", "exclusions", *map(_slow, ("lists", "campaigns", "flows"))])
def test_a_loss_counts_once_a_later_run_finds_it(warehouse: Warehouse, shop: FakeAccount, stream: str) -> None:
    """The first run asks twice and marks nothing. Everything else is read."""
    warehouse.daily()
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '1 day'")
    rows = getattr(shop, stream)
    stored = len(rows)
    rows.clear()
    shop.recover()
    assert_held(warehouse.daily(), warehouse, stream, stored, stored)
    assert len(shop.sent(stream)) == 2
    assert shop.sent("events")
    later(warehouse)
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert len(shop.sent(stream)) == 1
    assert warehouse.one(MARKED[stream]) == stored
    assert warehouse.column(SUSPECTED) == []


def empty_once(shop: FakeAccount, kind: str, rows: list[Any]) -> None:
    """Serve no rows at the next request, and all of them from the one after it on."""
    stored = list(rows)

    def restore() -> None:
        shop.before(kind, lambda: rows.extend(stored))

    def empty() -> None:
        rows.clear()
        restore()

    shop.before(kind, empty)


def test_a_read_that_recovers_when_it_is_repeated_is_believed(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily("campaigns")
    shop.recover()
    empty_once(shop, "campaigns", shop.campaigns)
    ran = warehouse.daily("campaigns")
    assert (ran.state, ran.sentences) == ("complete", [])
    assert len(shop.sent("campaigns")) == 2
    assert warehouse.one(MARKED["campaigns"]) == 0
    assert warehouse.column(SUSPECTED) == []


def test_a_later_run_that_finds_the_rows_clears_the_suspicion(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The next loss needs to be confirmed again."""
    warehouse.daily("campaigns")
    campaigns = list(shop.campaigns)
    shop.campaigns.clear()
    assert warehouse.daily("campaigns").state == "partial"
    later(warehouse)
    shop.campaigns.extend(campaigns)
    assert warehouse.daily("campaigns").state == "complete"
    assert warehouse.column(SUSPECTED) == []
    shop.campaigns.clear()
    assert warehouse.daily("campaigns").state == "partial"
    assert warehouse.one(MARKED["campaigns"]) == 0


def test_only_a_run_that_starts_later_confirms_a_loss(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A run that was in progress when the loss was found may have met the same disturbance."""
    warehouse.daily("campaigns")
    shop.campaigns.clear()
    assert warehouse.daily("campaigns").state == "partial"
    warehouse.execute("UPDATE missing_rows SET missed_at = now() + interval '1 hour'")
    assert warehouse.daily("campaigns").state == "partial"
    assert warehouse.one(MARKED["campaigns"]) == 0


def test_a_run_that_loses_other_rows_confirms_nothing(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Rows that only one run missed are not marked, and the later loss is the one to be confirmed."""
    warehouse.daily("campaigns")
    campaigns = list(shop.campaigns)
    shop.campaigns[:] = campaigns[:10]
    assert warehouse.daily("campaigns").sentences == [unconfirmed("campaigns", 10, 20)]
    later(warehouse)
    shop.campaigns[:] = campaigns[10:]
    assert warehouse.daily("campaigns").sentences == [unconfirmed("campaigns", 10, 20)]
    assert warehouse.one(MARKED["campaigns"]) == 0
    assert warehouse.column("SELECT row_key FROM missing_rows ORDER BY 1") == warehouse.column(
        "SELECT key FROM campaigns WHERE id < 'C10' ORDER BY 1"
    )


def test_rows_that_go_after_the_suspicion_are_marked_with_it(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A few more rows than the first run missed do not start over."""
    warehouse.daily("campaigns")
    del shop.campaigns[5:]
    assert warehouse.daily("campaigns").state == "partial"
    later(warehouse)
    del shop.campaigns[3:]
    assert warehouse.daily("campaigns").state == "complete"
    assert warehouse.one(MARKED["campaigns"]) == 17


@pytest.mark.parametrize(
    ("left", "settings", "state"),
    [
        pytest.param(11, {}, "complete", id="nine rows"),
        pytest.param(10, {}, "partial", id="ten rows"),
        pytest.param(10, {"max_loss_percent": 50}, "complete", id="the share that is set"),
        pytest.param(9, {"max_loss_percent": 50}, "partial", id="more than the share that is set"),
        pytest.param(0, {"max_loss_percent": 100}, "complete", id="turned off"),
    ],
)
def test_a_loss_up_to_the_limit_is_believed_at_once(
    warehouse: Warehouse, shop: FakeAccount, left: int, settings: dict[str, Any], state: str
) -> None:
    warehouse.daily("campaigns")
    del shop.campaigns[left:]
    assert warehouse.daily("campaigns", **settings).state == state
    assert warehouse.one(MARKED["campaigns"]) == (20 - left if state == "complete" else 0)


def test_what_a_doubted_read_contains_is_stored(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Rows change and come, but none goes: neither campaigns nor the lists of those that were read."""
    warehouse.daily("campaigns")
    del shop.campaigns[1:]
    shop.campaigns[0] = shop.campaigns[0]._replace(name="Renamed", included=("L1",))
    shop.campaigns.append(shop.campaigns[0]._replace(id="NEW"))
    assert warehouse.daily("campaigns").state == "partial"
    assert warehouse.column("SELECT id FROM campaigns WHERE name = 'Renamed' ORDER BY 1") == ["C00", "NEW"]
    assert warehouse.column("SELECT list_id FROM campaign_lists WHERE campaign_id = 'C00' ORDER BY 1") == ["L1", "L2"]
    later(warehouse)
    assert warehouse.daily("campaigns").state == "complete"
    assert warehouse.column("SELECT list_id FROM campaign_lists WHERE campaign_id = 'C00' ORDER BY 1") == ["L1"]


def test_excluded_addresses_as_extracted_stay_with_those_in_use(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Both tables of exclusions lose their rows in the same run."""
    warehouse.daily("stg_member_exclusions")
    shop.exclusions.clear()
    assert warehouse.daily("stg_member_exclusions").state == "partial"
    assert warehouse.one("SELECT count(*) FROM stg_member_exclusions") == 20
    later(warehouse)
    assert warehouse.daily("stg_member_exclusions").state == "complete"
    assert warehouse.one("SELECT count(*) FROM stg_member_exclusions") == 0


def test_an_error_of_the_repeated_read_fails_its_chunk(warehouse: Warehouse, shop: FakeAccount) -> None:
    warehouse.daily("campaigns")
    shop.before("campaigns", shop.campaigns.clear)
    shop.before("campaigns", lambda: shop.fail("campaigns", BadAnswer("Odd.")))
    ran = warehouse.daily("campaigns")
    assert (ran.state, ran.sentences) == ("failed", ["Odd."])
    assert warehouse.one(MARKED["campaigns"]) == 0


@pytest.fixture(params=[False, _slow(True)], ids=["whole list", "looked up by address"])
def sweep(request: pytest.FixtureRequest, warehouse: Warehouse, shop: FakeAccount) -> Callable[[], Result]:
    """Store a list of twenty members, and return a function that sweeps it."""
    shop.set_traits(looks_up_memberships=request.param)
    shop.reads_all_metrics_at_once = not request.param
    shop.members = {"L1": []}
    shop.lists[:] = shop.lists[:1]
    shop.metrics.clear()
    shop.add_metric("JOIN", "Subscribed to List")
    for number in range(20):
        shop.add_person(f"P{number:02}", days_ago(20))
        shop.add_member("L1", f"P{number:02}", days_ago(3))
        shop.add_events("JOIN", days_ago(3), person=f"P{number:02}")

    def sweep() -> Result:
        warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
        shop.recover()
        return warehouse.daily()

    assert warehouse.daily().state == "complete"
    return sweep


def test_a_sweep_that_misses_many_members_has_to_be_confirmed(
    warehouse: Warehouse, shop: FakeAccount, sweep: Callable[[], Result]
) -> None:
    """The list is read twice, no member is marked as absent, and the next run sweeps it again."""
    left = [each.member_id for each in shop.members["L1"][10:]]
    del shop.members["L1"][10:]
    ran = sweep()
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert ran.sentences == [unconfirmed("list_members/L1", 10, 20)]
    assert warehouse.column(ABSENT) == []
    assert warehouse.watermarks()["membership_sweep/L1"] < ran.run.as_of
    later(warehouse)
    assert warehouse.daily().state == "complete"
    assert warehouse.column(ABSENT) == sorted(left)
    assert warehouse.column(SUSPECTED) == []
    assert warehouse.one("SELECT count(*) FROM swept_members") == 0


def test_a_later_sweep_that_finds_the_members_clears_the_suspicion(
    warehouse: Warehouse, shop: FakeAccount, sweep: Callable[[], Result]
) -> None:
    gone = shop.members["L1"].pop()
    members = list(shop.members["L1"])
    shop.members["L1"].clear()
    assert sweep().state == "partial"
    later(warehouse)
    shop.members["L1"].extend(members)
    assert warehouse.daily().state == "complete"
    assert warehouse.column(ABSENT) == [gone.member_id]


def test_a_few_members_who_have_left_are_marked_at_once(
    warehouse: Warehouse, shop: FakeAccount, sweep: Callable[[], Result]
) -> None:
    gone = shop.members["L1"].pop()
    assert sweep().state == "complete"
    assert warehouse.column(ABSENT) == [gone.member_id]
