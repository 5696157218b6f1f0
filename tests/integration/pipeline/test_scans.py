"""A daily run costs what has changed: it does not read the tables of people and lists from beginning to end."""

from typing import LiteralString

import psycopg
import pytest

from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.member_lists import derive_member_lists
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago
from tests.rows_read import rows_read
from tests.runs import search_path

ROWS = 6_000
FILL = (
    "INSERT INTO members (key, id, email, consent, created_at, member_key, esp_integration_id)"
    " SELECT md5('Klaviyo:' || %(account)s || ':Q' || n), 'Q' || n, n || '@example.com', 'SUBSCRIBED', '2020-01-01Z',"
    " md5('Q' || n), %(account)s FROM generate_series(1, %(rows)s) AS n",
    "INSERT INTO stg_member_lists (list_id, member_id, created_at, _sync_id, esp_integration_id)"
    " SELECT 'L2', 'Q' || n, '2020-01-01Z', md5('L2:Q' || n), %(account)s FROM generate_series(1, %(rows)s) AS n",
    "INSERT INTO subscription_changes"
    " (id, member_id, change, list_name, changed_at, scope, esp_integration_id)"
    " SELECT n::text, 'Q' || n, 'subscribed', 'Another list', '2020-01-01Z', 'list', %(account)s"
    " FROM generate_series(1, %(rows)s) AS n",
)
TABLES = ("stg_member_lists", "member_lists", "subscription_changes", "members")


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    """Return a warehouse that a run has filled, with many people on a list. Sweeps are off."""
    variant = warehouse.variant(membership_sweep_days=0, profile_sweep_days=0, reconcile_days=0)
    variant.daily()
    account = variant.one("SELECT esp_integration_id FROM integrations")
    with psycopg.connect(warehouse.url, options=search_path("klaviyo"), autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement, {"account": account, "rows": ROWS})
        connection.execute("VACUUM ANALYZE")
    assert variant.daily("member_lists").exit_code == 0
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET enable_seqscan = off")  # as if it were large
    return variant


def scanned(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Return the tables that were read from beginning to end."""
    return {table: after[table] - before[table] for table in TABLES if after[table] - before[table] >= ROWS}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            "UPDATE members SET consent = 'UNSUBSCRIBED' WHERE email = '7@example.com'",
            id="consent",
            marks=pytest.mark.slow,
        ),
        pytest.param("UPDATE stg_member_lists SET absent_since = '2021-01-01Z' WHERE member_id = 'Q8'", id="list"),
        pytest.param(
            "UPDATE subscription_changes SET changed_at = '2022-01-01Z' WHERE member_id = 'Q9'"
            " AND esp_integration_id = (SELECT esp_integration_id FROM integrations)",
            id="event",
        ),
        pytest.param(
            "INSERT INTO member_exclusions (email, _sync_id, esp_integration_id)"
            " SELECT '10@example.com', md5('10@example.com'), esp_integration_id FROM integrations",
            id="exclusion",
        ),
    ],
)
def test_a_derivation_of_a_change_reads_no_whole_table(filled: Warehouse, change: LiteralString) -> None:
    before = rows_read(filled.url, *TABLES)
    with psycopg.connect(filled.url, autocommit=True, options=search_path("klaviyo")) as connection:
        connection.execute(change)
        account = Account(connection, "klaviyo", filled.one("SELECT esp_integration_id FROM integrations"))
        assert derive_member_lists(account, has_status=False).rows_read == 1
    assert scanned(before, rows_read(filled.url, *TABLES)) == {}


def test_a_run_with_a_few_changes_derives_a_few_rows(filled: Warehouse, shop: FakeAccount) -> None:
    """It does not read member_lists from beginning to end."""
    shop.add_person("P0", days_ago(0.5), consent="UNSUBSCRIBED")
    shop.add_member("L2", "P3", days_ago(0.5))
    before = rows_read(filled.url, *TABLES)
    ran = filled.daily("member_lists")
    assert ran.exit_code == 0
    assert 0 < ran.counts["member_lists"]["rows_read"] < 10
    assert "member_lists" not in scanned(before, rows_read(filled.url, *TABLES))
