"""Deletions at the source: the next run marks them, and a later run unmarks what has come back, in both dialects."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from klaviyo_pg.catalogue import SPECIFIED
from pipeline.runs import transact
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT
from tests.erasing import erase
from tests.runs import Result, Warehouse

DAYS = 10
DELETED = {
    "campaigns": "SELECT id, deleted_at FROM campaigns WHERE automation_key IS NULL AND NOT is_placeholder",
    "flows": "SELECT id, deleted_at FROM automations WHERE NOT is_placeholder",
    "lists": "SELECT id, deleted_at FROM lists WHERE list_type = 'list'",
    "metrics": "SELECT id, deleted_at FROM metrics",
}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account whose history ends at midnight."""
    with running(members=80, events=1_500, days=DAYS, until=MIDNIGHT) as box:
        yield box


class SyncedAccount:
    """The account read in one dialect, into a schema named after the dialect."""

    def __init__(self, warehouse: Warehouse, dialect: str) -> None:
        self.warehouse = warehouse.variant(
            klaviyo_dialect=dialect,
            warehouse_schema=dialect,
            first_sync_days=DAYS + 2,
            membership_sweep_days=0.000001,
        )
        self.last = self.sync()

    def sync(self, *tables: str, code: int = 0, **settings: Any) -> Result:
        """Run a daily sync with sweeps of all lists, which must exit with this code."""
        self.warehouse.wait_for_the_next_second()
        self.last = self.warehouse.daily(*tables, **settings)
        assert self.last.exit_code == code, self.last.sentences
        return self.last

    def rows(self, query: str) -> dict[Any, Any]:
        """Return the rows of a query for two columns as a dictionary."""
        return dict(self.warehouse.rows(query))

    def marked(self) -> dict[str, set[str]]:
        """Return the ids that are marked as deleted, by kind."""
        return {kind: {each for each, at in self.rows(query).items() if at} for kind, query in DELETED.items()}


@pytest.fixture(scope="module")
def current(warehouse: Warehouse) -> SyncedAccount:
    return SyncedAccount(warehouse, "current")


@pytest.fixture(scope="module")
def legacy(warehouse: Warehouse) -> SyncedAccount:
    return SyncedAccount(warehouse, "legacy")


@pytest.mark.parametrize("dialect", ["current", pytest.param("legacy", marks=pytest.mark.slow)])
def test_deletions_are_marked_until_the_row_is_back(request: pytest.FixtureRequest, box: Sandbox, dialect: str) -> None:
    """Covers a campaign, flow, list and metric, an address no longer suppressed, and a member who left silently."""
    synced: SyncedAccount = request.getfixturevalue(dialect)
    nothing = {kind: set[str]() for kind in DELETED}
    assert synced.marked() == nothing

    people = {person["email"]: person["id"] for person in box.profiles()}
    exclusions = "SELECT email, removed_at IS NOT NULL FROM member_exclusions"
    excluded = min(set(synced.rows(exclusions)) & set(people))
    members = synced.rows("SELECT id, list_id FROM member_lists WHERE unsubscribed_at IS NULL ORDER BY id DESC")
    membership, on = min(members.items())
    member = membership.partition(":")[2]
    unused = [each for each in synced.rows(DELETED["lists"]) if each != on]
    gone = {kind: {min(synced.rows(query))} for kind, query in DELETED.items()} | {"lists": {min(unused)}}
    before = synced.rows("SELECT id, (subscribed, unsubscribed_at, is_subscribed)::text FROM member_lists")
    joined = synced.rows(f"SELECT member_id, created_at FROM stg_member_lists WHERE list_id = '{on}'")[member]
    suppressions = synced.rows("SELECT email, (reason, created_at)::text FROM member_exclusions")

    for kind, ids in gone.items():
        for each in ids:
            box.delete(kind, each)
    box.change("profiles", people[excluded], suppressions=[])
    box.leave(on, member)
    synced.sync()
    assert synced.marked() == gone
    assert {email for email, is_removed in synced.rows(exclusions).items() if is_removed} == {excluded}
    assert synced.rows("SELECT id, left_reason FROM member_lists")[membership] == "absent"
    left = synced.rows("SELECT id, left_reason FROM member_lists WHERE left_reason = 'absent'")
    assert left == {membership: "absent"}
    assert not any(synced.rows("SELECT id, deleted_at FROM campaigns WHERE automation_key IS NOT NULL").values())

    assert synced.sync().changed().keys() <= {"swept_members"}  # a sweep records the members it saw
    assert synced.marked() == gone

    for kind, ids in gone.items():
        for each in ids:
            box.restore(kind, each)
    reason = {"reason": "USER_SUPPRESSED", "timestamp": int(datetime.now(UTC).timestamp()) - 3600}
    box.change("profiles", people[excluded], suppressions=[reason])
    box.join(on, member, joined.isoformat())
    synced.sync()
    assert synced.marked() == nothing
    assert not any(synced.rows(exclusions).values())
    assert synced.rows("SELECT email, (reason, created_at)::text FROM member_exclusions").keys() == suppressions.keys()
    after = synced.rows("SELECT id, (subscribed, unsubscribed_at, is_subscribed)::text FROM member_lists")
    assert after[membership] == before[membership]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["current", pytest.param("legacy", marks=pytest.mark.slow)])
def test_an_answer_without_campaigns_marks_them_once_it_is_confirmed(
    request: pytest.FixtureRequest, box: Sandbox, dialect: str
) -> None:
    """The answer is a complete and empty 200. Segments and flows are read as always."""
    synced: SyncedAccount = request.getfixturevalue(dialect)
    campaigns = set(synced.rows(DELETED["campaigns"]))
    assert len(campaigns) >= 10
    for each in campaigns:
        box.delete("campaigns", each)
    try:
        held = synced.sync("campaigns", code=3)
        assert held.sentences == [
            f"Klaviyo's answer lacks {len(campaigns)} of {len(campaigns)} stored rows of campaigns, also after a "
            "second request. No row was marked as deleted. The next run marks those that are still missing."
        ]
        assert not synced.marked()["campaigns"]
        synced.warehouse.execute("UPDATE missing_rows SET missed_at = missed_at - interval '1 day'")
        synced.sync("campaigns")
        assert synced.marked()["campaigns"] == campaigns
    finally:
        for each in campaigns:
            box.restore("campaigns", each)
    synced.sync("campaigns")
    assert not synced.marked()["campaigns"]


@pytest.mark.slow
def test_runs_skip_a_deleted_metric(current: SyncedAccount, box: Sandbox) -> None:
    """The source refuses requests for a deleted metric. All flows read the other metrics and succeed."""
    metric = max(box.state()["metrics"], key=lambda each: int(each["count"]))
    box.delete("metrics", metric["id"])
    try:
        for _ in range(2):
            current.sync()
        reconciled = current.warehouse.reconcile()
        assert reconciled.exit_code == 0, reconciled.sentences
        backfilled = current.warehouse.backfill(datetime(2026, 1, 1, tzinfo=UTC))
        assert backfilled.exit_code == 0, backfilled.sentences
    finally:
        box.restore("metrics", metric["id"])


@pytest.mark.slow
def test_only_a_complete_sweep_marks_members_absent(current: SyncedAccount, box: Sandbox) -> None:
    """Neither a run without a sweep nor a sweep with a failed page marks anyone as absent."""
    synced, only = current, "stg_member_lists"
    on, member = min(synced.warehouse.rows("SELECT list_id, member_id FROM member_lists WHERE unsubscribed_at IS NULL"))
    box.leave(on, member)
    absent = "SELECT id, left_reason FROM member_lists WHERE left_reason = 'absent'"
    synced.sync(only, membership_sweep_days=0)
    assert synced.rows(absent) == {}
    box.set_faults({"endpoint": "GET /api/lists/{id}/profiles", "times": 100, "status": 400})
    synced.sync(only, code=3)
    box.set_faults()
    assert synced.rows(absent) == {}
    synced.sync(only)
    assert synced.rows(absent) == {f"{on}:{member}": "absent"}


def test_an_erased_person_is_not_stored_again(current: SyncedAccount) -> None:
    """If the source still has an erased person, a run stores nothing about them, and their events name no one."""
    warehouse = current.warehouse
    [(person, address, _)] = warehouse.rows(
        "SELECT m.id, m.email, count(*) FROM members m JOIN opens o USING (member_key)"
        " WHERE m.id IN (SELECT member_id FROM stg_member_lists) GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT 1"
    )
    opens = warehouse.one("SELECT count(*) FROM opens")
    with warehouse.open() as session:
        transact(session, current.last.run, lambda account: erase(account, address))
    again = current.sync(lookback_days=DAYS + 2)
    assert again.counts["opens"]["rows_read"] > 0
    assert "opens" not in again.changed()
    assert warehouse.one("SELECT count(*) FROM opens") == opens
    for table in SPECIFIED:
        if "exclusions" not in table.name:  # exclusions concern an address and not a person
            traces = "t::text ILIKE '%%' || %s || '%%' OR t::text LIKE '%%' || md5(%s) || '%%'"
            query = f"SELECT count(*) FROM {table.name} t WHERE {traces}"
            assert warehouse.one(query, address, person) == 0, table.name
