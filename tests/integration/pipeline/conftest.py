"""Runs in this process: a session over a fresh warehouse and an account in memory, without Prefect."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.fakes import FakeAccount
from tests.runs import LOG, Result, Warehouse, url_of

__all__ = ["DAY", "HOUR", "LOG", "Result", "Warehouse", "days_ago"]

MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
LEFT_OUT = ("-tags", "-custom_metrics", "-mapped_metrics", "-templates", "-forms", "-images")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def days_ago(number: float) -> datetime:
    """Return the time so many days before the last midnight."""
    return MIDNIGHT - number * DAY


@pytest.fixture
def shop() -> FakeAccount:
    """Return an account with a few rows of every kind: two metrics, two lists, four people, ten events."""
    shop = FakeAccount()
    shop.add_metric("OPEN", "Opened Email")
    shop.add_metric("ORDER", "Placed Order")
    for number in range(4):
        shop.add_person(f"P{number}", days_ago(20 - number), properties={"size": str(number)})
    for list_id in ("L1", "L2"):
        shop.add_list(list_id, f"List {list_id}")
    shop.add_member("L1", "P0", days_ago(9))
    shop.add_member("L1", "P1", days_ago(8))
    shop.add_member("L2", "P1", days_ago(7))
    shop.add_events("OPEN", *(days_ago(6 - number) + HOUR for number in range(6)), person="P0")
    shop.add_events("ORDER", *(days_ago(5 - number) for number in range(4)), person="P2")
    return shop


@pytest.fixture
def warehouse(database: str, shop: FakeAccount, tmp_path: Path) -> Warehouse:
    """Return a warehouse without rows, for the account `shop`. Its runs leave out what no other table refers to."""
    settings = {
        "tables": LEFT_OUT,
        "database_url": url_of(database),
        "klaviyo_api_key": "pk_none",
        "klaviyo_integration": "shop",
        "data_dir": tmp_path,
        "concurrency": 2,
        "first_sync_days": 7,
    }
    return Warehouse(database, settings, shop.open)


def merge_profiles(shop: FakeAccount, old: str, new: str) -> None:
    """Merge a profile into another one: its events belong to that one, and it is gone."""
    del shop.profiles[old]
    shop.events = [event._replace(profile_id=new) if event.profile_id == old else event for event in shop.events]


def cut_connections(warehouse: Warehouse) -> None:
    """End every connection to the warehouse, as a restart of the database does."""
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
