"""Statistics of Postgres's planner for the tables that a run has filled. The caller owns the transactions."""

from psycopg.sql import SQL, Identifier

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account

_LEAST = 1_000  # rows
_SHARE = 0.2  # of the rows that the statistics are about
_OUTDATED = """
SELECT table_name FROM {} JOIN pg_class AS class ON class.relname = table_name
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace AND namespace.nspname = %(schema)s
WHERE run_id = %(run_id)s AND inserted + updated > %(least)s + %(share)s * greatest(reltuples, 0)
ORDER BY table_name
"""


def outdated(account: Account, run_id: str) -> list[str]:
    """Return the tables that a run has changed so much that their statistics are out of date.

    Autovacuum would notice, but only after a minute, not for partitioned tables, and not in a server that stops with
    the run.
    """
    values = {"schema": account.schema, "run_id": run_id, "least": _LEAST, "share": _SHARE}
    return [name for (name,) in account.execute(_OUTDATED, bookkeeping.RUN_TABLES, **values)]


def analyze(account: Account, table: str) -> None:
    """Update the statistics of a table, unless another session is doing that or the role may not."""
    account.connection.execute(SQL("ANALYZE (SKIP_LOCKED) {}").format(Identifier(account.schema, table)))
