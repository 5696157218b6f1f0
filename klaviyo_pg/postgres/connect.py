"""Connections and transactions, and the one place where Postgres' errors become this project's."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from klaviyo_pg.errors import BadSettings, DatabaseAway, DatabaseUnusable

_UNUSABLE = {
    errors.InsufficientPrivilege: "The database user may not do this",
    errors.ReadOnlySqlTransaction: "The database is read-only",
    errors.InvalidCatalogName: "There is no such database",
    errors.DependentObjectsStillExist: "An object in the database depends on one of the project's tables",
    errors.DiskFull: "The database's disk is full",
}
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


def conninfo(url: str) -> dict[str, str]:
    """The parts of a postgresql:// URL as libpq calls them. Raises BadSettings, which does not show the URL."""
    try:
        parsed = sqlalchemy.make_url(url).set(drivername="postgresql")
        parts = conninfo_to_dict(parsed.render_as_string(hide_password=False))
    except (sqlalchemy.exc.ArgumentError, psycopg.ProgrammingError, ValueError):
        raise BadSettings("DATABASE_URL is not a URL such as postgresql://user:password@host:5432/database.") from None
    return {name: str(value) for name, value in parts.items()}


@contextmanager
def transaction(engine: sqlalchemy.Engine) -> Iterator[psycopg.Connection]:
    """A psycopg connection inside one transaction: committed at the end, rolled back on an error.

    Raises DatabaseUnusable, with one sentence, where the user has to do something about the database.
    """
    with translated():
        borrowed = engine.raw_connection()
        try:
            connection = borrowed.driver_connection
            assert isinstance(connection, psycopg.Connection)
            with connection.transaction():
                yield connection
        finally:
            borrowed.close()


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
    for kind, sentence in _UNUSABLE.items():
        if isinstance(error, kind):
            return DatabaseUnusable(f"{sentence} ({detail}): check DATABASE_URL and the privileges of its user.")
    if isinstance(error, errors.InvalidAuthorizationSpecification) or any(sign in detail for sign in _NO_LOGIN):
        return DatabaseUnusable(f"The database refused the login ({detail}): check DATABASE_URL.")
    if isinstance(error, _PASSING):
        return DatabaseAway(f"The database could not do it just now ({detail}).")
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        if "does not exist" in detail:
            return DatabaseUnusable(f"No connection to the database ({detail}): check DATABASE_URL.")
        return DatabaseAway(f"No connection to the database ({detail}): check DATABASE_URL and that it runs.")
    return None
