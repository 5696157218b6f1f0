"""Fixtures for a real Postgres: one server, and for each test a database with all tables and without rows."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import polars as pl
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from klaviyo_pg.catalogue import Load
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.load import Merged, merge
from tests.driver import postgres_server
from tests.integration.databases import Databases
from tests.runs import search_path

SCHEMA = "klaviyo"
EVENT_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_TEMPLATE = "warehouse_template"
_END_OF_DAY = timedelta(minutes=2)
"""Longer than a test takes."""

Connect = Callable[[], psycopg.Connection]


class Merge(Protocol):
    """Merges rows, passed as dictionaries, in a separate transaction.

    Missing columns are null; events that have no time happened at EVENT_TIME.
    """

    def __call__(self, load: Load, *rows: dict[str, Any], integration_id: str = ...) -> Merged: ...


def pytest_runtest_setup() -> None:
    """Begin no test at the end of a day, in UTC: a run that stops is resumed only on the day on which it began."""
    now = datetime.now(UTC)
    if (now + _END_OF_DAY).date() > now.date():
        time.sleep(_END_OF_DAY.total_seconds())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a running server."""
    return postgres_server(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """Return the name of a database that contains the tables, without rows."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(_TEMPLATE)))
    with psycopg.connect(make_conninfo(server, dbname=_TEMPLATE)) as connection:
        schema.upgrade(connection, SCHEMA)
    return _TEMPLATE


@pytest.fixture(scope="session")
def databases(server: str, template: str) -> Databases:
    """Return what lends databases with the tables, without rows."""
    return Databases(server, template)


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    """Return the conninfo of a warehouse without rows."""
    with databases.lend() as conninfo:
        yield conninfo


@pytest.fixture
def empty_database(server: str) -> Iterator[str]:
    """Return the conninfo of an empty database."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty TEMPLATE template0")
        yield make_conninfo(server, dbname="empty")
        connection.execute("DROP DATABASE empty WITH (FORCE)")


@pytest.fixture
def connect(database: str) -> Iterator[Connect]:
    """Return a function that opens connections to the warehouse, in autocommit mode."""
    opened: list[psycopg.Connection] = []

    def connect() -> psycopg.Connection:
        opened.append(psycopg.connect(database, autocommit=True, options=search_path(SCHEMA)))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def connection(connect: Connect) -> psycopg.Connection:
    """Return a connection to the warehouse."""
    return connect()


@pytest.fixture
def account(connection: psycopg.Connection) -> Account:
    """Return account "one", over the test's connection."""
    return Account(connection, SCHEMA, "one")


@pytest.fixture
def merged(connection: psycopg.Connection) -> Merge:
    """Return a function that merges rows over the test's connection."""

    def merged(load: Load, *rows: dict[str, Any], integration_id: str = "one") -> Merged:
        missing = {**dict.fromkeys(load.schema), **({"event_at": EVENT_TIME} if load.table.ordered_by else {})}
        frame = pl.DataFrame([{**missing, **row} for row in rows], load.schema)
        with connection.transaction():
            return merge(Account(connection, SCHEMA, integration_id), load, frame)

    return merged
