"""Streams that are read only if TABLES asks for them: the catalog."""

from dataclasses import replace
from typing import Any

import pytest

from klaviyo_pg.errors import MissingScope, NotFound
from klaviyo_pg.rows import Record, Reject
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago

IDS = {"catalog_items": "item", "catalog_variants": "variant", "catalog_categories": "category"}
TABLES = tuple(IDS)
DELETED = " UNION ALL ".join(f"SELECT id FROM {table} WHERE deleted_at IS NOT NULL" for table in TABLES)


def record(table: str, number: int, **values: Any) -> Record:
    return Record(table, f"{IDS[table]}{number}", values)


@pytest.fixture(autouse=True)
def records(shop: FakeAccount) -> None:
    shop.rows_per_page = 2
    items = [record("catalog_items", at, title=f"Item {at}", price="9.50") for at in range(5)]
    variants = [record("catalog_variants", at, item_id="item0", updated_at=days_ago(1)) for at in range(3)]
    shop.records["catalog_items"] = [*items, *variants]
    shop.records["catalog_categories"] = [record("catalog_categories", at, name=f"Category {at}") for at in range(3)]


def remove(shop: FakeAccount, row_id: str) -> None:
    for rows in shop.records.values():
        rows[:] = [row for row in rows if row.id != row_id]


def counts(warehouse: Warehouse) -> dict[str, int]:
    return {table: warehouse.one(f"SELECT count(*) FROM {table}") for table in TABLES}


def test_only_what_tables_asks_for_is_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A second run changes nothing, and another account has separate rows."""
    warehouse.daily()
    assert not any(counts(warehouse).values())
    assert warehouse.daily("catalog_variants").state == "complete"
    assert counts(warehouse) == {"catalog_items": 5, "catalog_variants": 3, "catalog_categories": 0}
    other = FakeAccount(account_id="OTHER", records={"catalog_items": shop.records["catalog_items"][:1]})
    second = replace(warehouse.variant(klaviyo_integration="other"), open_source=other.open)
    assert (warehouse.daily(*TABLES).state, second.daily(*TABLES).state) == ("complete", "complete")
    assert counts(warehouse) == {"catalog_items": 6, "catalog_variants": 3, "catalog_categories": 3}
    assert (warehouse.daily(*TABLES).changed(), second.daily(*TABLES).changed()) == ({}, {})
    joined = "SELECT i.title, count(*) FROM catalog_variants v JOIN catalog_items i ON i.key = v.item_key GROUP BY 1"
    assert warehouse.rows(joined) == [("Item 0", 3)]
    assert [warehouse.one(f"SELECT count(*) FROM {table}") for table in ("swept_rows", "sweeps")] == [0, 4]


def test_a_full_read_shows_what_was_deleted_until_it_is_back(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A read in which a record was unreadable shows nothing."""
    warehouse.daily(*TABLES)
    every = {name: list(rows) for name, rows in shop.records.items()}
    gone = [f"{name}1" for name in IDS.values()]
    for row_id in gone:
        remove(shop, row_id)
    shop.unreadable["catalog_items", 0] = Reject("{}", "No ID.")
    warehouse.daily(*TABLES)
    assert warehouse.column(DELETED) == ["category1"]
    shop.unreadable.clear()
    warehouse.daily(*TABLES)
    assert sorted(warehouse.column(DELETED)) == sorted(gone)
    shop.records |= every
    warehouse.daily(*TABLES)
    assert warehouse.column(DELETED) == []


def test_an_account_without_them_is_complete(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Each is said once, and what was stored stays. Many that are missing have to be confirmed by a second run."""
    shop.records["catalog_items"] += [record("catalog_items", at) for at in range(10, 30)]
    warehouse.daily(*TABLES)
    del shop.records["catalog_items"][8:]
    shop.fail("catalog_categories", MissingScope("catalogs:read"))
    ran = warehouse.daily(*TABLES)
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert "lacks 20 of 25 stored rows of catalog_items" in ran.sentences[0]
    assert ran.sentences[1:] == [f"The catalog categories were not read: {MissingScope('catalogs:read')}"]
    assert warehouse.column(DELETED) == []
    warehouse.execute("UPDATE missing_rows SET missed_at = missed_at - interval '1 hour'")
    shop.recover()
    shop.fail("catalog_categories", NotFound("No such page."))
    ran = warehouse.daily(*TABLES)
    assert (ran.state, ran.sentences) == ("complete", ["The catalog categories were not read: No such page."])
    assert len(warehouse.column(DELETED)) == 20
