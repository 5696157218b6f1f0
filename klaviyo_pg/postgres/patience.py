"""Waiting for a lock that others hold, without making everybody wait who comes later. Knows no tables."""

from collections.abc import Callable
from time import sleep
from typing import NamedTuple

from psycopg import Connection
from psycopg.errors import LockNotAvailable
from psycopg.sql import Composed

from klaviyo_pg.errors import Busy

_LIMIT_WAIT = "SELECT set_config('lock_timeout', %s, true)"

Report = Callable[[str], None]


class Patience(NamedTuple):
    """The time for which an attempt keeps others waiting, the seconds in which they go first, and the attempts."""

    wait: str
    pause: float
    attempts: int


def _nothing(sentence: str) -> None:
    """Report nothing."""


def patiently(
    connection: Connection, statement: Composed, patience: Patience, table: str, report: Report = _nothing
) -> None:
    """Run a statement that needs an exclusive lock of a table, in a transaction or as one.

    While it waits, all who come later wait as well, so it lets them pass from time to time. Raises Busy, and leaves the
    statement out, if it never gets the lock.
    """
    for _ in range(patience.attempts):
        if _has_run(connection, statement, patience.wait):
            return
        report(f"The table {table} is in use; trying again")
        sleep(patience.pause)
    raise Busy(f"Another session does not stop using the table {table}. End it, then rerun to resume.")


def _has_run(connection: Connection, statement: Composed, wait: str) -> bool:
    try:
        with connection.transaction():
            row = connection.execute("SELECT current_setting('lock_timeout')").fetchone()
            connection.execute(_LIMIT_WAIT, [wait])
            connection.execute(statement)
            connection.execute(_LIMIT_WAIT, row)
    except LockNotAvailable:
        return False
    return True
