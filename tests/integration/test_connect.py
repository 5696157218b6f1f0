"""Connections, transactions, and the errors that the user sees when the database cannot be used."""

import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from sqlalchemy.pool import NullPool

from klaviyo_pg.cli import terminal
from klaviyo_pg.errors import BadSettings, DatabaseAway, DatabaseUnusable
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.connect import Database, connect, create_engine
from tasks import logs
from tests.connections import end_session, half_open
from tests.driver import StoppablePostgres
from tests.integration.conftest import SCHEMA

PASSWORD = "p@55:w/o%r d#?"  # of a role that exists during a test only


def url_of(conninfo: str, **changes: object) -> sqlalchemy.URL:
    """Return the URL of a connection, with some of its parameters changed; None removes a parameter."""
    parameters = {**conninfo_to_dict(conninfo), "connect_timeout": "5", **changes}
    query = {name: str(value) for name, value in parameters.items() if value is not None}
    user, password, database = (query.pop(name, None) for name in ("user", "password", "dbname"))
    return sqlalchemy.URL.create("postgresql+psycopg", user, password, database=database, query=query)


def database_at(conninfo: str, **changes: object) -> Database:
    """Return a database without a pool, for a connection with some of its parameters changed."""
    return Database(sqlalchemy.create_engine(url_of(conninfo, **changes), poolclass=NullPool))


@pytest.fixture
def reader(database: str) -> Iterator[str]:
    """Create a role that has a password and no privileges."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SQL("CREATE ROLE reader LOGIN PASSWORD {}").format(PASSWORD))
        yield "reader"
        connection.execute("DROP ROLE reader")


@pytest.fixture
def asks_for_passwords(database: str, reader: str) -> Iterator[None]:
    """Make the server ask this role for its password, and no other role."""
    with psycopg.connect(database, autocommit=True) as connection:
        row = connection.execute("SELECT current_setting('hba_file')").fetchone()
        assert row is not None
        rules = Path(row[0])
        before = rules.read_text()
        rules.write_text(f"local all {reader} scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        yield
        rules.write_text(before)
        connection.execute("SELECT pg_reload_conf()")


def error_of(database: Database, statement: str = "SELECT 1") -> DatabaseUnusable:
    """Return the error that a statement raises."""
    with pytest.raises(DatabaseUnusable) as caught, database.transaction() as connection:
        connection.execute(statement)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and PASSWORD not in message
    return caught.value


def test_a_transaction_is_committed_at_its_end(database: str) -> None:
    with database_at(database).transaction() as connection:
        connection.execute("INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1')")
    with database_at(database).transaction() as connection:
        assert connection.execute("SELECT id FROM klaviyo.members").fetchall() == [("p1",)]


def test_a_transaction_is_rolled_back_on_an_error(database: str) -> None:
    """An error that the user cannot fix is raised unchanged."""
    with pytest.raises(psycopg.errors.UniqueViolation), database_at(database).transaction() as connection:
        for _ in range(2):
            connection.execute("INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1')")
    with database_at(database).transaction() as connection:
        assert connection.execute("SELECT id FROM klaviyo.members").fetchall() == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"host": "127.0.0.1", "port": 1}, id="no server"),
        pytest.param({"host": "/nowhere"}, id="no socket"),
        pytest.param({"host": "no-such-host.invalid"}, id="no such host"),
    ],
)
def test_an_unreachable_server_may_come_back(database: str, changes: dict[str, object]) -> None:
    """DatabaseAway makes a run in progress retry."""
    error = error_of(database_at(database, password=PASSWORD, **changes))
    assert isinstance(error, DatabaseAway)
    assert str(error).startswith("Cannot connect to the database (")


def test_a_missing_database_is_not_retried(database: str) -> None:
    error = error_of(database_at(database, dbname="nowhere", password=PASSWORD))
    assert not isinstance(error, DatabaseAway) and "nowhere" in str(error)


def test_a_missing_role_is_not_retried(database: str) -> None:
    error = error_of(database_at(database, user="no_such_role", password=PASSWORD))
    assert not isinstance(error, DatabaseAway) and "no_such_role" in str(error)


def test_a_role_without_login_is_not_retried(database: str, reader: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER ROLE reader NOLOGIN")
    error = error_of(database_at(database, user=reader, password=PASSWORD))
    assert not isinstance(error, DatabaseAway) and "reader" in str(error)


@pytest.mark.parametrize("password", [None, "wrong", "wröng"])
def test_a_wrong_password_is_not_retried(
    database: str, reader: str, asks_for_passwords: None, password: str | None
) -> None:
    """Retrying could lock the database user."""
    error = error_of(database_at(database, user=reader, password=password))
    assert not isinstance(error, DatabaseAway)
    assert str(error).startswith("The database refused the login (")


def test_a_password_with_special_characters_works(database: str, reader: str, asks_for_passwords: None) -> None:
    """URLs contain it percent-encoded."""
    url = url_of(database, user=reader, password=PASSWORD).render_as_string(hide_password=False)
    assert PASSWORD not in url
    pool = Database(create_engine(url, SCHEMA))
    with pool.transaction() as connection:
        assert connection.execute("SELECT current_user").fetchall() == [(reader,)]
    pool.close()
    with connect(url, SCHEMA) as connection:
        assert connection.execute("SELECT current_user").fetchall() == [(reader,)]


def test_a_database_that_the_role_may_not_connect_to_is_not_retried(database: str, reader: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SQL("REVOKE CONNECT ON DATABASE {} FROM public").format(Identifier(connection.info.dbname)))
    assert not isinstance(error_of(database_at(database, user=reader, password=PASSWORD)), DatabaseAway)


def test_a_read_only_database_is_reported(database: str) -> None:
    """A standby is read-only."""
    read_only = database_at(database, options="-c default_transaction_read_only=on")
    error = error_of(read_only, "CREATE TABLE klaviyo.x ()")
    assert str(error).startswith("The database is read-only (")
    assert str(error).endswith("). Set DATABASE_URL to the primary server, not a standby.")


def test_a_time_limit_of_the_database_is_reported(database: str) -> None:
    """Hosted databases have such limits. A retry would exceed them again."""
    limited = database_at(database, options="-c statement_timeout=500")
    error = error_of(limited, "SELECT pg_sleep(600)")
    assert not isinstance(error, DatabaseAway)
    assert str(error).startswith("The database canceled a statement (canceling statement due to statement timeout). ")
    assert "raise statement_timeout" in str(error)


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("SELECT * FROM klaviyo.members", id="read a table"),
        pytest.param("CREATE SCHEMA another", id="make a schema"),
        pytest.param("DROP TABLE klaviyo.members", id="drop a table"),
    ],
)
def test_a_missing_privilege_is_reported(database: str, reader: str, statement: str) -> None:
    """The message contains what Postgres reports."""
    error = error_of(database_at(database, user=reader, password=PASSWORD), statement)
    assert str(error).startswith("The database user lacks a privilege (permission denied")


def test_a_missing_privilege_for_the_upgrade_is_reported(database: str, reader: str) -> None:
    with (
        pytest.raises(
            DatabaseUnusable, match=r"^The database user lacks a privilege: reader may not create the schema"
        ),
        database_at(database, user=reader, password=PASSWORD).transaction() as connection,
    ):
        schema.upgrade(connection, "another")


def test_a_connection_that_is_cut_may_come_back(database: str) -> None:
    """That is how a restart of the database looks."""
    with pytest.raises(DatabaseAway), database_at(database).transaction() as connection:
        end_session(database, connection)
        connection.execute("SELECT 1")


def test_a_connection_that_ends_in_between_is_reported_as_lost(database: str) -> None:
    """DATABASE_URL is right: the database was reached."""
    with (
        pytest.raises(DatabaseAway) as caught,
        database_at(database).transaction() as connection,
        half_open(connection),
    ):
        connection.execute("SELECT 1")
    assert str(caught.value).startswith("The connection to the database was lost (")
    assert str(caught.value).endswith("). Rerun to resume.")


def test_a_lost_connection_leaves_the_pool_without_a_word(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Runs bridge it: it is no error of theirs. The next transaction gets another connection."""
    pool = Database(create_engine(url_of(database).render_as_string(), SCHEMA))
    with pytest.raises(DatabaseAway), pool.transaction() as connection:
        end_session(database, connection)
        connection.execute("SELECT 1")
    assert [each.name for each in caplog.records if each.name.startswith("sqlalchemy")] == []
    with pool.transaction() as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    pool.close()


@pytest.fixture
def driver_log() -> Iterator[logging.Logger]:
    """The log of the driver, at its own level."""
    log = logging.getLogger("psycopg")
    before = log.level
    log.setLevel(logging.WARNING)
    yield log
    log.setLevel(before)


def test_a_command_that_loses_its_connections_prints_one_line(
    database: str,
    driver_log: logging.Logger,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where one of them notices it when its transaction is rolled back."""

    def command() -> int:
        with connect(url_of(database).render_as_string(), SCHEMA) as connection, connection.transaction():
            end_session(database, connection)
            raise DatabaseAway("Another connection was lost.")

    with pytest.raises(SystemExit):
        terminal.run(command)
    assert capsys.readouterr().err == "Another connection was lost.\n"
    assert caplog.records == []


def test_a_run_that_loses_a_connection_logs_nothing_of_the_driver(
    driver_log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    logs.quiet()
    driver_log.warning("error ignored in rollback")
    assert caplog.records == []


def test_a_lock_that_is_held_too_long_may_be_released(database: str) -> None:
    """A lock timeout is retried, like a deadlock."""
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE klaviyo.members")
        error = error_of(database_at(database, options="-c lock_timeout=50ms"), "SELECT * FROM klaviyo.members")
    assert isinstance(error, DatabaseAway)


@pytest.mark.parametrize(
    "added",
    [
        pytest.param("ADD COLUMN theirs text NOT NULL", id="a column that needs a value"),
        pytest.param("ADD CHECK (id <> 'p1')", id="a check"),
        pytest.param("ADD FOREIGN KEY (id) REFERENCES klaviyo.members (key)", id="a foreign key"),
    ],
)
def test_constraints_that_a_user_added_are_reported(database: str, added: str) -> None:
    """The message names what refuses the row, and what to do about it."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE klaviyo.members {added}")
    error = error_of(database_at(database), "INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1')")
    assert not isinstance(error, DatabaseAway)
    assert str(error).startswith(
        "A column or constraint that was added to one of this project's tables refuses a row ("
    )


def test_a_database_that_was_reached_before_is_waited_for(tmp_path: Path) -> None:
    """Any other database, and a transaction that must not wait, fails at once."""
    postgres = StoppablePostgres(tmp_path)
    reached = database_at(postgres.url)
    with reached.transaction() as connection:
        connection.execute("SELECT 1")
    postgres.stop(signal.SIGQUIT)
    with pytest.raises(DatabaseAway), reached.transaction(waits=False):
        pass
    with pytest.raises(DatabaseAway), database_at(postgres.url).transaction():
        pass
    starting = threading.Timer(1.0, postgres.start)
    starting.start()
    with reached.transaction() as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    starting.join()
    postgres.stop()


def test_work_is_restarted_when_the_connection_is_cut(database: str) -> None:
    """The transaction that was cut is rolled back, so everything is stored once."""
    attempts: list[int] = []

    def work(connection: psycopg.Connection) -> int:
        attempts.append(connection.info.backend_pid)
        connection.execute("INSERT INTO klaviyo.members (key, id) VALUES (%s, 'p1')", [str(len(attempts))])
        if len(attempts) == 1:
            end_session(database, connection)
            connection.execute("SELECT 1")
        return len(attempts)

    assert database_at(database).patiently(work) == 2
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT key FROM klaviyo.members").fetchall() == [("2",)]


def test_work_with_another_error_is_not_restarted(database: str) -> None:
    attempts: list[int] = []

    def work(connection: psycopg.Connection) -> None:
        attempts.append(1)
        connection.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        database_at(database).patiently(work)
    assert attempts == [1]


def test_sessions_are_in_utc(database: str) -> None:
    """Days and hours are counted in UTC, whatever the time zone of the database: midnight comes back as midnight."""
    url, name = url_of(database).render_as_string(), str(conninfo_to_dict(database)["dbname"])
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(SQL("ALTER DATABASE {} SET timezone = 'Asia/Kolkata'").format(Identifier(name)))
    query, midnight = "SELECT '2026-07-01 00:00Z'::timestamptz", "2026-07-01T00:00:00+00:00"
    pool = Database(create_engine(url, SCHEMA))
    with pool.transaction() as connection:
        assert [row[0].isoformat() for row in connection.execute(query)] == [midnight]
    pool.close()
    with connect(url, SCHEMA) as connection:
        assert [row[0].isoformat() for row in connection.execute(query)] == [midnight]


@pytest.mark.parametrize(
    ("changes", "name"),
    [pytest.param({}, "klaviyo-pg", id="default"), pytest.param({"application_name": "mine"}, "mine", id="URL")],
)
def test_the_query_of_the_url_overrides_the_defaults(database: str, changes: dict[str, object], name: str) -> None:
    url = url_of(database, **changes).render_as_string()
    pool = Database(create_engine(url, SCHEMA))
    with pool.transaction() as connection:
        assert connection.info.get_parameters()["application_name"] == name
        assert connection.info.get_parameters()["connect_timeout"] == "5"
    pool.close()


@pytest.mark.parametrize("use", [connect, create_engine])
def test_a_malformed_url_is_rejected_without_showing_it(use: Any) -> None:
    with pytest.raises(BadSettings) as caught:
        use("postgresql://someone:hunter2@host:port/shop", SCHEMA)
    assert str(caught.value) == "DATABASE_URL is not a URL such as postgresql://user:password@host:5432/database."
