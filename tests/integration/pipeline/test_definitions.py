"""The definitions of an account: itself, custom metrics, and which metric it uses for what."""

import pytest

from klaviyo_pg.errors import MissingScope, NotFound, Unavailable
from klaviyo_pg.rows import CustomMetric, MappedMetric
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import Warehouse

TABLES = ("custom_metrics", "mapped_metrics")
DEFINITION = '{"metric_groups":[{"metric_id":"ORDER"}]}'
SALES = CustomMetric("CM1", "Sales", "value", '["ORDER"]', DEFINITION, LONG_AGO, LONG_AGO)
STORED = """
SELECT mapped.id, metric.name, custom.name FROM mapped_metrics AS mapped
LEFT JOIN metrics AS metric ON metric.key = metric_key
LEFT JOIN custom_metrics AS custom ON custom.key = custom_metric_key
WHERE mapped.deleted_at IS NULL ORDER BY 1
"""


@pytest.fixture(autouse=True)
def defined(shop: FakeAccount) -> None:
    shop.described.update(name="The Shop", timezone="Europe/Oslo", currency="NOK", is_test=False)
    shop.custom_metrics.append(SALES)
    shop.mapped_metrics += [
        MappedMetric("revenue", "ORDER", None, LONG_AGO),
        MappedMetric("added_to_cart", None, "CM1", LONG_AGO),
    ]


def test_definitions_are_stored_and_followed(warehouse: Warehouse, shop: FakeAccount) -> None:
    """They take one request each, and the account takes none. A second run changes nothing."""
    assert warehouse.daily(*TABLES).state == "complete"
    assert warehouse.rows(STORED) == [("added_to_cart", None, "Sales"), ("revenue", "Placed Order", None)]
    assert warehouse.rows("SELECT metric_ids, definition FROM custom_metrics") == [
        (["ORDER"], {"metric_groups": [{"metric_id": "ORDER"}]})
    ]
    assert [len(shop.sent(each)) for each in (*TABLES, "account")] == [1, 1, 1]
    assert warehouse.daily(*TABLES).changed() == {}
    shop.mapped_metrics[0] = MappedMetric("revenue", None, "CM1", LONG_AGO)
    cart = shop.mapped_metrics.pop()
    warehouse.daily(*TABLES)
    assert warehouse.rows(STORED) == [("revenue", None, "Sales")]
    shop.mapped_metrics.append(cart)
    warehouse.daily(*TABLES)
    assert warehouse.rows(STORED) == [("added_to_cart", None, "Sales"), ("revenue", None, "Sales")]


@pytest.mark.parametrize(("zone", "is_named"), [("No/Such_Zone", True), ("US/Eastern", False), (None, False)])
def test_a_time_zone_that_the_database_lacks_is_named(
    warehouse: Warehouse, shop: FakeAccount, zone: str | None, is_named: bool
) -> None:
    shop.described["timezone"] = zone
    ran = warehouse.daily("lists")
    assert ran.state == "complete"
    assert ["No/Such_Zone" in sentence for sentence in ran.sentences] == [True] * is_named


def test_each_account_is_described_in_one_row(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A change is followed; a key that may not read accounts leaves what is stored."""
    described = "SELECT integrations.name, id, accounts.name, timezone, currency FROM accounts JOIN integrations USING"
    warehouse.daily("metrics")
    before = warehouse.column("SELECT xmin::text FROM accounts")
    shop.fail("account", MissingScope("accounts:read"), times=1)
    warehouse.daily("metrics")
    warehouse.daily("metrics")
    assert warehouse.column("SELECT xmin::text FROM accounts") == before
    shop.described["currency"] = "EUR"
    warehouse.daily("metrics")
    shop.account_id = "ANOTHER"
    warehouse.variant(klaviyo_integration="other").daily("metrics")
    assert warehouse.rows(f"{described} (esp_integration_id) ORDER BY 1") == [
        ("other", "ANOTHER", "The Shop", "Europe/Oslo", "EUR"),
        ("shop", "ACCOUNT", "The Shop", "Europe/Oslo", "EUR"),
    ]


@pytest.mark.parametrize(
    "error", [pytest.param(NotFound("No such page."), id="404"), pytest.param(MissingScope("metrics:read"), id="403")]
)
def test_an_account_without_them_is_complete(warehouse: Warehouse, shop: FakeAccount, error: Exception) -> None:
    """The run says so once. What was stored stays."""
    warehouse.daily(*TABLES)
    shop.fail("mapped_metrics", error)
    ran = warehouse.daily(*TABLES)
    assert (ran.state, ran.sentences) == ("complete", [f"The mapped metrics were not read: {error}"])
    assert len(warehouse.rows(STORED)) == 2
    shop.recover()
    shop.fail("mapped_metrics", Unavailable("Away."))
    assert warehouse.daily(*TABLES).state == "failed"
