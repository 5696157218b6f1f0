"""Removing an account in tests, and the content of a warehouse to compare it by."""

from collections.abc import Callable
from contextlib import closing

import psycopg

from klaviyo_pg.catalogue import TABLES
from klaviyo_pg.postgres import accounts
from klaviyo_pg.postgres.account import Account
from pipeline.commands.removing import remove_account
from pipeline.erasing import OnProgress, report_nothing
from tests.runs import Warehouse, search_path

Content = dict[str, list[str]]
"""The rows of each table that has any, as text, in order."""


def content(warehouse: Warehouse) -> Content:
    """Return everything that the tables of a warehouse contain."""
    found = {
        table.name: warehouse.column(f"SELECT stored::text FROM {table.name} AS stored ORDER BY 1") for table in TABLES
    }
    return {name: rows for name, rows in found.items() if rows}


def mentions(warehouse: Warehouse, *texts: str) -> list[str]:
    """Return the names of the tables of which any row contains one of the texts."""
    rows = content(warehouse).items()
    return [name for name, stored in rows if any(text in row for row in stored for text in texts)]


def id_of(warehouse: Warehouse, name: str) -> str:
    """Return the ID of the account with this name."""
    return str(warehouse.one("SELECT esp_integration_id FROM integrations WHERE name = %s", name))


def remove(
    warehouse: Warehouse, name: str, prepare: Callable[[], None] = lambda: None, report: OnProgress = report_nothing
) -> dict[str, int]:
    """Remove an account, and return the number of rows by table."""
    schema = str(warehouse.settings.get("warehouse_schema", "klaviyo"))
    options = search_path(schema)
    with (
        closing(psycopg.connect(warehouse.url, options=options)) as connection,
        closing(psycopg.connect(warehouse.url, options=options)) as other,
    ):
        found = accounts.find(connection, schema, name)
        assert found is not None
        connection.commit()
        account, holder = (Account(each, schema, found.integration_id) for each in (connection, other))
        return dict(remove_account(account, holder, name, prepare, report))
