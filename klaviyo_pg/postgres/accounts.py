"""The accounts of a warehouse, by their names in it. The caller owns the transaction."""

import uuid
from typing import NamedTuple

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres import queries
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import qualified


class RegisteredAccount(NamedTuple):
    """An account as it was registered: its IDs, and how the personal data in its rows are protected."""

    integration_id: str
    account_id: str | None
    personal_data: str
    salt_digest: str | None


def register(
    connection: Connection,
    schema: str,
    name: str,
    account_id: str | None,
    personal_data: str = "keep",
    salt_digest: str | None = None,
) -> Account:
    """Return the account with this name, and register it if the name is new.

    A registered account keeps its protection of personal data, and its account ID unless a new one is passed.
    """
    stored = find(connection, schema, name)
    if stored is not None and account_id in (None, stored.account_id):
        return Account(connection, schema, stored.integration_id)
    query = _sql(
        schema,
        "INSERT INTO {} AS stored (name, esp_integration_id, account_id, created_at, personal_data, salt_digest)"
        " VALUES (%s, %s, %s, now(), %s, %s)"
        " ON CONFLICT (name) DO UPDATE SET account_id = coalesce(excluded.account_id, stored.account_id)"
        " RETURNING esp_integration_id",
    )
    values = [name, str(uuid.uuid4()), account_id, personal_data, salt_digest]
    return Account(connection, schema, queries.scalar(connection, query, values))


def find(connection: Connection, schema: str, name: str) -> RegisteredAccount | None:
    """Return the account with this name, or None if the name is not registered."""
    query = _sql(
        schema,
        "SELECT esp_integration_id AS integration_id, account_id, coalesce(personal_data, 'keep') AS personal_data,"
        " salt_digest FROM {} WHERE name = %s",
    )
    with connection.cursor(row_factory=class_row(RegisteredAccount)) as cursor:
        return cursor.execute(query, [name]).fetchone()


def readable_digest(account: Account) -> str | None:
    """Return the digest of the names of properties that the last run kept readable; None if it is not recorded."""
    query = "SELECT readable_digest FROM {} WHERE esp_integration_id = %(account)s"
    digest: str | None = account.scalar(query, bookkeeping.INTEGRATIONS)
    return digest


def record_readable(account: Account, digest: str | None) -> None:
    """Record the digest of the names of properties that stay readable."""
    query = "UPDATE {} SET readable_digest = %(digest)s WHERE esp_integration_id = %(account)s"
    account.execute(query, bookkeeping.INTEGRATIONS, digest=digest)


def names(connection: Connection, schema: str, account_id: str) -> list[str]:
    """Return the names under which an account of Klaviyo is registered, the oldest first."""
    query = _sql(schema, "SELECT name FROM {} WHERE account_id = %s ORDER BY created_at, name")
    return queries.column(connection, query, [account_id])


def rename(connection: Connection, schema: str, old: str, new: str) -> None:
    """Give a registered account another name, which must be free. Its rows do not contain the name."""
    connection.execute(_sql(schema, "UPDATE {} SET name = %s WHERE name = %s"), [new, old])
    for table in (bookkeeping.RATE_LIMITS, bookkeeping.PAGE_SIZES):
        named = qualified(schema, table)
        connection.execute(SQL("DELETE FROM {} WHERE integration = %s").format(named), [new])
        connection.execute(SQL("UPDATE {} SET integration = %s WHERE integration = %s").format(named), [new, old])


def record_removal(account: Account) -> None:
    """Record that removing the account has begun, if it has not been recorded before."""
    query = "UPDATE {} SET removing_since = coalesce(removing_since, now()) WHERE esp_integration_id = %(account)s"
    account.execute(query, bookkeeping.INTEGRATIONS)


def stays(account: Account) -> bool:
    """Return whether the account is registered, and removing it has not begun."""
    query = "SELECT removing_since IS NULL FROM {} WHERE esp_integration_id = %(account)s"
    return account.is_true(query, bookkeeping.INTEGRATIONS)


def all_accounts(connection: Connection, schema: str) -> list[tuple[str, Account]]:
    """Return the name of each account and the account, ordered by name."""
    rows = connection.execute(_sql(schema, "SELECT name, esp_integration_id FROM {} ORDER BY name"))
    return [(name, Account(connection, schema, integration_id)) for name, integration_id in rows]


def _sql(schema: str, query: str) -> Composed:
    return SQL(query).format(qualified(schema, bookkeeping.INTEGRATIONS))
