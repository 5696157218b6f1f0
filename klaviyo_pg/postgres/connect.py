"""Connections and transactions, and the one place where Postgres' errors become this project's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TypeVar
from weakref import WeakSet

import psycopg
import sqlalchemy
import stamina
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from klaviyo_pg.errors import BadSettings, DatabaseAway, DatabaseUnusable

_UNUSABLE = {  # what is wrong, and what to do
    errors.InsufficientPrivilege: (
        "The database user may not do this",
        "grant the privilege, or give DATABASE_URL another user",
    ),
    errors.ReadOnlySqlTransaction: ("The database is read-only", "let DATABASE_URL lead to the primary, not a standby"),
    errors.InvalidCatalogName: ("There is no such database", "create it, or correct DATABASE_URL"),
    errors.DependentObjectsStillExist: (
        "An object in the database depends on one of the project's tables",
        "drop that object, and make it anew afterwards",
    ),
    errors.DiskFull: ("The database's disk is full", "make room on it; the same command goes on"),
    errors.QueryCanceled: (
        "The database ended a statement",
        "raise the statement_timeout of its user, if nobody ended it by hand; the same command goes on",
    ),
    errors.TransactionTimeout: (
        "The database ended a transaction that took too long",
        "raise the transaction_timeout of its user; the same command goes on",
    ),
}
_IN_THE_WAY = (errors.NotNullViolation, errors.CheckViolation, errors.ForeignKeyViolation)  # the catalogue has none
_NO_LOGIN = (  # a connection that fails has no SQLSTATE, only words
    "authentication failed",
    "no password supplied",
    "not permitted to log in",
    "no pg_hba.conf entry",
    "permission denied",
)
_PASSING = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.LockNotAvailable,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.TooManyConnections,
    errors.ConnectionException,
)
_LONGEST_ABSENCE = 900.0  # seconds that a database may be away
_LOOK = 0.5  # seconds between two looks whether it is back
_reached: WeakSet[sqlalchemy.Engine] = WeakSet()

Result = TypeVar("Result")


def conninfo(url: str) -> dict[str, str]:
    """The parts of a postgresql:// URL as libpq calls them. Raises BadSettings, which does not show the URL."""
    try:
        parsed = sqlalchemy.make_url(url).set(drivername="postgresql")
        parts = conninfo_to_dict(parsed.render_as_string(hide_password=False))
    except (sqlalchemy.exc.ArgumentError, psycopg.ProgrammingError, ValueError):
        raise BadSettings("DATABASE_URL is not a URL such as postgresql://user:password@host:5432/database.") from None
    return {name: str(value) for name, value in parts.items()}


def connect(url: str, autocommit: bool = False) -> psycopg.Connection:
    """A connection of one's own, in UTC."""
    connection = psycopg.connect(make_conninfo(**conninfo(url)), autocommit=autocommit)
    in_utc(connection)
    return connection


def in_utc(connection: psycopg.Connection) -> None:
    """Let the session tell times in UTC, whatever the database's own zone: days and hours are counted in it."""
    connection.execute("SET TIME ZONE 'UTC'")
    if not connection.autocommit:
        connection.commit()


@contextmanager
def transaction(engine: sqlalchemy.Engine, waits: bool = True) -> Iterator[psycopg.Connection]:
    """A psycopg connection inside one transaction: committed at the end, rolled back on an error.

    A database that has been reached before is waited for, if it is away when the transaction begins. Raises
    DatabaseUnusable, with one sentence, where the user has to do something about the database.
    """
    with translated():
        borrowed = _borrowed(engine, waits)
        try:
            connection = borrowed.driver_connection
            assert isinstance(connection, psycopg.Connection)
            with connection.transaction():
                yield connection
        finally:
            borrowed.close()


def patiently(engine: sqlalchemy.Engine, work: Callable[[psycopg.Connection], Result]) -> Result:
    """What `work` answers, in one transaction; begun again for as long as the database is away, within reason."""
    for attempt in stamina.retry_context(on=DatabaseAway, attempts=None, timeout=_LONGEST_ABSENCE, wait_max=15):
        with attempt, transaction(engine) as connection:
            return work(connection)
    raise AssertionError("a retry context either answers or raises")


def _borrowed(engine: sqlalchemy.Engine, waits: bool) -> sqlalchemy.PoolProxiedConnection:
    waits = waits and engine in _reached
    until = monotonic() + _LONGEST_ABSENCE
    while True:
        try:
            with translated():
                connection = engine.raw_connection()
        except DatabaseAway:
            if not waits:
                raise
            if monotonic() >= until:
                _reached.discard(engine)  # who comes next need not wait as long again
                raise
            sleep(_LOOK)
        else:
            _reached.add(engine)
            return connection


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors that a user can mend into DatabaseUnusable; others pass."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        if error.connection_invalidated or not isinstance(error.orig, psycopg.Error):
            raise
        raise unusable(error.orig) or error from None
    except psycopg.Error as error:
        raise unusable(error) or error from None


def unusable(error: psycopg.Error) -> DatabaseUnusable | None:
    """What to tell the user of this error; None where it is not theirs to mend."""
    detail = " ".join(str(error).split("\n", maxsplit=1)[0].split())
    for kind, (wrong, remedy) in _UNUSABLE.items():
        if isinstance(error, kind):
            return DatabaseUnusable(f"{wrong} ({detail}): {remedy}.")
    if isinstance(error, _IN_THE_WAY):
        return DatabaseUnusable(
            f"A column or constraint that was added to one of the project's tables refuses its rows ({detail}): give "
            "the column a default or let it be null, or drop the constraint."
        )
    if isinstance(error, errors.InvalidAuthorizationSpecification) or any(sign in detail for sign in _NO_LOGIN):
        return DatabaseUnusable(f"The database refused the login ({detail}): check DATABASE_URL.")
    if isinstance(error, _PASSING):
        return DatabaseAway(f"The database could not do it just now ({detail}).")
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        if "does not exist" in detail:
            return DatabaseUnusable(f"No connection to the database ({detail}): check DATABASE_URL.")
        return DatabaseAway(f"No connection to the database ({detail}): check DATABASE_URL and that it runs.")
    return None
