"""Rows of a table that a complete read did not find. Knows no single table. The caller owns the transaction."""

from collections.abc import Collection

from psycopg.sql import SQL, Composable

from klaviyo_pg.catalogue import Table
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard, Missing, is_believed
from klaviyo_pg.postgres.statements import row_key

_PRESENT = "esp_integration_id = %(account)s AND deleted_at IS NULL AND {limit}"
# EXCEPT and keys are fast even right after the table was filled, when Postgres has no statistics about it.
_ABSENT = f"SELECT key AS row_key FROM {{table}} WHERE {_PRESENT} EXCEPT {{found}}"
_STORED = f"SELECT count(*) FROM {{table}} WHERE {_PRESENT}"
_MARK = """
UPDATE {table} AS stored SET deleted_at = now(), __synced_at = now() FROM ({absent}) AS absent
WHERE stored.key = absent.row_key
"""
_KEYS = SQL("SELECT {} FROM unnest(%(ids)s::text[]) AS found (id)").format(row_key(SQL("found.id")))
ALL: Composable = SQL("true")
"""The condition for a read of all rows."""


def mark(
    account: Account, guard: Guard, table: Table, found: Composable, limit: Composable = ALL, **values: object
) -> bool:
    """Mark the rows whose key a query does not return, and return whether their absence is believed.

    `limit` is a condition for the rows that the read was about. `values` are those that the query and the condition
    need. Raises UnconfirmedLoss if the rows are more than the guard believes.
    """
    of = account.table(table)
    absent = account.compose(_ABSENT, table=of, found=found, limit=limit)
    missing = Missing(table, absent, account.compose(_STORED, table=of, limit=limit))
    if not is_believed(account, guard, missing, **values):
        return False
    account.execute(account.compose(_MARK, table=of, absent=absent), **values)
    return True


def mark_others(account: Account, guard: Guard, table: Table, ids: Collection[str]) -> bool:
    """Mark the rows that have none of these IDs, as `mark` does."""
    return mark(account, guard, table, _KEYS, ids=list(ids))
