"""The settings of each session of the project, whatever the database's defaults are, and code by others in it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import Database, connect, create_engine
from tests.integration.conftest import SCHEMA
from tests.runs import url_of

ODD_DEFAULTS = {
    "search_path": "public, pg_catalog",
    "client_encoding": "SQL_ASCII",
    "DateStyle": "German, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kolkata",
    "standard_conforming_strings": "off",
    "extra_float_digits": "-15",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "5min",
    "lock_timeout": "5min",
    "idle_in_transaction_session_timeout": "5min",
    "idle_session_timeout": "5min",
}
EXPECTED = {
    "search_path": 'pg_catalog, "odd, ""schema"""',
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "default_transaction_isolation": "read committed",
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}

TCP = ("tcp_keepalives_count", "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_user_timeout")


@pytest.fixture
def odd_database(database: str) -> str:
    """Return the conninfo of a warehouse whose database has unusual defaults."""
    name = Identifier(str(conninfo_to_dict(database)["dbname"]))
    with psycopg.connect(database, autocommit=True) as owner:
        for setting, value in ODD_DEFAULTS.items():
            new = SQL(value) if setting == "search_path" else Literal(value)
            owner.execute(SQL("ALTER DATABASE {} SET {} = {}").format(name, Identifier(setting), new))
    return database


def settings_of(connection: psycopg.Connection) -> dict[str, str]:
    """Return the settings of a session."""
    return {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in EXPECTED}  # type: ignore[index]


def test_every_session_has_the_settings_that_the_project_relies_on(odd_database: str) -> None:
    """Those of the pool and those outside it. Times and intervals come back as they are."""
    url, query = url_of(odd_database), "SELECT '2026-07-01 00:00Z'::timestamptz, interval '90 minutes', 0.1::float8"
    values = [(datetime(2026, 7, 1, tzinfo=UTC), timedelta(minutes=90), 0.1)]
    pool = Database(create_engine(url, 'odd, "schema"'))
    with pool.transaction() as connection:
        assert settings_of(connection) == EXPECTED
        assert connection.execute(query).fetchall() == values
    pool.close()
    with connect(url, 'odd, "schema"') as connection:
        assert settings_of(connection) == EXPECTED
        assert connection.execute(query).fetchall() == values


def test_limits_in_the_url_are_obeyed(database: str) -> None:
    """Whoever writes them into DATABASE_URL means this project."""
    url = f"{url_of(database)}&options=-c%20statement_timeout%3D7s%20-c%20idle_session_timeout%3D8s"
    with connect(url, SCHEMA) as connection:
        limits = settings_of(connection)
    assert (limits["statement_timeout"], limits["idle_session_timeout"], limits["lock_timeout"]) == ("7s", "8s", "0")


def test_a_lost_host_is_noticed_within_minutes(database: str) -> None:
    """By both sides: until then, the server keeps the claims and locks of a client, and a client waits for its answer.

    Without these settings, both take more than two hours to find out.
    """
    with connect(url_of(database), SCHEMA) as connection:
        client = connection.info.get_parameters()
        query = "SELECT name, source FROM pg_settings WHERE name LIKE 'tcp\\_%'"
        assert dict(connection.execute(query).fetchall()) == dict.fromkeys(TCP, "session")
    assert [client[each.removeprefix("tcp_")] for each in TCP[:3]] == ["3", "30", "10"]
    assert client["tcp_user_timeout"] == "60000"


@pytest.mark.parametrize(
    ("option", "interval"), [("", "5s"), ("&options=-c%20client_connection_check_interval%3D7s", "7s")]
)
def test_the_server_ends_the_statement_of_a_client_that_is_gone(database: str, option: str, interval: str) -> None:
    """It looks every few seconds. Otherwise a statement, such as one that builds an index, would run to its end."""
    with connect(url_of(database) + option, SCHEMA) as connection:
        assert connection.execute("SHOW client_connection_check_interval").fetchone() == (interval,)


def test_a_database_in_another_encoding_is_refused(server: str) -> None:
    """It could not store every character."""
    with psycopg.connect(server, autocommit=True) as owner:
        owner.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    parts = conninfo_to_dict(server)
    with pytest.raises(DatabaseUnusable, match=r"^The database has the encoding LATIN1, which cannot store every char"):
        connect(f"postgresql://{parts['user']}@/latin?host={parts['host']}", SCHEMA)
    with psycopg.connect(server, autocommit=True) as owner:
        owner.execute("DROP DATABASE latin")


@pytest.fixture
def hostile_functions(database: str) -> Iterator[None]:
    """Functions in `public` that fit calls in the project's statements better than those of Postgres do."""
    with psycopg.connect(database, autocommit=True) as connection:
        for name in ("hashtextextended(text, integer) RETURNS bigint", "concat(text, text, text) RETURNS text"):
            connection.execute(
                f"CREATE FUNCTION public.{name} LANGUAGE plpgsql AS $$"
                " BEGIN RAISE EXCEPTION 'this ran as %%', current_user; END $$".replace("%%", "%")
            )
        yield


def test_functions_of_others_do_not_run_as_the_loader(database: str, hostile_functions: None) -> None:
    """Every role may create functions in `public` by default until PostgreSQL 14."""
    with connect(url_of(database), SCHEMA, autocommit=True) as connection:
        assert claims.try_claim(Account(connection, SCHEMA, "shop"), "daily")
        assert connection.execute("SELECT concat('a'::text, 'b'::text, 'c'::text)").fetchall() == [("abc",)]
