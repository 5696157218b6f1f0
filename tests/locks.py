"""Work in another thread that waits for a lock of the database."""

from concurrent.futures import Future
from typing import Any

import psycopg

from tests.driver import wait_until

WAITS = """
SELECT EXISTS (
    SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND datname = current_database() AND backend_type = 'client backend'
)
"""


def assert_waits(connection: psycopg.Connection, work: "Future[Any]") -> None:
    """Wait until the work waits for a lock. Raises AssertionError if it ends instead.

    `connection` looks at the locks; it is neither the one that works nor in a transaction.
    """
    wait_until(lambda: work.done() or _waits(connection), "the work waited for a lock")
    assert not work.done(), "the work did not wait for a lock"


def _waits(connection: psycopg.Connection) -> bool:
    [(waits,)] = connection.execute(WAITS)
    return bool(waits)
