"""Rows that a full read, stored batch by batch, did not find. Knows no single table.

The caller owns the transaction.
"""

from psycopg.sql import SQL, Identifier, Placeholder

from klaviyo_pg.catalogue import Table, bookkeeping
from klaviyo_pg.postgres import absent_rows
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.postgres.statements import row_key

_FOUND = """
SELECT row_key FROM {} WHERE esp_integration_id = %(account)s AND stream = %(read)s AND sweep = %(sweep)s
AND table_name = %(filled)s
"""
_MARK_OWNED = """
UPDATE {table} AS stored SET deleted_at = now(), __synced_at = now() FROM {owners} AS owner
WHERE stored.{column} = owner.key AND stored.esp_integration_id = %(account)s AND stored.deleted_at IS NULL
AND owner.deleted_at IS NOT NULL
"""
_FORGET_OWNED = """
DELETE FROM {} WHERE esp_integration_id = %(account)s AND stream IN (
    SELECT %(stream)s || '/' || id FROM {} WHERE esp_integration_id = %(account)s AND deleted_at IS NOT NULL
)
"""
_FORGET = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND stream = %(read)s"


def mark(
    account: Account, guard: Guard, table: Table, read: str, sweep: str, owner: tuple[str, str] | None = None
) -> bool:
    """Mark the rows that a complete read did not find, and return whether their absence is believed.

    `read` is what was read, in the ledger; `owner` limits it to the rows of one owner: the column with its key, and
    its ID. Raises UnconfirmedLoss if the rows are more than the guard believes.
    """
    found = account.compose(_FOUND, bookkeeping.SWEPT_ROWS)
    limit = absent_rows.ALL
    if owner is not None:
        limit = SQL("{} = {}").format(Identifier(owner[0]), row_key(Placeholder("owner")))
    values = {"filled": table.name, "owner": owner and owner[1]}
    return absent_rows.mark(account, guard, table, found, limit, read=read, sweep=sweep, **values)


def forget(account: Account, read: str) -> None:
    """Forget what full reads have found, including interrupted ones."""
    account.execute(_FORGET, bookkeeping.SWEPT_ROWS, read=read)


def mark_owned(account: Account, table: Table, column: str, owners: Table) -> None:
    """Mark the rows whose owner is deleted: the row of another table, whose key they have in a column."""
    parts = {"table": account.table(table), "owners": account.table(owners), "column": Identifier(column)}
    account.execute(account.compose(_MARK_OWNED, **parts))


def forget_owned(account: Account, stream: str, owners: Table) -> None:
    """Forget what the ledger has of subjects that are deleted rows of a table, because they are not read any more."""
    for table in (bookkeeping.WATERMARKS, bookkeeping.SWEEPS, bookkeeping.SWEPT_ROWS, bookkeeping.MISSING_ROWS):
        account.execute(_FORGET_OWNED, table, owners, stream=stream)
