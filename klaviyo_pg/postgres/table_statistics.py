"""Statistics of Postgres's planner for the tables that a run has filled. The caller owns the transactions."""

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import TABLES, Table, bookkeeping
from klaviyo_pg.postgres.account import Account

_LEAST = 1_000  # rows
_SHARE = 0.2  # of the rows that the statistics are about
_OUTDATED = """
SELECT table_name FROM {} JOIN pg_class AS class ON class.relname = table_name
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace AND namespace.nspname = ANY(%(schemas)s)
WHERE run_id = %(run_id)s AND inserted + updated > %(least)s + %(share)s * greatest(reltuples, 0)
"""


def outdated(account: Account, run_id: str) -> list[Table]:
    """Return the tables that a run has changed so much that their statistics are out of date.

    Autovacuum would notice, but only after a minute, not for partitioned tables, and not in a server that stops with
    the run.
    """
    values = {"schemas": schemas.both(account.schema), "run_id": run_id, "least": _LEAST, "share": _SHARE}
    names = {name for (name,) in account.execute(_OUTDATED, bookkeeping.RUN_TABLES, **values)}
    return [table for table in TABLES if table.name in names]


def analyze(account: Account, table: Table) -> None:
    """Update the statistics of a table, unless another session is doing that or the role may not."""
    account.execute("ANALYZE (SKIP_LOCKED) {}", table)
