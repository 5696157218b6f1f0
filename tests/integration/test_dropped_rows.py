"""Objects that others added to the tables and that keep rows from being stored: no row is lost without an error."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from klaviyo_pg.catalogue import loads
from klaviyo_pg.errors import DatabaseAway, DatabaseUnusable
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import Database, create_engine
from klaviyo_pg.postgres.event_tables import move_events
from tests.fakes import FakeAccount
from tests.integration.conftest import SCHEMA
from tests.integration.pipeline.conftest import Warehouse, shop, warehouse
from tests.runs import url_of

__all__ = ["shop", "warehouse"]

TRIGGER = """
CREATE FUNCTION klaviyo.ignore() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER archive BEFORE {} ON klaviyo.{} FOR EACH ROW EXECUTE FUNCTION klaviyo.ignore()
"""
OPENS = loads.EVENTS["opens"]


def row(key: str, **others: object) -> dict[str, object]:
    return {"key": key, "id": key, **others}


def lost(stored: int, written: int, table: str, cause: str = "trigger archive") -> str:
    """Return the sentence about rows that were not stored."""
    return (
        f"klaviyo.{table} stored only {stored} of {written} rows, and the database reported no error. The likely cause "
        f"is the {cause}. Drop or change it, then rerun to resume."
    )


@pytest.mark.parametrize("load", [OPENS, loads.MEMBERS], ids=["copied", "merged"])
def test_inserts_that_a_trigger_suppresses_are_an_error(connection: psycopg.Connection, merged: Any, load: Any) -> None:
    connection.execute(TRIGGER.format("INSERT", load.table.name))
    with pytest.raises(DatabaseUnusable) as caught:
        merged(load, row("a"), row("b"))
    assert str(caught.value) == lost(0, 2, load.table.name)


@pytest.mark.parametrize("load", [OPENS, loads.MEMBERS], ids=["events", "members"])
def test_updates_that_a_trigger_suppresses_are_an_error(connection: psycopg.Connection, merged: Any, load: Any) -> None:
    merged(load, row("a", email="1"), row("b", email="1"))
    connection.execute(TRIGGER.format("UPDATE", load.table.name))
    with pytest.raises(DatabaseUnusable) as caught:
        merged(load, row("a", email="2"), row("b", email="1"), row("c", email="1"))
    assert str(caught.value) == lost(1, 2, load.table.name)


@pytest.mark.parametrize("load", [loads.MEMBER_EXCLUSIONS, loads.STG_MEMBER_EXCLUSIONS], ids=["marked", "deleted"])
def test_rows_that_cannot_be_retired_are_an_error(connection: psycopg.Connection, merged: Any, load: Any) -> None:
    """A row that Klaviyo no longer returns is deleted or marked, depending on the table."""
    key = load.table.primary_key[0]
    merged(load, {key: "a"}, {key: "b"})
    connection.execute(TRIGGER.format("DELETE OR UPDATE", load.table.name))
    with pytest.raises(DatabaseUnusable) as caught:
        merged(load, {key: "a"})
    assert str(caught.value) == lost(0, 1, load.table.name)


def test_events_that_would_be_lost_in_a_move_are_an_error(
    connection: psycopg.Connection, account: Account, merged: Any
) -> None:
    merged(loads.EVENTS["events"], row("a", metric_key="m"))
    connection.execute("UPDATE events SET metric_key = md5('Klaviyo:one:m')")
    connection.execute(TRIGGER.format("INSERT", "opens"))
    with pytest.raises(DatabaseUnusable) as caught, connection.transaction():
        move_events(account, "m", "events", "opens")
    assert str(caught.value) == lost(0, 1, "opens")
    assert connection.execute("SELECT key FROM events").fetchall() == [("a",)]


def test_a_run_that_loses_rows_fails(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Nothing of the batch is stored, and the run reports which table lost rows, and why."""
    warehouse.execute(TRIGGER.format("INSERT", "opens"))
    ran = warehouse.daily()
    assert (ran.state, ran.exit_code) == ("failed", 2)
    assert ran.sentences[0].startswith("klaviyo.opens stored only 0 of ")
    assert "opens" not in ran.counts
    assert not any(stream.startswith("events/OPEN") for stream in warehouse.watermarks())
    warehouse.execute("DROP TRIGGER archive ON opens")
    assert warehouse.daily().state == "complete"
    assert len(warehouse.event_ids()) == len(shop.events)


@pytest.fixture
def loader(database: str) -> Iterator[str]:
    """Return the URL of a role that may use all tables but owns none."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE loader LOGIN; GRANT USAGE ON SCHEMA klaviyo TO loader")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA klaviyo TO loader")
        parts = conninfo_to_dict(database)
        yield f"postgresql://loader@/{parts['dbname']}?host={parts['host']}"
        connection.execute("DROP OWNED BY loader; DROP ROLE loader")


def error_of(url: str, statement: str) -> DatabaseUnusable:
    """Return the error that a statement raises in a session of the project."""
    pool = Database(create_engine(url, SCHEMA))
    with pytest.raises(DatabaseUnusable) as caught, pool.transaction() as connection:
        connection.execute(statement)
    pool.close()
    assert not isinstance(caught.value, DatabaseAway)
    return caught.value


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("SELECT * FROM klaviyo.members", id="read"),
        pytest.param("COPY klaviyo.members FROM STDIN", id="copy"),
        pytest.param("INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1')", id="insert"),
        pytest.param("DELETE FROM klaviyo.members", id="delete"),
    ],
)
def test_row_level_security_is_reported(database: str, loader: str, statement: str) -> None:
    """It would hide rows silently, so that the loader would not find what is stored."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE klaviyo.members ENABLE ROW LEVEL SECURITY")
        connection.execute("CREATE POLICY others ON klaviyo.members USING (id <> 'p1')")
    assert str(error_of(loader, statement)) == (
        "Row-level security on a table would hide rows from the database user (query would be affected by row-level "
        'security policy for table "members"). Make the user the table\'s owner, give it BYPASSRLS, or drop the '
        "policies."
    )


def test_a_publication_without_replica_identity_is_reported(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE PUBLICATION all_changes FOR TABLE klaviyo.members")
        connection.execute("ALTER TABLE klaviyo.members REPLICA IDENTITY NOTHING")
    assert str(error_of(url_of(database), "UPDATE klaviyo.members SET id = 'p2'")) == (
        'A table is in a publication but has no replica identity (cannot update table "members" because it does not '
        "have a replica identity and publishes updates). Run ALTER TABLE ... REPLICA IDENTITY DEFAULT, or take the "
        "table out of the publication."
    )


@pytest.mark.parametrize(
    ("added", "sentence"),
    [
        pytest.param(
            "CREATE RULE archive AS ON INSERT TO klaviyo.members DO INSTEAD NOTHING",
            "An object in the database does not allow what this project does with its tables (",
            id="rule",
        ),
        pytest.param(
            "CREATE FUNCTION klaviyo.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;"
            "CREATE TRIGGER t BEFORE INSERT ON klaviyo.members FOR EACH ROW EXECUTE FUNCTION klaviyo.f()",
            "Code in the database, such as a trigger, refused what this project does with its tables (not now). ",
            id="trigger",
        ),
    ],
)
def test_code_that_refuses_a_row_is_reported(database: str, added: str, sentence: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(added)
    insert = "WITH new AS (INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1') RETURNING 1) SELECT FROM new"
    assert str(error_of(url_of(database), insert)).startswith(sentence)
