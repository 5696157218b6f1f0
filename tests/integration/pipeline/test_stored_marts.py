"""Marts that are stored (STORED_MARTS): their rows are those of the views, and are written only where they differ."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue.stored_marts import STORED_MARTS
from klaviyo_pg.errors import Stopped
from klaviyo_pg.postgres import load, stored_marts
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erased_people
from pipeline.runs import transact
from tests.erasing import erase
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago, merge_profiles

ALL = {"stored_marts": tuple(STORED_MARTS)}
STATE = "SELECT mart, as_of, is_outdated, xmin::text FROM stored_marts ORDER BY 1"


def differing(warehouse: Warehouse) -> list[str]:
    """Return the marts whose stored rows are not those of the view."""
    return [name for name in STORED_MARTS if _differs(warehouse, name)]


def _differs(warehouse: Warehouse, name: str) -> bool:
    columns = ", ".join(column.name for column in STORED_MARTS[name].mart.columns if column.name != "integration")
    view, stored = f"SELECT {columns} FROM {name}", f"SELECT {columns} FROM {name}_stored"
    return bool(warehouse.rows(f"({view} EXCEPT ALL {stored}) UNION ALL ({stored} EXCEPT ALL {view})"))


def written(warehouse: Warehouse) -> list[tuple[object, ...]]:
    """Return which transaction has written each stored row, and the state of each mart."""
    rows = " UNION ALL ".join(f"SELECT '{name}', key, xmin::text FROM {name}_stored" for name in STORED_MARTS)
    return [*warehouse.rows(f"{rows} ORDER BY 1, 2"), *warehouse.rows(STATE)]


def derived(counts: Mapping[str, object]) -> set[str]:
    return {name.removesuffix("_stored") for name in counts if name.endswith("_stored")}


@pytest.fixture
def filled(warehouse: Warehouse, shop: FakeAccount) -> Warehouse:
    """Return a warehouse whose runs store all marts, after the first run."""
    shop.add_metric("SEND", "Received Email")
    shop.add_events("SEND", *(days_ago(6 - number) for number in range(6)), person="P0")
    shop.add_events("SEND", *(days_ago(6 - number) + HOUR for number in range(6)), person="P1")
    stored = warehouse.variant(**ALL)
    assert stored.daily().state == "complete"
    return stored


def test_no_mart_is_stored_by_default(warehouse: Warehouse) -> None:
    """Nor do triggers record anything."""
    assert warehouse.daily().state == "complete"
    assert warehouse.rows(STATE) == []
    assert warehouse.one("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mart%%'") == 0


def test_stored_marts_are_those_of_the_views(filled: Warehouse) -> None:
    assert differing(filled) == []
    assert all(filled.one(f"SELECT count(*) FROM {name}_stored") for name in ("member_engagement", "list_growth"))


def test_list_growth_follows_a_membership_that_began_again(filled: Warehouse) -> None:
    """Without an event."""
    filled.execute("UPDATE stg_member_lists SET created_at = created_at + interval '3 days' WHERE member_id = 'P1'")
    assert derived(filled.daily("lists").counts) == {"list_growth"}
    assert differing(filled) == []


def test_an_unchanged_run_derives_nothing(filled: Warehouse) -> None:
    before = written(filled)
    ran = filled.daily()
    assert derived(ran.counts) == set()
    assert written(filled) == before


def test_only_marts_that_depend_on_the_change_are_derived(filled: Warehouse, shop: FakeAccount) -> None:
    """And of these, only the rows that differ are written."""
    before = set(filled.rows("SELECT member_key, xmin::text FROM member_engagement_stored"))
    shop.add_events("OPEN", days_ago(1) + 2 * HOUR, person="P1")
    counts = filled.daily().counts
    assert derived(counts) == set(STORED_MARTS) - {"list_growth"}
    assert differing(filled) == []
    after = set(filled.rows("SELECT member_key, xmin::text FROM member_engagement_stored"))
    assert len(after - before) == 1
    assert counts["member_engagement_stored"]["unchanged"] == len(after) - 1


def test_late_events_of_a_backfill_count(filled: Warehouse, shop: FakeAccount) -> None:
    shop.add_events("OPEN", days_ago(200), person="P3")
    assert filled.backfill(days_ago(300)).state == "complete"
    assert differing(filled) == []
    assert filled.one("SELECT min(first_open_at) FROM member_engagement_stored") == days_ago(200)


def test_deleted_rows_leave(filled: Warehouse, shop: FakeAccount) -> None:
    shop.events = [event for event in shop.events if event.profile_id != "P1"]
    filled.execute("DELETE FROM sends WHERE member_key = md5('P1')")
    filled.daily()
    assert differing(filled) == []
    assert filled.one("SELECT sends FROM member_engagement_stored WHERE member_id = 'P0'") == 6
    assert filled.one("SELECT count(*) FROM member_engagement_stored WHERE member_id = 'P1'") == 0


def test_a_truncated_table_is_noticed(filled: Warehouse) -> None:
    """As is a dropped partition, although no trigger sees it."""
    filled.execute("TRUNCATE spams")
    ran = filled.daily(stored_marts=("list_growth", "deliverability"))
    assert derived(ran.counts) == {"deliverability"}


def test_a_merged_profile_leaves(filled: Warehouse, shop: FakeAccount) -> None:
    merge_profiles(shop, "P0", "P3")
    filled.daily(profile_sweep_days=0, membership_sweep_days=0)
    assert differing(filled) == []
    assert filled.rows("SELECT member_id FROM member_engagement_stored WHERE opens > 0") == [("P3",)]


def test_an_erased_person_leaves_in_the_same_erase(filled: Warehouse) -> None:
    """With the domain of the address. The other marts follow with the next run."""
    filled.execute("UPDATE sends SET email_domain = 'ann.example' WHERE member_key = md5('P0')")
    ran = filled.daily()
    assert filled.one("SELECT count(*) FROM deliverability_stored WHERE domain = 'ann.example'") > 0
    with filled.open() as session:
        transact(session, ran.run, lambda account: erase(account, None, ["P0"]))
    assert filled.one("SELECT count(*) FROM deliverability_stored WHERE domain = 'ann.example'") == 0
    assert filled.one("SELECT count(*) FROM member_engagement_stored WHERE member_key = md5('P0')") == 0
    filled.daily()
    assert differing(filled) == []


def test_a_person_who_is_erased_during_a_derivation_stays_out(
    filled: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erasing does not wait for the derivation, which has read the person's events before."""
    filled.execute("UPDATE opens SET is_machine_open = true WHERE member_key = md5('P0')")
    block = erased_people.block_erasing

    def erased_first(connection: psycopg.Connection, schema: str) -> None:
        filled.execute(
            "INSERT INTO erased (esp_integration_id, member_key, erased_at)"
            " SELECT esp_integration_id, md5('P0'), now() FROM integrations ON CONFLICT DO NOTHING"
        )
        block(connection, schema)

    monkeypatch.setattr(stored_marts, "block_erasing", erased_first)
    filled.daily()
    assert filled.one("SELECT count(*) FROM member_engagement_stored WHERE member_key = md5('P0')") == 0
    assert filled.one("SELECT count(*) FROM member_engagement WHERE member_key = md5('P0')") == 1


def test_a_change_during_a_derivation_is_left_to_the_next_run(
    filled: Warehouse, shop: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.execute("UPDATE opens SET is_machine_open = true WHERE member_key = md5('P0')")
    block = erased_people.block_erasing

    def changed_first(connection: psycopg.Connection, schema: str) -> None:
        shop.events = [event for event in shop.events if event.profile_id != "P0"]
        filled.execute("DELETE FROM opens WHERE member_key = md5('P0')")
        block(connection, schema)

    monkeypatch.setattr(stored_marts, "block_erasing", changed_first)
    assert derived(filled.daily(stored_marts=("member_engagement",)).counts) == {"member_engagement"}
    assert differing(filled)
    monkeypatch.undo()
    filled.daily()
    assert differing(filled) == []


def test_a_mark_that_is_set_during_a_derivation_stays(
    filled: Warehouse, shop: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run, or erasing, can change something at that time and take over the record of it."""
    filled.execute("UPDATE opens SET is_machine_open = true WHERE member_key = md5('P0')")
    block, account_id = erased_people.block_erasing, filled.one("SELECT esp_integration_id FROM integrations")

    def changed_and_marked_first(connection: psycopg.Connection, schema: str) -> None:
        shop.events = [event for event in shop.events if event.profile_id != "P0"]
        filled.execute("DELETE FROM opens WHERE member_key = md5('P0')")
        with psycopg.connect(filled.url) as other:
            stored_marts.mark(Account(other, "klaviyo", account_id))
        block(connection, schema)

    monkeypatch.setattr(stored_marts, "block_erasing", changed_and_marked_first)
    filled.daily(stored_marts=("member_engagement",))
    assert differing(filled)
    assert filled.column("SELECT mart FROM stored_marts WHERE is_outdated") == ["member_engagement"]
    monkeypatch.undo()
    filled.daily()
    assert differing(filled) == []


@pytest.mark.parametrize("error", [Stopped(), psycopg.errors.DiskFull()], ids=["stopped", "failed"])
def test_a_run_that_ends_early_leaves_the_rest_to_the_next_one(
    filled: Warehouse, shop: FakeAccount, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    shop.add_events("OPEN", days_ago(1) + 2 * HOUR, person="P1")
    merge, done = load.merge_stored, list[str]()

    def interrupted(*args: Any) -> object:
        if done:
            raise error
        done.append("the first mart")
        return merge(*args)

    monkeypatch.setattr(stored_marts, "merge_stored", interrupted)
    assert filled.daily().state in ("stopped", "failed")
    assert differing(filled)
    assert set(differing(filled)) <= set(filled.column("SELECT mart FROM stored_marts WHERE is_outdated"))
    monkeypatch.undo()
    filled.daily()
    assert differing(filled) == []


def test_numbers_of_the_last_days_are_renewed_every_day(filled: Warehouse) -> None:
    filled.execute("UPDATE member_engagement_stored SET opens_30_days = 99")
    filled.execute("UPDATE stored_marts SET as_of = as_of - %s", DAY)
    assert derived(filled.daily().counts) == {"member_engagement"}
    assert differing(filled) == []


def test_marts_that_are_no_longer_named_are_deleted(filled: Warehouse) -> None:
    filled.daily(stored_marts=("list_growth",))
    assert filled.column("SELECT mart FROM stored_marts") == ["list_growth"]
    assert [filled.one(f"SELECT count(*) > 0 FROM {name}_stored") for name in ("list_growth", "member_engagement")] == [
        True,
        False,
    ]


def test_accounts_are_stored_apart(filled: Warehouse, shop: FakeAccount) -> None:
    """A change of one account leaves the marts of the other one as they are."""
    other = FakeAccount(account_id="OTHER")
    other.add_metric("OPEN", "Opened Email")
    other.add_person("P0", days_ago(3))
    other.add_events("OPEN", days_ago(2), person="P0")
    second = filled.variant(klaviyo_integration="other", klaviyo_api_key="pk_other")
    second.open_source = other.open
    before = written(filled)
    second.daily(stored_marts=("member_engagement",))
    assert set(before) <= set(written(filled))
    assert derived(filled.daily().counts) == set()
    query = "SELECT count(*) FROM member_engagement_stored JOIN integrations USING (esp_integration_id) WHERE name = %s"
    assert filled.one(query, "other") == 1
    second.daily(stored_marts=())
    assert filled.one(query, "other") == 0


def test_changes_of_partitions_are_noticed(warehouse: Warehouse, shop: FakeAccount) -> None:
    """New events are recorded, and so is a month that was dropped."""
    parted = warehouse.variant(warehouse_schema="parted", event_partitions="month", **ALL)
    assert parted.daily().state == "complete"
    shop.add_events("OPEN", days_ago(1) + 2 * HOUR, person="P1")
    parted.daily()
    assert differing(parted) == []
    for (name,) in parted.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'opens'::regclass"):
        parted.execute(f"DROP TABLE {name}")
    shop.events = [event for event in shop.events if event.metric_id != "OPEN"]
    parted.daily(stored_marts=("member_engagement",))
    assert parted.one("SELECT sum(opens) FROM member_engagement_stored") == 0
