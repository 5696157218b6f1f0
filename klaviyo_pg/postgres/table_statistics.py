"""Statistics of Postgres's planner for the tables that a run has filled. The caller owns the transactions."""

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import TABLES, Table
from klaviyo_pg.postgres.account import Account

_LEAST = 1_000  # rows
_SHARE = 0.2  # of the rows that the statistics are about
_SEEN = 0.0001  # of all rows: the share of an account that a sample of them contains
# Statistics that do not know an account make Postgres expect one row of it, and compare all rows with all others.
_OUTDATED = """
SELECT filled.table_name FROM {run_tables} AS filled JOIN pg_class AS class ON class.relname = filled.table_name
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace AND namespace.nspname = ANY(%(schemas)s)
CROSS JOIN LATERAL (SELECT filled.inserted + filled.updated AS changed, greatest(class.reltuples, 0) AS known) AS rows
WHERE filled.run_id = %(run_id)s AND rows.changed > %(least)s AND (
    rows.changed > %(least)s + %(share)s * rows.known
    OR NOT EXISTS (
        SELECT FROM pg_stats AS stats
        WHERE stats.schemaname = namespace.nspname AND stats.tablename = class.relname
        AND stats.attname = 'esp_integration_id' AND %(account)s = ANY (stats.most_common_vals::text::text[])
    ) AND (
        SELECT sum(earlier.inserted) FROM {run_tables} AS earlier
        WHERE earlier.esp_integration_id = %(account)s AND earlier.table_name = filled.table_name
    ) > %(seen)s * rows.known
)
"""


def outdated(account: Account, run_id: str) -> list[Table]:
    """Return the tables whose statistics a run has made out of date: by changing much, or as the first of its account.

    Autovacuum would notice, but only after a minute, not for partitioned tables, and not in a server that stops with
    the run.
    """
    values = {"schemas": schemas.both(account.schema), "least": _LEAST, "share": _SHARE, "seen": _SEEN}
    names = set(account.column(_OUTDATED, run_id=run_id, **values))
    return [table for table in TABLES if table.name in names]


def analyze(account: Account, table: Table) -> None:
    """Update the statistics of a table, unless another session is doing that or the role may not."""
    account.execute("ANALYZE (SKIP_LOCKED) {}", table)
