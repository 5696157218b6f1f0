"""Upgrades of tables that other sessions use: they let others pass, try again, and give up after some minutes."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from klaviyo_pg.errors import TablesInUse
from klaviyo_pg.postgres import schema, schema_lock
from klaviyo_pg.postgres.patience import Patience
from klaviyo_pg.postgres.schema import PLAIN
from tests.driver import wait_until
from tests.integration.conftest import SCHEMA, Connect
from tests.integration.pipeline.conftest import LOG, Warehouse


@pytest.fixture(autouse=True)
def _is_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_lock, "PATIENCE", Patience("20ms", 0.01, 3))


@pytest.fixture
def reader(connection: psycopg.Connection, connect: Connect) -> psycopg.Connection:
    """Return a session that uses a table, in a warehouse of an earlier version, in which this table lacks a column."""
    connection.execute("ALTER TABLE members DROP COLUMN city CASCADE")
    reader = connect()
    reader.execute("BEGIN")
    reader.execute("SELECT FROM members")
    return reader


@pytest.fixture
def on_warning() -> Iterator[Callable[[Callable[[str], object]], None]]:
    """Return a function that passes each warning of a run to another function."""
    handlers: list[logging.Handler] = []

    def on_warning(react: Callable[[str], object]) -> None:
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: react(record.getMessage())  # type: ignore[method-assign,assignment]
        handlers.append(handler)
        LOG.addHandler(handler)

    yield on_warning
    for handler in handlers:
        LOG.removeHandler(handler)


def has_city(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT FROM pg_attribute WHERE attrelid = 'members'::regclass AND attname = 'city'")
    return row.fetchone() is not None


def test_an_upgrade_names_the_sessions_that_use_tables(
    reader: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """It changes nothing, also if its transaction is committed, and keeps no lock and no limit."""
    with connection.transaction():
        with pytest.raises(TablesInUse, match=rf"\(pid {reader.info.backend_pid}: members\)\. End them, then rerun"):
            schema.upgrade(connection, SCHEMA)
        assert not has_city(connection)
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
        reader.execute("LOCK TABLE members, opens IN ACCESS SHARE MODE")


def test_an_upgrade_that_deadlocks_tries_again(
    reader: psycopg.Connection, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres detects a deadlock sooner than the upgrade ends its wait for a lock, and cancels one of the two."""
    monkeypatch.setattr(schema_lock, "PATIENCE", Patience("20s", 0.01, 3))
    connection.execute("ALTER TABLE integrations DROP COLUMN salt_digest CASCADE")
    connection.execute("SET deadlock_timeout = '500ms'")
    reader.execute("SET deadlock_timeout = '20s'")
    reports = []

    def report(sentence: str) -> None:
        reports.append(sentence)
        used.result()
        reader.execute("COMMIT")

    def use_another_table() -> None:
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'members'::regclass"
        wait_until(lambda: reader.execute(waiting).rowcount, "the upgrade waits for the reader")
        reader.execute("SELECT FROM integrations")

    with ThreadPoolExecutor(1) as executor:
        used = executor.submit(use_another_table)
        schema.upgrade_patiently(connection, SCHEMA, PLAIN, report)
    assert len(reports) == 1
    assert has_city(connection)


def test_an_upgrade_tries_again(reader: psycopg.Connection, connection: psycopg.Connection) -> None:
    reports = []

    def report(sentence: str) -> None:
        reports.append(sentence)
        reader.execute("COMMIT")

    schema.upgrade_patiently(connection, SCHEMA, PLAIN, report)
    assert reports == [
        f"Other sessions use tables of the warehouse (pid {reader.info.backend_pid}: members); trying again"
    ]
    assert has_city(connection)


def test_an_upgrade_gives_up(reader: psycopg.Connection, connection: psycopg.Connection) -> None:
    reports: list[str] = []
    with pytest.raises(TablesInUse):
        schema.upgrade_patiently(connection, SCHEMA, PLAIN, reports.append)
    assert len(reports) == 2


def test_a_run_waits_for_others_without_blocking_them(
    reader: psycopg.Connection,
    connection: psycopg.Connection,
    warehouse: Warehouse,
    on_warning: Callable[[Callable[[str], object]], None],
) -> None:
    """While it pauses, others can read the table. It logs that it tries again."""
    warnings = []

    def react(message: str) -> None:
        warnings.append(message)
        connection.execute("SELECT FROM members")
        reader.execute("COMMIT")

    on_warning(react)
    warehouse.daily("lists")
    assert [message.endswith("members); trying again") for message in warnings] == [True]
    assert has_city(connection)


def test_a_run_does_not_begin_while_others_use_a_table(
    reader: psycopg.Connection, connection: psycopg.Connection, warehouse: Warehouse
) -> None:
    with pytest.raises(TablesInUse, match="End them, then rerun to resume"):
        warehouse.daily("lists")
    assert connection.execute("SELECT FROM runs").fetchall() == []
