"""Rows of a table whose ids a complete read did not find. Knows no single table. The caller owns the transaction."""

from collections.abc import Collection

from klaviyo_pg.catalogue import Table
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard, Missing, is_believed

_PRESENT = "esp_integration_id = %(account)s AND deleted_at IS NULL"
_ABSENT = f"SELECT id AS row_key FROM {{}} WHERE {_PRESENT} EXCEPT SELECT unnest(%(found)s::text[])"
_MARK = f"""
UPDATE {{table}} SET deleted_at = now(), __synced_at = now()
WHERE {_PRESENT} AND id IN (SELECT row_key FROM ({{absent}}) AS absent)
"""


def mark(account: Account, guard: Guard, table: Table, found: Collection[str]) -> bool:
    """Mark the rows that are absent, and return whether their absence is believed.

    Raises UnconfirmedLoss if they are more than the guard believes.
    """
    absent = account.compose(_ABSENT, table)
    stored = account.compose(f"SELECT count(*) FROM {{}} WHERE {_PRESENT}", table)
    if not is_believed(account, guard, Missing(table, absent, stored), found=list(found)):
        return False
    account.execute(account.compose(_MARK, table=account.table(table), absent=absent), found=list(found))
    return True
