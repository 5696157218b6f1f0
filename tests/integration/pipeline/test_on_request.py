"""Streams that are read only if TABLES asks for them: catalog, coupons, reviews, push tokens and predictions."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from klaviyo_pg.errors import MissingScope, NotFound, Unavailable
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.rows import Consent, Record, Reject
from klaviyo_pg.windows import FULL_READ
from tests.erasing import erase
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, Warehouse, days_ago
from tests.runs import search_path

BY_CHANGE = ("reviews", "member_predictions")
TABLES = (
    *("catalog_items", "catalog_variants", "catalog_categories", "coupons", "coupon_codes", "push_tokens"),
    *BY_CHANGE,
)
DELETED = " UNION ALL ".join(
    f"SELECT id FROM {table} WHERE deleted_at IS NOT NULL" for table in TABLES if table != "member_predictions"
)


def records_of(table: str, number: int, **values: Any) -> list[Record]:
    return [Record(table, f"{table}{at}", values) for at in range(number)]


@pytest.fixture(autouse=True)
def records(shop: FakeAccount) -> None:
    shop.rows_per_page = 2
    shop.records = {
        "catalog_items": [
            *records_of("catalog_items", 5, title="Item", price="9.50"),
            *records_of("catalog_variants", 3, item_id="catalog_items0", updated_at=days_ago(1)),
        ],
        "catalog_categories": records_of("catalog_categories", 3, name="Category"),
        "coupons": records_of("coupons", 3),
        "coupon_codes": [
            Record("coupon_codes", f"code{owner}{at}", {"coupon_id": f"coupons{owner}", "member_id": f"P{at}"})
            for owner in range(2)
            for at in range(3)
        ],
        "reviews": [Record("reviews", f"reviews{at}", {"email": f"p{at}@example.com"}) for at in range(4)],
        "push_tokens": [
            Record("push_tokens", f"push_tokens{at}", {"member_id": f"P{at}", "enablement_status": "AUTHORIZED"})
            for at in range(4)
        ],
        "member_predictions": [Record("member_predictions", f"P{at}", {"churn_probability": "0.5"}) for at in range(4)],
    }
    shop.changed = {row.id: days_ago(9 - at) for name in BY_CHANGE for at, row in enumerate(shop.records[name])}


def remove(shop: FakeAccount, *ids: str) -> None:
    for rows in shop.records.values():
        rows[:] = [row for row in rows if row.id not in ids]


def counts(warehouse: Warehouse) -> list[int]:
    return [warehouse.one(f"SELECT count(*) FROM {table}") for table in TABLES]


def test_only_what_tables_asks_for_is_read(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A second run changes nothing, and another account has separate rows."""
    warehouse.daily()
    assert not any(counts(warehouse))
    assert warehouse.daily("catalog_variants").state == "complete"
    assert counts(warehouse) == [5, 3, 0, 0, 0, 0, 0, 0]
    other = FakeAccount(account_id="OTHER", records={"catalog_items": shop.records["catalog_items"][:1]})
    second = replace(warehouse.variant(klaviyo_integration="other"), open_source=other.open)
    assert (warehouse.daily(*TABLES).state, second.daily(*TABLES).state) == ("complete", "complete")
    assert counts(warehouse) == [6, 3, 3, 3, 6, 4, 4, 4]
    assert (warehouse.daily(*TABLES).changed(), second.daily(*TABLES).changed()) == ({}, {})
    joined = "SELECT i.title, count(*) FROM catalog_variants v JOIN catalog_items i ON i.key = v.item_key GROUP BY 1"
    assert warehouse.rows(joined) == [("Item", 3)]
    assert warehouse.one("SELECT count(*) FROM coupon_codes JOIN coupons ON coupons.key = coupon_key") == 6
    assert warehouse.one("SELECT count(*) FROM swept_rows") == 0


def test_a_full_read_shows_what_was_deleted_until_it_is_back(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A read in which a record was unreadable shows nothing. The codes of a deleted coupon are deleted as well."""
    warehouse.daily(*TABLES)
    every = {name: list(rows) for name, rows in shop.records.items()}
    gone = ["catalog_items1", "catalog_variants1", "catalog_categories1", "coupons0", "code11", "push_tokens1"]
    remove(shop, *gone, "reviews1")
    shop.unreadable["catalog_items", 0] = shop.unreadable["push_tokens", 0] = Reject("{}", "No ID.")
    warehouse.daily(*TABLES)
    codes = ["code00", "code01", "code02", "code11"]
    assert sorted(warehouse.column(DELETED)) == ["catalog_categories1", *codes, "coupons0"]
    freshness = "SELECT stream FROM freshness WHERE table_name = 'coupon_codes' ORDER BY 1"
    assert warehouse.column(freshness) == ["coupon_codes/coupons1", "coupon_codes/coupons2"]
    shop.unreadable.clear()
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '7 days'")
    warehouse.daily(*TABLES)
    assert sorted(warehouse.column(DELETED)) == sorted({*gone, *codes, "reviews1"})
    shop.records |= every
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '7 days'")
    warehouse.daily(*TABLES)
    assert warehouse.column(DELETED) == []


def test_an_interrupted_full_read_begins_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The resumed run marks what neither of its parts found, and nothing else."""
    shop.rows_per_page = 2_000  # a batch
    tokens = shop.records["push_tokens"]
    tokens[:] = records_of("push_tokens", 5_000)
    warehouse.daily("push_tokens")
    remove(shop, "push_tokens5", "push_tokens4999")
    shop.fail("push_tokens", Unavailable("Away."), page=2)
    assert warehouse.daily("push_tokens").exit_code == 1
    assert (warehouse.one("SELECT count(*) FROM swept_rows"), warehouse.column(DELETED)) == (2_000, [])
    tokens.append(Record("push_tokens", "new", {}))
    shop.recover()
    assert warehouse.daily("push_tokens").state == "complete"
    assert warehouse.column(f"{DELETED} ORDER BY 1") == ["push_tokens4999", "push_tokens5"]
    assert warehouse.one("SELECT count(*) FROM swept_rows") == 0


def test_nothing_is_left_of_the_read_of_a_coupon_that_is_gone(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The resumed run has planned to read its codes and does so; the next one forgets that."""
    warehouse.daily("coupons", "coupon_codes")
    shop.rows_per_page = 2_000
    many = [Record("coupon_codes", f"more{at}", {"coupon_id": "coupons0"}) for at in range(5_000)]
    shop.records["coupon_codes"] += many
    shop.fail("coupon_codes", Unavailable("Away."), subject="coupons0", page=2)
    assert warehouse.daily("coupons", "coupon_codes").exit_code == 1
    left = "SELECT count(*) FROM (SELECT stream FROM swept_rows UNION ALL SELECT stream FROM sweeps) AS s"
    assert warehouse.one(f"{left} WHERE stream LIKE '%%/coupons0'") > 2_000
    remove(shop, "coupons0", *(each.id for each in many))
    shop.recover()
    for _ in range(2):
        assert warehouse.daily("coupons", "coupon_codes").state == "complete"
    assert warehouse.one(f"{left} WHERE stream LIKE '%%/coupons0'") == 0
    assert warehouse.one("SELECT count(*) FROM coupon_codes WHERE deleted_at IS NULL") == 3


def test_reviews_and_predictions_are_read_from_their_watermark_on(warehouse: Warehouse, shop: FakeAccount) -> None:
    first = warehouse.daily(*BY_CHANGE)
    shop.recover()
    shop.changed["reviews0"] = shop.changed["P0"] = first.run.as_of - HOUR
    shop.records["reviews"][0] = Record("reviews", "reviews0", {"content": "Changed."})
    assert warehouse.daily(*BY_CHANGE).changed() == {"reviews": (0, 1)}
    sent = [each for kind in BY_CHANGE for each in shop.sent(kind)]
    assert {each.window.start for each in sent} == {first.run.as_of - DAY}
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '7 days'")
    shop.recover()
    warehouse.daily(*BY_CHANGE)
    assert {each.window for kind in BY_CHANGE for each in shop.sent(kind)} == {FULL_READ}


def test_an_account_without_them_is_complete(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Each is said once, and what was stored stays. Many that are missing have to be confirmed by a second run."""
    shop.records["push_tokens"] += [Record("push_tokens", f"more{at}", {}) for at in range(20)]
    warehouse.daily(*TABLES)
    del shop.records["push_tokens"][4:]
    shop.fail("coupon_codes", MissingScope("coupon-codes:read"))
    ran = warehouse.daily(*TABLES)
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert "lacks 20 of 24 stored rows of push_tokens" in ran.sentences[0]
    assert ran.sentences[1:] == [f"The coupon codes were not read: {MissingScope('coupon-codes:read')}"]
    assert warehouse.column(DELETED) == []
    warehouse.execute("UPDATE missing_rows SET missed_at = missed_at - interval '1 hour'")
    shop.recover()
    shop.fail("reviews", NotFound("No such page."))
    ran = warehouse.daily(*TABLES)
    assert (ran.state, ran.sentences) == ("complete", ["The reviews were not read: No such page."])
    assert len(warehouse.column(DELETED)) == 20


def test_only_tokens_of_people_who_receive_push_are_usable(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Erased people do not come back, and the reviews of their address do not either."""
    yes, no = Consent("push", "SUBSCRIBED", True), Consent("push", "UNSUBSCRIBED", True)
    for number, consents in enumerate(([yes], [no], [], [yes])):
        shop.add_person(f"P{number}", days_ago(1), email=f"P{number}@example.com", consents=consents)
    warehouse.daily("default", *TABLES)
    usable = "SELECT id FROM usable_push_tokens ORDER BY id"
    assert warehouse.column(usable) == ["push_tokens0", "push_tokens3"]
    warehouse.execute("UPDATE members SET deleted_at = now() WHERE id = 'P3'")
    assert warehouse.column(usable) == ["push_tokens0"]
    with psycopg.connect(warehouse.url, options=search_path("klaviyo")) as connection:
        account = Account(connection, "klaviyo", warehouse.one("SELECT esp_integration_id FROM integrations"))
        with connection.transaction():
            rows = erase(account, None, ["P0"])
    assert [rows[table] for table in ("coupon_codes", "push_tokens", "member_predictions", "reviews")] == [2, 1, 1, 1]
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '7 days'")
    warehouse.daily("default", *TABLES)
    assert counts(warehouse)[4:] == [4, 3, 3, 3]
    assert warehouse.column(usable) == ["push_tokens3"]  # the account still has this person


def test_reviews_of_an_address_without_a_profile_do_not_come_back(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.records["reviews"].append(Record("reviews", "guest", {"email": "Guest@example.com"}))
    warehouse.daily("reviews")
    with psycopg.connect(warehouse.url, options=search_path("klaviyo")) as connection:
        account = Account(connection, "klaviyo", warehouse.one("SELECT esp_integration_id FROM integrations"))
        with connection.transaction():
            assert erase(account, "guest@example.com")["reviews"] == 1
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '7 days'")
    warehouse.daily("reviews")
    assert "guest" not in warehouse.column("SELECT id FROM reviews")


def test_a_token_that_passes_to_an_erased_person_is_no_longer_usable(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The row of its last owner is marked, since that of its new owner is not stored."""
    warehouse.daily("push_tokens")
    with psycopg.connect(warehouse.url, options=search_path("klaviyo")) as connection:
        account = Account(connection, "klaviyo", warehouse.one("SELECT esp_integration_id FROM integrations"))
        with connection.transaction():
            erase(account, None, ["P3"])
    moved = {"member_id": "P3", "enablement_status": "AUTHORIZED"}
    shop.records["push_tokens"][:] = [*shop.records["push_tokens"][1:3], Record("push_tokens", "push_tokens0", moved)]
    warehouse.daily("push_tokens")
    assert warehouse.column("SELECT id FROM push_tokens WHERE deleted_at IS NOT NULL") == ["push_tokens0"]
