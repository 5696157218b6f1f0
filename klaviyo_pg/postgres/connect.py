"""Connections and transactions, and the one place where errors of Postgres become errors of this project."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import TypeVar

import psycopg
import sqlalchemy
import stamina
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from klaviyo_pg.errors import BadSettings, DatabaseAway, DatabaseUnusable
from klaviyo_pg.postgres import address
from klaviyo_pg.redaction import redacted

_UNUSABLE = {  # what happened, and what to do
    errors.InsufficientPrivilege: (
        "The database user lacks a privilege",
        "Grant it, or set DATABASE_URL to another user",
    ),
    errors.ReadOnlySqlTransaction: (
        "The database is read-only",
        "Set DATABASE_URL to the primary server, not a standby",
    ),
    errors.InvalidCatalogName: ("There is no such database", "Create it, or correct DATABASE_URL"),
    errors.FeatureNotSupported: (
        "An object in the database does not allow what this project does with its tables",
        "Drop the rule on the table, or whatever it is, then rerun to resume",
    ),
    errors.RaiseException: (
        "Code in the database, such as a trigger, refused what this project does with its tables",
        "Drop or change it, then rerun to resume",
    ),
    errors.DependentObjectsStillExist: (
        "An object in the database depends on one of this project's tables",
        "Drop that object, and recreate it after the run",
    ),
    errors.DiskFull: ("The disk of the database server is full", "Free some space, then rerun to resume"),
    errors.QueryCanceled: (
        "The database canceled a statement",
        "Unless someone canceled it by hand, raise statement_timeout for the database user, then rerun to resume",
    ),
    errors.TransactionTimeout: (
        "The database ended a transaction that took too long",
        "Raise transaction_timeout for the database user, then rerun to resume",
    ),
}
_BY_FUNCTION = {  # of the server, which is the same in every language
    "check_enable_rls": (
        "Row-level security on a table would hide rows from the database user",
        "Make the user the table's owner, give it BYPASSRLS, or drop the policies",
    ),
    "CheckCmdReplicaIdentity": (
        "A table is in a publication but has no replica identity",
        "Run ALTER TABLE ... REPLICA IDENTITY DEFAULT, or take the table out of the publication",
    ),
}
_BAD_OPTION = re.compile(r"connection is bad: (invalid |definition of service |service file )|could not match ")
_LOST = re.compile(  # the driver's words where it had a connection; a failed one begins with "connection failed: "
    r"the connection is (closed|lost)|connection socket closed|(?!connection )[a-z ]+ failed: |"
    r"server closed the connection|SSL |could not (receive|send) "
)
_REFUSED_ROW = (errors.NotNullViolation, errors.CheckViolation, errors.ForeignKeyViolation)  # not from the catalogue
_NO_LOGIN = (  # a failed connection has no SQLSTATE, only a message
    "authentication failed",
    "no password supplied",
    "not permitted to log in",
    "no pg_hba.conf entry",
    "permission denied",
)
_TEMPORARY = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.LockNotAvailable,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.TooManyConnections,
    errors.ConnectionException,
)
_CONNECT_TIMEOUT = "10"  # seconds
_KEEPALIVE = {"idle": 30, "interval": 10, "count": 3}  # seconds: after a minute without an answer a host is lost
_UNANSWERED = 60_000  # milliseconds
_DEFAULTS = {
    "connect_timeout": _CONNECT_TIMEOUT,
    "application_name": "klaviyo-pg",
    **{f"keepalives_{name}": str(value) for name, value in _KEEPALIVE.items()},
    "tcp_user_timeout": str(_UNANSWERED),
}
_LIMITS = {
    **dict.fromkeys(
        (
            *("statement_timeout", "lock_timeout", "transaction_timeout"),
            *("idle_in_transaction_session_timeout", "idle_session_timeout"),
        ),
        0,
    ),
    **{f"tcp_keepalives_{name}": value for name, value in _KEEPALIVE.items()},
    "tcp_user_timeout": _UNANSWERED,
}
# Set after connecting, because PgBouncer refuses most settings in a connection's options. The search path comes first:
# it keeps functions and operators that others have created in the schema public from running as this user. Rows that
# row-level security hides become an error. Limits of the server would end a run or its claims, except that of a client
# whose host is lost: its claims and locks would otherwise last for hours. Those in DATABASE_URL are left alone, because
# they are meant for this project.
_SETTINGS = SQL("""
SET search_path = pg_catalog, {schema};
SET client_encoding = 'UTF8';
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET TimeZone = 'UTC';
SET standard_conforming_strings = on;
SET extra_float_digits = 1;
SET default_transaction_isolation = 'read committed';
SET row_security = off;
SELECT set_config(name, value, false) FROM pg_settings
JOIN json_each_text({limits}) AS limits (name, value) USING (name) WHERE source <> 'client';
""")
# The statement of a client that is gone would otherwise run to its end, and keep its locks.
_CLIENT_CHECK = """
SELECT set_config(name, '5s', false) FROM pg_settings
WHERE name = 'client_connection_check_interval' AND source <> 'client'
"""
_SERVER_SESSION = (
    "SELECT pid, backend_start FROM pg_catalog.pg_stat_activity"
    " WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
)
_SAMPLES = 5  # of the sessions of two connections: other clients of a pool may take turns with them
_POOL_SIZE = 8  # connections that are kept open
_MAX_OVERFLOW = 64  # connections beyond those that the pool keeps open
_LONGEST_ABSENCE = 900.0  # seconds that a database may be away
_RECONNECT_INTERVAL = 0.5  # seconds
_LONGEST_PAUSE = 2.0  # seconds between two attempts of a transaction

Result = TypeVar("Result")


def connect(url: str, schema: str, autocommit: bool = False) -> psycopg.Connection:
    """Open a connection with the settings that this project relies on. Every session of the project begins here.

    `schema` is that of the warehouse. Raises BadSettings if the URL is malformed, and DatabaseUnusable if the database
    cannot store every character.
    """
    connection = _open(url)
    try:
        _check_encoding(connection)
        connection.execute(_SETTINGS.format(schema=Identifier(schema), limits=Literal(json.dumps(_LIMITS))))
        with suppress(errors.InvalidParameterValue):  # some platforms cannot check
            connection.execute(_CLIENT_CHECK)
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def _open(url: str) -> psycopg.Connection:
    """Open a connection in autocommit mode, with the settings of the database. Its error contains no secret."""
    parameters = address.parse(url)
    secrets = address.secrets_of(parameters)
    try:
        return psycopg.connect(make_conninfo(**{**_DEFAULTS, **parameters}), autocommit=True)
    except psycopg.ProgrammingError as error:  # a value that the driver itself cannot read
        raise BadSettings(f"DATABASE_URL cannot be used: {redacted(str(error), secrets)}.") from None
    except psycopg.Error as error:
        raise type(error)(redacted(str(error), secrets)) from None


def _check_encoding(connection: psycopg.Connection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", None):  # some poolers do not report it
        raise DatabaseUnusable(
            f"The database has the encoding {encoding}, which cannot store every character. Create it with the "
            "encoding UTF8."
        )


def shares_sessions(url: str) -> bool:
    """Return whether a pooler gives transactions of different connections the same session of the server.

    PgBouncer in transaction or statement mode does. Two connections that are open at the same time then meet in one
    session, or one of them changes its session, which a direct connection and a pool of sessions never do.
    """
    with translated(), _open(url) as one, _open(url) as other:
        pairs = [(_server_session(one), _server_session(other)) for _ in range(_SAMPLES)]
    first, second = map(set, zip(*pairs, strict=True))
    return len(first) > 1 or len(second) > 1 or first == second


def _server_session(connection: psycopg.Connection) -> tuple[object, ...]:
    """Return what identifies the server's session. Such a pooler refuses prepared queries."""
    row = connection.execute(_SERVER_SESSION, prepare=False).fetchone()
    assert row is not None
    return tuple(row)


def create_engine(url: str, schema: str) -> sqlalchemy.Engine:
    """Create an engine that keeps some connections open and opens more while they are needed.

    Raises BadSettings if the URL is malformed.
    """
    address.parse(url)
    return sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url, schema),
        pool_size=_POOL_SIZE,
        max_overflow=_MAX_OVERFLOW,
        pool_pre_ping=True,
        hide_parameters=True,
    )


class Database:
    """The database of the warehouse, reached through an engine. Safe to share between threads.

    Once it has been reached, transactions wait for it if it is away, unless `is_stopped` returns true.
    """

    def __init__(self, engine: sqlalchemy.Engine, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self._engine, self._is_stopped = engine, is_stopped
        self._was_reached = False

    @contextmanager
    def transaction(self, waits: bool = True) -> Iterator[psycopg.Connection]:
        """Open a transaction, commit it at the end, and roll it back on an error.

        With `waits`, a database that was reached before is waited for if it is away when the transaction starts. Raises
        DatabaseUnusable if the user has to do something about the database.
        """
        with translated():
            borrowed = self._borrow(waits)
            connection = borrowed.driver_connection
            assert isinstance(connection, psycopg.Connection)
            try:
                with connection.transaction():
                    yield connection
            finally:
                if connection.closed:  # the pool would log an error while it resets it
                    borrowed.invalidate()
                borrowed.close()

    def patiently(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        """Return what `work` returns in one transaction. Restarts it while the database is away, for a limited time."""

        def transact() -> Result:
            with self.transaction() as connection:
                return work(connection)

        return self.wait_for(transact)

    def wait_for(self, action: Callable[[], Result], longest: float = _LONGEST_ABSENCE) -> Result:
        """Return what `action` returns. Repeats it while the database is away, for `longest` seconds."""

        def deserves_retry(error: Exception) -> bool:
            return isinstance(error, DatabaseAway) and not self._is_stopped()

        for attempt in stamina.retry_context(
            on=deserves_retry, attempts=None, timeout=longest, wait_max=_LONGEST_PAUSE
        ):
            with attempt:
                return action()
        raise AssertionError("a retry context either returns or raises")

    def close(self) -> None:
        """Close the connections in the pool."""
        self._engine.dispose()

    def _borrow(self, waits: bool) -> sqlalchemy.PoolProxiedConnection:
        waits = waits and self._was_reached
        until = monotonic() + _LONGEST_ABSENCE
        while True:
            try:
                with translated():
                    connection = self._engine.raw_connection()
            except DatabaseAway:
                if not waits or self._is_stopped():
                    raise
                if monotonic() >= until:
                    self._was_reached = False  # the next transaction should not wait as long again
                    raise
                sleep(_RECONNECT_INTERVAL)
            else:
                self._was_reached = True
                return connection


@contextmanager
def translated() -> Iterator[None]:
    """Raise DatabaseUnusable instead of the errors that the user can fix. Other errors pass unchanged."""
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        if error.connection_invalidated or not isinstance(error.orig, psycopg.Error):
            raise
        raise _translation(error.orig) or error from None
    except psycopg.Error as error:
        raise _translation(error) or error from None


def tables_may_be_missing() -> suppress:
    """Return a context that ignores that the warehouse does not have the tables and columns of this version yet."""
    return suppress(errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn)


def _translation(error: psycopg.Error) -> DatabaseUnusable | None:
    """Return the error to raise instead, or None if the user cannot fix it."""
    detail = " ".join(redacted(str(error)).split("\n", maxsplit=1)[0].split())
    if reason := _BY_FUNCTION.get(error.diag.source_function or ""):
        return _unusable(detail, *reason)
    for kind, reason in _UNUSABLE.items():
        if isinstance(error, kind):
            return _unusable(detail, *reason)
    if isinstance(error, _REFUSED_ROW):
        return _unusable(
            detail,
            "A column or constraint that was added to one of this project's tables refuses a row",
            "Give the column a default, allow nulls in it, or drop the constraint",
        )
    if isinstance(error, errors.InvalidAuthorizationSpecification) or any(sign in detail for sign in _NO_LOGIN):
        return _unusable(detail, "The database refused the login", "Check DATABASE_URL")
    if isinstance(error, _TEMPORARY):
        return DatabaseAway(f"The database is temporarily unable to do this ({detail}).")
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        if "does not exist" in detail or _BAD_OPTION.match(detail):
            return _unusable(detail, "Cannot connect to the database", "Check DATABASE_URL")
        if _LOST.match(detail):
            return DatabaseAway(f"The connection to the database was lost ({detail}). Rerun to resume.")
        return DatabaseAway(
            f"Cannot connect to the database ({detail}). Check DATABASE_URL, and check that the database is running."
        )
    return None


def _unusable(detail: str, problem: str, remedy: str) -> DatabaseUnusable:
    error = DatabaseUnusable(f"{problem} ({detail}). {remedy}.")
    error.problem = problem
    return error
