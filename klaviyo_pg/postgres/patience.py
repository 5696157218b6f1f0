"""Waiting for a lock that others hold, without making everybody wait who comes later. Knows no tables."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import NamedTuple, TypeVar

from psycopg import Connection
from psycopg.errors import DeadlockDetected, LockNotAvailable
from psycopg.sql import Composed

from klaviyo_pg.errors import Busy, TablesInUse
from klaviyo_pg.postgres import queries

_LIMIT_WAIT = "SELECT set_config('lock_timeout', %s, true)"

OnProgress = Callable[[str], None]
Result = TypeVar("Result")


class Patience(NamedTuple):
    """The time for which an attempt keeps others waiting, the seconds in which they go first, and the attempts."""

    wait: str
    pause: float
    attempts: int


def _nothing(sentence: str) -> None:
    """Report nothing."""


def patiently(
    connection: Connection, statement: Composed, patience: Patience, table: str, report: OnProgress = _nothing
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


def repeated(action: Callable[[], Result], patience: Patience, report: OnProgress = _nothing) -> Result:
    """Return what an action returns that is repeated while it raises TablesInUse. The last attempt raises it."""
    for _ in range(patience.attempts - 1):
        try:
            return action()
        except TablesInUse as error:
            report(f"{error.use}; trying again")
            sleep(patience.pause)
    return action()


@contextmanager
def limited_waits(connection: Connection, wait: str) -> Iterator[None]:
    """Wait for no lock longer than `wait`, in a transaction or as one. An error undoes what was done."""
    with connection.transaction():
        earlier = queries.scalar(connection, "SELECT current_setting('lock_timeout')")
        connection.execute(_LIMIT_WAIT, [wait])
        yield
        connection.execute(_LIMIT_WAIT, [earlier])


def _has_run(connection: Connection, statement: Composed, wait: str) -> bool:
    try:
        with limited_waits(connection, wait):
            connection.execute(statement)
    except (LockNotAvailable, DeadlockDetected):
        return False
    return True
