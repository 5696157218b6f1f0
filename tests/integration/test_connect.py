"""Errors of the database, as they are told."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr
from sqlalchemy.pool import NullPool

from klaviyo_pg.errors import DatabaseAway, DatabaseUnusable
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.connect import connect, transaction
from klaviyo_pg.settings import Settings
from tasks import edges
from tests.driver import StoppablePostgres

PASSWORD = "pa55word-of-reader"  # of a role that lives as long as its test


def engine(conninfo: str, **changes: object) -> sqlalchemy.Engine:
    """An engine without a pool, for a connection that differs by these parameters."""
    given = {**conninfo_to_dict(conninfo), "connect_timeout": "5", **changes}
    known = {name: str(value) for name, value in given.items() if value is not None}
    names = {name: known.pop(name, None) for name in ("dbname", "user", "password")}
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", names["user"], names["password"], database=names["dbname"], query=known
    )
    return sqlalchemy.create_engine(url, poolclass=NullPool)


@pytest.fixture
def reader(database: str) -> Iterator[str]:
    """A role that has a password and no privileges."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
        yield "reader"
        connection.execute("DROP ROLE reader")


@pytest.fixture
def asks_for_passwords(database: str, reader: str) -> Iterator[None]:
    """The server asks this role for its password, which it does of nobody else."""
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


def told(engine: sqlalchemy.Engine, statement: str = "SELECT 1") -> DatabaseUnusable:
    """What is told when this is done."""
    with pytest.raises(DatabaseUnusable) as caught, transaction(engine) as connection:
        connection.execute(statement)  # type: ignore[arg-type]  # of this module
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and PASSWORD not in sentence
    return caught.value


def test_a_transaction_is_committed_at_its_end(database: str) -> None:
    """What was written is there for others."""
    with transaction(engine(database)) as connection:
        connection.execute("INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1')")
    with transaction(engine(database)) as connection:
        assert connection.execute("SELECT id FROM klaviyo.members").fetchall() == [("p1",)]


def test_a_transaction_is_rolled_back_on_an_error(database: str) -> None:
    """Nothing is half written, and an error that is nobody's to mend passes as it is."""
    with pytest.raises(psycopg.errors.UniqueViolation), transaction(engine(database)) as connection:
        for _ in range(2):
            connection.execute("INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1')")
    with transaction(engine(database)) as connection:
        assert connection.execute("SELECT id FROM klaviyo.members").fetchall() == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"host": "127.0.0.1", "port": 1}, id="nobody listens"),
        pytest.param({"host": "/nowhere"}, id="no socket"),
        pytest.param({"host": "no-such-host.invalid"}, id="no such host"),
    ],
)
def test_unreachable(database: str, changes: dict[str, object]) -> None:
    """It may pass, so it is worth another try while a run is under way."""
    error = told(engine(database, password=PASSWORD, **changes))
    assert isinstance(error, DatabaseAway)
    assert str(error).startswith("No connection to the database (")


def test_no_such_database(database: str) -> None:
    """No retry will make one."""
    error = told(engine(database, dbname="nowhere", password=PASSWORD))
    assert not isinstance(error, DatabaseAway) and "nowhere" in str(error)


def test_no_such_role(database: str) -> None:
    """Nor a role."""
    error = told(engine(database, user="nobody_at_all", password=PASSWORD))
    assert not isinstance(error, DatabaseAway) and "nobody_at_all" in str(error)


def test_a_role_that_may_not_log_in(database: str, reader: str) -> None:
    """The role is there, and the door is not."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER ROLE reader NOLOGIN")
    error = told(engine(database, user=reader, password=PASSWORD))
    assert not isinstance(error, DatabaseAway) and "reader" in str(error)


@pytest.mark.parametrize("given", [None, "wrong", "wröng"])
def test_a_wrong_password(database: str, reader: str, asks_for_passwords: None, given: str | None) -> None:
    """It is the user's to mend, and trying again may lock the account."""
    error = told(engine(database, user=reader, password=given))
    assert not isinstance(error, DatabaseAway)
    assert str(error).startswith("The database refused the login (")


def test_the_right_password(database: str, reader: str, asks_for_passwords: None) -> None:
    """The same with the password that is right."""
    with transaction(engine(database, user=reader, password=PASSWORD)) as connection:
        assert connection.execute("SELECT current_user").fetchall() == [(reader,)]


def test_a_role_that_may_not_connect(database: str, reader: str) -> None:
    """A database that is closed to the role."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SQL("REVOKE CONNECT ON DATABASE {} FROM public").format(Identifier(connection.info.dbname)))
    assert not isinstance(told(engine(database, user=reader, password=PASSWORD)), DatabaseAway)


def test_a_read_only_database(database: str) -> None:
    """A standby, for instance."""
    read_only = engine(database, options="-c default_transaction_read_only=on")
    error = told(read_only, "CREATE TABLE klaviyo.x ()")
    assert str(error).startswith("The database is read-only (")
    assert str(error).endswith("): let DATABASE_URL lead to the primary, not a standby.")


def test_a_time_limit_of_the_database(database: str) -> None:
    """Hosted databases have them; no retry will be faster."""
    limited = engine(database, options="-c statement_timeout=50")
    error = told(limited, "SELECT pg_sleep(5)")
    assert not isinstance(error, DatabaseAway)
    assert str(error).startswith("The database ended a statement (canceling statement due to statement timeout): raise")


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("SELECT * FROM klaviyo.members", id="read a table"),
        pytest.param("CREATE SCHEMA another", id="make a schema"),
        pytest.param("DROP TABLE klaviyo.members", id="drop a table"),
    ],
)
def test_missing_privilege(database: str, reader: str, statement: str) -> None:
    """What the role may not do is told, as Postgres says it."""
    error = told(engine(database, user=reader, password=PASSWORD), statement)
    assert str(error).startswith("The database user may not do this (permission denied")


def test_missing_privilege_to_upgrade(database: str, reader: str) -> None:
    """The first thing that a run does to a database is told like everything else."""
    with (
        pytest.raises(DatabaseUnusable, match=r"^The database user may not do this \(permission denied .*\.$"),
        transaction(engine(database, user=reader, password=PASSWORD)) as connection,
    ):
        schema.upgrade(connection, "another")


def test_a_connection_that_is_cut_may_come_back(database: str) -> None:
    """A database that restarts is worth waiting for."""
    with pytest.raises(DatabaseAway), transaction(engine(database)) as connection:
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.execute("SELECT 1")


def test_a_lock_that_is_held_too_long_may_be_released(database: str) -> None:
    """As a deadlock, it is worth another try."""
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE klaviyo.members")
        error = told(engine(database, options="-c lock_timeout=50ms"), "SELECT * FROM klaviyo.members")
    assert isinstance(error, DatabaseAway)


@pytest.mark.parametrize(
    "added",
    [
        pytest.param("ADD COLUMN theirs text NOT NULL", id="a column that wants a value"),
        pytest.param("ADD CHECK (id <> 'p1')", id="a check"),
        pytest.param("ADD FOREIGN KEY (id) REFERENCES klaviyo.members (key)", id="a foreign key"),
    ],
)
def test_what_a_user_added_to_a_table(database: str, added: str) -> None:
    """What refuses our rows is named, and what to do about it."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE klaviyo.members {added}")  # type: ignore[arg-type]  # of this module
    error = told(engine(database), "INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1')")
    assert not isinstance(error, DatabaseAway)
    assert str(error).startswith("A column or constraint that was added to one of the project's tables refuses its row")


def test_a_database_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    """One that has been reached before; another one, and a transaction that may not wait, is told of at once."""
    postgres = StoppablePostgres(tmp_path)
    known = engine(postgres.url)
    with transaction(known) as connection:
        connection.execute("SELECT 1")
    postgres.stop(signal.SIGQUIT)
    with pytest.raises(DatabaseAway), transaction(known, waits=False):
        pass
    with pytest.raises(DatabaseAway), transaction(engine(postgres.url)):
        pass
    back = threading.Timer(1.0, postgres.start)
    back.start()
    with transaction(known) as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    back.join()
    postgres.stop()


def test_sessions_tell_times_in_utc(database: str) -> None:
    """Days and hours are UTC's, whatever zone the database has: a midnight read back is a midnight."""
    parts = conninfo_to_dict(database)
    url = f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(SQL("ALTER DATABASE {} SET timezone = 'Asia/Kolkata'").format(Identifier(str(parts["dbname"]))))
    query, midnight = "SELECT '2026-07-01 00:00Z'::timestamptz", "2026-07-01T00:00:00+00:00"
    with transaction(edges.engine(Settings(database_url=SecretStr(url)))) as connection:
        assert [row[0].isoformat() for row in connection.execute(query)] == [midnight]
    edges.engine(Settings(database_url=SecretStr(url))).dispose()
    with connect(url) as connection:
        assert [row[0].isoformat() for row in connection.execute(query)] == [midnight]
