"""The warehouse and its accounts, as commands open them without a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import Connection, errors

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.errors import BadSettings, DatabaseUnusable, KlaviyoPgError
from klaviyo_pg.foreign import printable
from klaviyo_pg.plurals import named
from klaviyo_pg.postgres import accounts, schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import connect, translated
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings


def chosen_accounts(connection: Connection, schema: str, integration: str | None) -> list[tuple[str, Account]]:
    """Return the accounts of a warehouse with their names, or only this one. Raises BadSettings if it has none."""
    chosen = [each for each in accounts.all_accounts(connection, schema) if integration in (None, each[0])]
    if not chosen:
        raise no_account(connection, schema, integration)
    return chosen


def chosen_account(connection: Connection, schema: str, name: str, option: str = "--integration") -> Account:
    """Return the account of this name, which `option` has chosen. Raises BadSettings if the warehouse has none."""
    registered = accounts.find(connection, schema, name)
    if registered is None:
        raise no_account(connection, schema, name, option)
    return Account(connection, schema, registered.integration_id)


@contextmanager
def open_warehouse(settings: Settings) -> Iterator[Connection]:
    """Connect to a warehouse that exists. Raises BadSettings if it does not."""
    with translated(), connect(warehouse_url(settings), settings.warehouse_schema) as connection:
        connection.prepare_threshold = None  # a pooler in transaction mode would mix up prepared statements
        try:
            yield connection
        except (errors.UndefinedTable, errors.UndefinedColumn):
            connection.rollback()
            raise _unreadable(connection, settings.warehouse_schema) from None


def _unreadable(connection: Connection, name: str) -> KlaviyoPgError:
    """Return the error that tables are missing, or that one of an earlier version is elsewhere or lacks a column."""
    if schema.has_table(connection, name, bookkeeping.INTEGRATIONS):
        return DatabaseUnusable(
            f"The warehouse in the schema {name} was created by an earlier version. Run klaviyo-pg upgrade first."
        )
    return no_warehouse(name)


def no_warehouse(name: str) -> BadSettings:
    """Return the error that a schema of this name has no warehouse."""
    return BadSettings(f"There is no warehouse in the schema {name} yet. Run a flow first.")


def warehouse_url(settings: Settings) -> str:
    """Return the URL of a warehouse that exists: looking for an embedded Postgres must not create one."""
    if settings.database_url is None and not embedded.exists(settings.data_dir):
        raise BadSettings(
            "There is no warehouse: DATABASE_URL is not set, and there is no embedded Postgres in "
            f"{settings.data_dir.absolute()}. Run a flow first, or change to the folder where one ran."
        )
    return embedded.warehouse_url(settings)


def no_account(connection: Connection, schema: str, name: str | None, option: str = "--integration") -> BadSettings:
    """Return the error that a warehouse has no account, or none of this name, which `option` has chosen."""
    existing = [printable(each) for each, _ in accounts.all_accounts(connection, schema)]
    if not existing:
        return BadSettings(f"There are no accounts in the schema {schema} yet. Run a flow first.")
    return BadSettings(
        f"There is no account {name} in the schema {schema}. Choose another {option}: {named(existing)}."
    )
