"""Changing schemas that others use: by one process at a time, and without making everybody wait who comes later."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from psycopg import Connection, errors

from klaviyo_pg.errors import TablesInUse
from klaviyo_pg.postgres.patience import OnProgress, Patience, limited_waits, repeated

Result = TypeVar("Result")
PATIENCE = Patience("2s", 5.0, 60)
"""The patience with other users of the tables and views."""
_LOCK = "SELECT pg_advisory_xact_lock(pg_catalog.hashtextextended('klaviyo_pg.schema', 0))"
_USERS = """
    SELECT l.pid, min(c.relname::text)
    FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE l.granted AND l.pid <> pg_backend_pid() AND n.nspname = ANY(%s) AND c.relkind IN ('r', 'p', 'v')
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY 1 ORDER BY 1 LIMIT 5
"""


@contextmanager
def changing(connection: Connection, schemas: Sequence[str]) -> Iterator[None]:
    """Let the block change these schemas, in the caller's transaction. Other processes wait until that ends.

    Raises TablesInUse, and undoes what the block did, if another session uses a table or view that has to be changed.
    """
    connection.execute(_LOCK)
    try:
        with limited_waits(connection, PATIENCE.wait):
            yield
    except (errors.LockNotAvailable, errors.DeadlockDetected):
        raise _in_use(connection, schemas) from None


def change_patiently(connection: Connection, change: Callable[[], Result], report: OnProgress) -> Result:
    """Return the result of a change, made in one transaction. While it raises TablesInUse, let others go first, and
    try again. The last attempt raises it.
    """

    def attempt() -> Result:
        with connection.transaction():
            return change()

    return repeated(attempt, PATIENCE, report)


def _in_use(connection: Connection, schemas: Sequence[str]) -> TablesInUse:
    """Return the error that names the sessions that use tables or views of the schemas, if they still do."""
    users = connection.execute(_USERS, [list(schemas)]).fetchall()
    if not users:
        return TablesInUse()
    uses = ", ".join(f"pid {pid}: {table}" for pid, table in users)
    return TablesInUse(f"Other sessions use tables of the warehouse ({uses})")
