"""Personal data in every text field of every endpoint: nowhere readable with hash and drop, and gone once erased."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import psycopg
import pytest

from klaviyo_pg.catalogue import TABLES, on_request
from klaviyo_pg.postgres.account import Account
from tests.erasing import erase
from tests.integration.conftest import SCHEMA
from tests.integration.pipeline.conftest import days_ago
from tests.planted_account import ANN, BOBS_SUBJECT, SENDER, SENDER_NAME, Planted, opener
from tests.runs import Warehouse, url_of

SALT = "a salt of this test only"
EVENTS = """
SELECT {columns} FROM (
    SELECT id, key, campaign_key, automation_key, properties, value, value_currency, esp_integration_id FROM sends
    UNION ALL
    SELECT id, key, campaign_key, automation_key, properties, value, value_currency, esp_integration_id FROM events
    UNION ALL
    SELECT id, key, campaign_key, automation_key, properties, value, value_currency, esp_integration_id
    FROM unsubscribes
) AS event
"""


def opened(database: str, folder: Path, plant: Planted, dialect: str, mode: str) -> Warehouse:
    settings = {
        "database_url": url_of(database),
        "klaviyo_api_key": "pk_none",
        "klaviyo_integration": "shop",
        "klaviyo_account_id": "ACC",
        "klaviyo_dialect": dialect,
        "segments": ("S1",),
        "tables": ("default", *(table.name for table in on_request.TABLES)),
        "personal_data": mode,
        "personal_data_salt": SALT,
        "data_dir": folder,
        "concurrency": 1,
    }
    return Warehouse(database, settings, opener(dialect, plant))


def readable(warehouse: Warehouse, planted: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, str]:
    """Return the places whose values are readable in any column of any table, and where."""
    stored = [
        (table.name, row.lower())
        for table in TABLES
        for row in warehouse.column(f'SELECT stored::text FROM "{table.name}" AS stored')
    ]
    assert len(stored) > 50
    return {
        place: f"{table}: {row[:300]}"
        for place, words in planted
        for word in words
        for table, row in stored
        if any(each in row for each in (word.lower(), word.lower().lstrip("+").replace(" ", "")))
    }


def run(warehouse: Warehouse) -> None:
    """Read everything twice more, as a daily run and as a backfill."""
    daily = warehouse.daily(since=days_ago(10))
    assert daily.exit_code in (0, 3), daily.sentences
    backfill = warehouse.backfill(days_ago(20), restart=True)
    assert backfill.exit_code in (0, 3), backfill.sentences


def erase_ann(warehouse: Warehouse) -> Mapping[str, int]:
    [integration_id] = warehouse.column("SELECT esp_integration_id FROM integrations")
    with psycopg.connect(warehouse.url) as connection:
        return erase(Account(connection, SCHEMA, integration_id), None, [ANN])


def check_keys(warehouse: Warehouse) -> None:
    """Check that keys follow their recipes over the stored values, and that flow campaigns are found by them."""
    of_event = "key IS DISTINCT FROM md5('Klaviyo:' || esp_integration_id || ':' || id)"
    of_message = "campaign_key IS DISTINCT FROM md5(properties ->> '$message') AND properties IS NOT NULL"
    for wrong in (of_event, of_message):
        assert warehouse.column(EVENTS.format(columns="id") + f"WHERE {wrong}") == []
    joined = EVENTS.format(columns="count(*)") + "JOIN campaigns AS campaign USING (campaign_key)"
    assert warehouse.one(joined) == 3


@pytest.mark.parametrize(
    ("mode", "dialect"),
    [
        ("hash", "current"),
        ("drop", "legacy"),
        pytest.param("hash", "legacy", marks=pytest.mark.slow),
        pytest.param("drop", "current", marks=pytest.mark.slow),
    ],
)
def test_no_planted_value_is_readable(database: str, tmp_path: Path, mode: str, dialect: str) -> None:
    """Neither before nor after the person is erased, and neither after two further runs."""
    plant = Planted()
    warehouse = opened(database, tmp_path, plant, dialect, mode)
    places = [*plant.of_ann.items(), *plant.of_account.items()]
    assert len(places) >= 40
    assert warehouse.daily().exit_code == 0
    events = warehouse.one(EVENTS.format(columns="count(*)"))
    assert readable(warehouse, places) == {}
    check_keys(warehouse)
    assert warehouse.rows("SELECT from_email, from_name FROM campaigns WHERE id = '01CAMPAIGN'") == [
        (SENDER, SENDER_NAME)
    ]
    erase_ann(warehouse)
    assert readable(warehouse, places) == {}
    run(warehouse)
    assert readable(warehouse, places) == {}
    assert warehouse.one(EVENTS.format(columns="count(*)")) == events >= 7
    assert warehouse.one("SELECT count(*) FROM member_attributes") == 1
    names = warehouse.column("SELECT name FROM member_attributes")
    assert names == ["Size"]


@pytest.mark.parametrize("dialect", ["current", pytest.param("legacy", marks=pytest.mark.slow)])
def test_erased_values_do_not_come_back(database: str, tmp_path: Path, dialect: str) -> None:
    """Nothing of the person stays: not in rejects, flow campaigns, currencies and IDs, whatever later runs bring."""
    plant = Planted()
    warehouse = opened(database, tmp_path, plant, dialect, "keep")
    assert warehouse.daily().exit_code == 0
    assert len(readable(warehouse, plant.of_ann.items())) > 40
    counts = "SELECT (SELECT count(*) FROM rejects), " + EVENTS.format(columns="count(*)").removeprefix("\nSELECT ")
    before = warehouse.rows(counts)
    erase_ann(warehouse)
    assert readable(warehouse, plant.of_ann.items()) == {}
    run(warehouse)
    assert readable(warehouse, plant.of_ann.items()) == {}
    assert warehouse.rows(counts) == before
    assert warehouse.one("SELECT count(*) FROM rejects WHERE raw IS NULL") > 2
    flow_campaigns = "SELECT name, subject FROM campaigns WHERE automation_key IS NOT NULL"
    assert warehouse.rows(flow_campaigns) == [("Thank you", BOBS_SUBJECT)]
