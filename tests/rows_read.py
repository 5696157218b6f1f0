"""The rows that Postgres has read of tables, according to its statistics."""

import psycopg

from tests.driver import wait_until

_ENDED = """
SELECT NOT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
)
"""
_READ = """
SELECT relname, coalesce(seq_tup_read, 0) + (
    SELECT coalesce(sum(idx_tup_read), 0)::int FROM pg_stat_user_indexes AS index WHERE index.relid = stored.relid
) FROM pg_stat_user_tables AS stored WHERE relname = ANY(%s)
"""


def rows_read(url: str, *tables: str) -> dict[str, int]:
    """Return how many rows scans of each table and of its indexes have read so far.

    Waits until every other session of the database has ended: each adds what it has read when it ends, at the latest.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        wait_until(lambda: connection.execute(_ENDED).fetchone() == (True,), "all other sessions had ended")
        return dict(connection.execute(_READ, [list(tables)]).fetchall())
