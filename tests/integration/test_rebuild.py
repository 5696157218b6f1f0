"""Warehouses of an earlier version, whose large tables have the primary key (key): refused by runs, and upgraded."""

import argparse
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import events, loads, membership
from klaviyo_pg.cli import upgrade as upgrading
from klaviyo_pg.cli.upgrade import upgrade as command
from klaviyo_pg.errors import Busy, DatabaseUnusable
from klaviyo_pg.postgres import rebuild, schema
from klaviyo_pg.postgres.patience import Patience
from klaviyo_pg.postgres.schema import Storage
from klaviyo_pg.postgres.schema_changes import SchemaChange
from tests.driver import wait_until
from tests.merging import counts
from tests.runs import url_of

SCHEMA = "klaviyo"
OPENS = loads.EVENTS["opens"]
PLAIN = argparse.Namespace(plan=False)
INDEX = "opens_campaign_key_idx"
REBUILT = (*events.EVENT_TABLES, membership.MEMBER_CONSENTS)
CONSTRAINTS = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'opens'::regclass AND contype = 'c'"
# An expression of an index that waits at the last row, while another session holds the advisory lock 7.
WAITS_AT_LAST_ROW = """
CREATE FUNCTION waits_at_z(id text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    IF id = 'z' THEN PERFORM pg_advisory_xact_lock(7); END IF;
    RETURN id;
END $$
"""


def consent(channel: str, **values: object) -> dict[str, object]:
    """Return a consent of the person P1."""
    return {"member_id": "P1", "channel": channel, "key": channel, **values}


@pytest.fixture
def old(connection: psycopg.Connection, database: str, merged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warehouse of the version before, with two rows, which commands find in DATABASE_URL."""
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    merged(OPENS, {"key": "a", "id": "a"}, {"key": "b", "id": "b"})
    merged(loads.MEMBER_CONSENTS, consent("email"), consent("sms"))
    for table in REBUILT:
        nullable = ", ".join(f"ALTER {name} DROP NOT NULL" for name in table.primary_key if name != "key")
        for change in (f"DROP CONSTRAINT {table.name}_pkey, ADD PRIMARY KEY (key)", nullable):
            connection.execute(f"ALTER TABLE {table.name} {change}")


def index_of(connection: psycopg.Connection, name: str) -> object:
    """Return what identifies an index under any name."""
    return connection.execute("SELECT to_regclass(%s)::oid", [f"klaviyo.{name}"]).fetchone()


def outdated(connection: psycopg.Connection) -> list[str]:
    return [table.name for table in schema.outdated_keys(connection, SCHEMA)]


def test_a_run_refuses_a_warehouse_with_the_earlier_primary_key(old: None, connection: psycopg.Connection) -> None:
    """It names the command that rebuilds it, and changes nothing."""
    with pytest.raises(
        DatabaseUnusable, match=r"earlier version \(sends, .+, member_consents\)\. Run klaviyo-pg upgrade once"
    ):
        schema.upgrade(connection, SCHEMA)
    assert outdated(connection) == [table.name for table in REBUILT]


def test_upgrade_says_first_what_it_takes(
    old: None, connection: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(argparse.Namespace(plan=True)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[2].startswith("opens: primary key, about ") and lines[2].endswith("until the index is built")
    assert "opens" in outdated(connection)


@pytest.mark.parametrize("plan", [True, False])
def test_upgrade_refuses_partitions_before_it_rebuilds(
    old: None, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, plan: bool
) -> None:
    monkeypatch.setenv("EVENT_PARTITIONS", "month")
    before = outdated(connection)
    with pytest.raises(DatabaseUnusable, match="EVENT_PARTITIONS=month applies to new warehouses only"):
        command(argparse.Namespace(plan=plan))
    assert outdated(connection) == before


def test_upgrade_rebuilds_primary_keys(old: None, connection: psycopg.Connection, merged: Any) -> None:
    """Rows stay, and loading works as before. Another upgrade finds nothing to do."""
    for _ in range(2):
        assert command(PLAIN) == 0
        assert outdated(connection) == []
    assert connection.execute(CONSTRAINTS).fetchone() == (0,)
    assert counts(merged(OPENS, {"key": "a", "id": "a"}, {"key": "c", "id": "c"})) == (2, 1, 0, 1)
    changed = merged(loads.MEMBER_CONSENTS, consent("email"), consent("sms", consent="SUBSCRIBED"), consent("push"))
    assert counts(changed) == (3, 1, 1, 1)


def test_an_unfinished_index_is_built_again(old: None, connection: psycopg.Connection) -> None:
    """That is what an upgrade leaves that was killed while it built an index. A finished one is used."""
    connection.execute("CREATE UNIQUE INDEX opens_event_at_key_new ON opens (event_at, key)")
    connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'klaviyo.opens_event_at_key_new'::regclass"
    )
    connection.execute("CREATE UNIQUE INDEX sends_event_at_key_new ON sends (event_at, key)")
    connection.execute("ALTER TABLE sends ADD CONSTRAINT sends_event_at_present CHECK (event_at IS NOT NULL) NOT VALID")
    before = {table: index_of(connection, f"{table}_event_at_key_new") for table in ("opens", "sends")}
    assert command(PLAIN) == 0
    assert outdated(connection) == []
    assert index_of(connection, "sends_pkey") == before["sends"]
    assert index_of(connection, "opens_pkey") != before["opens"]


def test_the_swap_waits_for_others_without_blocking_them(
    old: None, connection: psycopg.Connection, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up its place in the queue, so that others can read the table, and tries again."""
    monkeypatch.setattr(rebuild, "_PATIENCE", Patience("20ms", 0.01, 100))
    reader, tries = connect(), threading.Event()

    def report(sentence: str) -> None:
        assert sentence == "The table opens is in use; trying again"
        tries.set()
        reader.execute("COMMIT")

    connection.execute("CREATE UNIQUE INDEX opens_event_at_key_new ON opens (event_at, key)")
    reader.execute("BEGIN")
    reader.execute("SELECT FROM opens")
    rebuild.rebuild_key(connection, SCHEMA, events.OPENS, report)
    assert tries.is_set()
    assert "opens" not in outdated(connection)


def test_two_upgrades_do_not_work_at_the_same_time(old: None, connection: psycopg.Connection, connect: Any) -> None:
    with rebuild.exclusively(connect()), pytest.raises(Busy, match="Another upgrade"):
        command(PLAIN)


def test_upgrade_builds_the_indexes_of_the_settings(
    connection: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run would build them too, and loading would wait for it: so they exist before the rest is upgraded."""
    upgraded = []

    def upgrade(*arguments: object) -> list[SchemaChange]:
        upgraded.append(index_of(connection, INDEX))
        return []

    monkeypatch.setattr(schema, "upgrade", upgrade)
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    monkeypatch.setenv("EVENT_INDEXES", "campaign,member")
    assert len(rebuild.missing_indexes(connection, SCHEMA, Storage(indexes=("campaign", "member")))) == 14
    assert command(PLAIN) == 0
    assert upgraded == [index_of(connection, INDEX)] != [(None,)]
    indexes = connection.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'opens' ORDER BY 1").fetchall()
    assert [name for (name,) in indexes] == [
        "opens_campaign_key_idx",
        "opens_member_key_idx",
        "opens_metric_key_event_at_idx",
        "opens_pkey",
    ]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@contextmanager
def half_built(
    connection: psycopg.Connection, connect: Any, merged: Any, executor: ThreadPoolExecutor
) -> Iterator[int]:
    """Let another session build an index that stops at the last row of the table, and return the session's process."""
    merged(OPENS, *({"key": f"{number:04}", "id": "a"} for number in range(500)))
    merged(OPENS, {"key": "z", "id": "z"})
    connection.execute(WAITS_AT_LAST_ROW)
    builder = connect()
    connection.execute("SELECT pg_advisory_lock(7)")
    built = executor.submit(builder.execute, "CREATE INDEX ON opens (waits_at_z(id))")
    try:
        yield builder.info.backend_pid
    finally:
        connection.execute("SELECT pg_advisory_unlock(7)")
        built.result()


def test_the_progress_of_an_index_is_shown(
    connection: psycopg.Connection,
    connect: Any,
    merged: Any,
    executor: ThreadPoolExecutor,
    capsys: pytest.CaptureFixture[str],
) -> None:
    looks = iter([False, True])
    with half_built(connection, connect, merged, executor) as pid:
        wait_until(lambda: has_built(connection, pid), "the index is built in part")
        upgrading._print_progress(connection, pid, "opens", lambda seconds: next(looks))
    assert re.fullmatch(r"opens: \d\d?%, about 0:00:\d\d left\n", capsys.readouterr().out)
    assert rebuild.progress(connection, pid) is None


def has_built(connection: psycopg.Connection, pid: int) -> bool:
    progress = rebuild.progress(connection, pid)
    return progress is not None and progress.share > 0


def test_a_build_that_waits_for_a_transaction_names_its_session(
    connection: psycopg.Connection, connect: Any, executor: ThreadPoolExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    writer, builder, looks = connect(), connect(), iter([False, True])
    writer.execute("BEGIN")
    writer.execute("LOCK TABLE opens IN ROW EXCLUSIVE MODE")
    built = executor.submit(builder.execute, "CREATE INDEX CONCURRENTLY ON opens (id)")
    pid = builder.info.backend_pid
    wait_until(lambda: (rebuild.progress(connection, pid) or (0, 0))[1], "the index waits for the writer")
    upgrading._print_progress(connection, pid, "opens", lambda seconds: next(looks))
    writer.execute("COMMIT")
    built.result()
    waiting = f"opens: waiting until the session pid {writer.info.backend_pid} ends its transaction\n"
    assert capsys.readouterr().out == waiting


def building(connection: psycopg.Connection) -> list[Any]:
    """Return the process IDs of the sessions that build an index."""
    return connection.execute("SELECT pid FROM pg_stat_progress_create_index").fetchall()


@pytest.fixture
def _keeps_handlers() -> Iterator[None]:
    """Restore the handlers of signals. Until a command sets others, SIGTERM ends it at once, without cleaning up."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, lambda number, frame: pytest.fail("The command ended at once"))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_keeps_handlers")
def test_a_command_that_is_stopped_stops_building(
    connection: psycopg.Connection,
    connect: Any,
    database: str,
    executor: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the database would finish the index, and refuse another upgrade until then."""
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    monkeypatch.setenv("EVENT_INDEXES", "campaign")
    writer = connect()
    writer.execute("BEGIN")
    writer.execute("LOCK TABLE opens IN ROW EXCLUSIVE MODE")

    def stop() -> None:
        wait_until(lambda: building(connection), "the command builds an index")
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = executor.submit(stop)
    with pytest.raises(KeyboardInterrupt):
        command(PLAIN)
    stopping.result()
    assert building(connection) == []
    writer.execute("COMMIT")
    assert command(PLAIN) == 0
    assert index_of(connection, INDEX) != (None,)


def test_progress_that_cannot_be_read_is_left_out(connect: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The index is built all the same."""
    lost = connect()
    lost.close()
    upgrading._print_progress(lost, 1, "opens", lambda seconds: False)
    assert capsys.readouterr() == ("", "")
