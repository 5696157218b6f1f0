"""Rows that the database did not store although it reported no error. Knows what can cause that, and no frame."""

from klaviyo_pg.catalogue import Table
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.statements import shown

_BEFORE_EACH_ROW = 3  # of tgtype: other triggers cannot keep a row from being stored
_CAUSES = f"""
SELECT 'trigger ' || tgname FROM pg_trigger
WHERE tgrelid = to_regclass(%(name)s) AND NOT tgisinternal AND tgenabled <> 'D'
AND tgtype & {_BEFORE_EACH_ROW} = {_BEFORE_EACH_ROW}
UNION ALL
SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = to_regclass(%(name)s) AND ev_enabled <> 'D'
ORDER BY 1
"""


def check_stored(account: Account, table: Table, written: int, stored: int) -> None:
    """Raise DatabaseUnusable if fewer rows are stored than were written. The transaction must not commit then."""
    if stored >= written:
        return
    name = account.table(table).as_string(account.connection)
    causes = account.column(_CAUSES, name=name)
    likely = " or ".join(causes) if causes else "trigger, rule or row-level security policy on the table"
    raise DatabaseUnusable(
        f"{shown(account.schema, table)} stored only {stored:,} of {written:,} rows, and the database reported no "
        f"error. The likely cause is the {likely}. Drop or change it, then rerun to resume."
    )
