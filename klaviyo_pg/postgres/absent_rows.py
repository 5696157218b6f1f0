"""Rows of a table that a complete read did not find. Knows no single table. The caller owns the transaction."""

from psycopg.sql import SQL, Identifier, Placeholder

from klaviyo_pg.catalogue import Table, bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard, Missing, is_believed
from klaviyo_pg.postgres.statements import row_key

_EVERY_ROW = SQL("true")
_PRESENT = "esp_integration_id = %(account)s AND deleted_at IS NULL AND {limit}"
# EXCEPT and keys are fast even right after the table was filled, when Postgres has no statistics about it.
_ABSENT = f"""
SELECT key AS row_key FROM {{table}} WHERE {_PRESENT}
EXCEPT SELECT row_key FROM {{swept_rows}} WHERE esp_integration_id = %(account)s AND stream = %(read)s
AND sweep = %(sweep)s AND table_name = %(filled)s
"""
_STORED = f"SELECT count(*) FROM {{table}} WHERE {_PRESENT}"
_MARK = """
UPDATE {table} AS stored SET deleted_at = now(), __synced_at = now() FROM ({absent}) AS absent
WHERE stored.key = absent.row_key
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
_FORGET_SWEPT = "DELETE FROM {} WHERE esp_integration_id = %(account)s AND stream = %(read)s"


def mark_unswept(
    account: Account, guard: Guard, table: Table, read: str, sweep: str, owner: tuple[str, str] | None = None
) -> bool:
    """Mark the rows that a complete read did not find, and return whether their absence is believed.

    `read` is what was read, in the ledger; `owner` limits it to the rows of one owner: the column with its key, and
    its ID. Raises UnconfirmedLoss if the rows are more than the guard believes.
    """
    column, owner_id = owner or (None, None)
    limit = _EVERY_ROW if column is None else SQL("{} = {}").format(Identifier(column), row_key(Placeholder("owner")))
    of, swept_rows = account.table(table), account.table(bookkeeping.SWEPT_ROWS)
    absent = account.compose(_ABSENT, table=of, swept_rows=swept_rows, limit=limit)
    missing = Missing(table, absent, account.compose(_STORED, table=of, limit=limit))
    values = {"read": read, "sweep": sweep, "filled": table.name, "owner": owner_id}
    if not is_believed(account, guard, missing, **values):
        return False
    account.execute(account.compose(_MARK, table=of, absent=absent), **values)
    return True


def forget_swept(account: Account, read: str) -> None:
    """Forget what full reads have found, including interrupted ones."""
    account.execute(_FORGET_SWEPT, bookkeeping.SWEPT_ROWS, read=read)


def mark_owned(account: Account, table: Table, column: str, owners: Table) -> None:
    """Mark the rows whose owner is deleted: the row of another table, whose key they have in a column."""
    parts = {"table": account.table(table), "owners": account.table(owners), "column": Identifier(column)}
    account.execute(account.compose(_MARK_OWNED, **parts))


def forget_owned(account: Account, stream: str, owners: Table) -> None:
    """Forget what the ledger has of subjects that are deleted rows of a table, because they are not read any more."""
    for table in (bookkeeping.WATERMARKS, bookkeeping.SWEEPS, bookkeeping.SWEPT_ROWS, bookkeeping.MISSING_ROWS):
        account.execute(_FORGET_OWNED, table, owners, stream=stream)
