"""Internal tables of an earlier version, which has all tables in one schema: an upgrade moves them."""

import argparse
import re
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

from klaviyo_pg.catalogue import TABLES
from klaviyo_pg.cli.status import status
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import accounts, schema
from tests.driver import ROOT
from tests.integration.conftest import SCHEMA
from tests.runs import url_of

INTERNAL = [table for table in TABLES if table.internal]
_TABLES_OF = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'"
_CATALOG = "SELECT oid, xmin::text FROM pg_class UNION ALL SELECT oid, xmin::text FROM pg_proc"
_FUNCTIONS = """
SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'klaviyo'::regnamespace AND proname LIKE 'touched%'
"""


def rolled_back() -> str:
    """Return the statement of the documentation that puts all tables into one schema."""
    [_, statement] = re.findall(
        r"^ *DO \$\$.*?\$\$;$", (ROOT / "docs" / "upgrade.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return str(statement)


@pytest.fixture
def earlier(connection: psycopg.Connection) -> None:
    """A warehouse in which all tables are in one schema, with a row, a grant and triggers."""
    connection.execute(rolled_back())
    connection.execute("DROP SCHEMA klaviyo_internal")
    for name, body in connection.execute(_FUNCTIONS).fetchall():
        function, earlier_body = Identifier("klaviyo", name), Literal(body.replace('"klaviyo_internal"', '"klaviyo"'))
        create = SQL("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS {}")
        connection.execute(create.format(function, earlier_body))
    connection.execute("INSERT INTO chunks VALUES ('run', 'one', 'profiles', '..', 'planned', NULL)")
    connection.execute("INSERT INTO list_names VALUES ('one', 'L1', 'News', NULL, NULL, now())")
    connection.execute("GRANT SELECT ON chunks TO PUBLIC")


def tables_of(connection: psycopg.Connection, name: str) -> set[str]:
    return {table for (table,) in connection.execute(_TABLES_OF, [name])}


def upgrade(connection: psycopg.Connection) -> None:
    with connection.transaction():
        schema.upgrade(connection, SCHEMA)


def test_internal_tables_are_moved_with_everything_they_have(earlier: None, connection: psycopg.Connection) -> None:
    """Rows, grants and indexes. Another upgrade changes nothing."""
    assert tables_of(connection, "klaviyo") == {table.name for table in TABLES}
    upgrade(connection)
    assert tables_of(connection, "klaviyo_internal") == {table.name for table in INTERNAL}
    assert tables_of(connection, "klaviyo") == {table.name for table in TABLES if not table.internal}
    rows = connection.execute("SELECT run_id, has_table_privilege('public', tableoid, 'SELECT') FROM chunks").fetchall()
    indexes = connection.execute(
        "SELECT schemaname FROM pg_indexes WHERE indexname IN ('chunks_pkey', 'list_names_pkey')"
    ).fetchall()
    assert (rows, indexes) == ([("run", True)], [("klaviyo_internal",)] * 2)
    before = set(connection.execute(_CATALOG).fetchall())
    upgrade(connection)
    assert set(connection.execute(_CATALOG).fetchall()) == before


def test_triggers_record_changes_in_the_table_that_was_moved(earlier: None, connection: psycopg.Connection) -> None:
    """Those of tables that were moved as well as those of others. What they recorded before is kept."""
    before = connection.execute("SELECT kind, row_key FROM touched").fetchall()
    upgrade(connection)
    connection.execute("INSERT INTO list_names VALUES ('one', 'L2', 'Offers', NULL, NULL, now())")
    connection.execute("INSERT INTO members (key, id, esp_integration_id) VALUES ('k', 'P1', 'one')")
    after = connection.execute("SELECT kind, row_key FROM klaviyo_internal.touched ORDER BY 2").fetchall()
    assert (before, after) == ([("list", "L1")], [("list", "L1"), ("list", "L2"), ("member", "P1")])


def test_views_read_the_tables_that_were_moved(earlier: None, connection: psycopg.Connection) -> None:
    upgrade(connection)
    connection.execute("INSERT INTO watermarks VALUES ('one', 'profiles', now(), NULL, NULL, 'members')")
    accounts.register(connection, SCHEMA, "shop", None)
    connection.execute("UPDATE integrations SET esp_integration_id = 'one'")
    assert connection.execute("SELECT integration, stream FROM freshness").fetchall() == [("shop", "profiles")]


def test_a_table_in_both_schemas_is_reported_and_none_is_moved(earlier: None, connection: psycopg.Connection) -> None:
    """A run of an earlier version creates it again. Which rows to keep is for the owner to decide."""
    connection.execute("CREATE SCHEMA klaviyo_internal; CREATE TABLE klaviyo_internal.rate_limits (endpoint text)")
    before = tables_of(connection, "klaviyo")
    with pytest.raises(DatabaseUnusable) as caught:
        upgrade(connection)
    assert str(caught.value) == (
        "The table rate_limits is in the schema klaviyo as well as in klaviyo_internal, whose rows are used. Rename or "
        "drop klaviyo.rate_limits; a run of an earlier version may have created it."
    )
    assert tables_of(connection, "klaviyo") == before
    connection.execute("DROP TABLE klaviyo.rate_limits, klaviyo_internal.rate_limits")
    upgrade(connection)
    assert "rate_limits" in tables_of(connection, "klaviyo_internal")


@pytest.fixture
def loader(earlier: None, connection: psycopg.Connection, database: str) -> Iterator[psycopg.Connection]:
    """Return the connection of a role that owns the warehouse and may not create schemas."""
    connection.execute("CREATE ROLE loader LOGIN")
    for kind, of_kind in (("r", "TABLE"), ("v", "VIEW")):
        relations = "SELECT relname FROM pg_class WHERE relnamespace = 'klaviyo'::regnamespace AND relkind = %s"
        for (name,) in connection.execute(relations, [kind]).fetchall():
            statement = SQL("ALTER {} {} OWNER TO loader").format(SQL(of_kind), Identifier("klaviyo", name))
            connection.execute(statement)
    for name, _ in connection.execute(_FUNCTIONS).fetchall():
        connection.execute(SQL("ALTER FUNCTION {} OWNER TO loader").format(Identifier("klaviyo", name)))
    connection.execute("ALTER SCHEMA klaviyo OWNER TO loader")
    parts = conninfo_to_dict(database)
    with psycopg.connect(user="loader", dbname=parts["dbname"], host=parts["host"], autocommit=True) as owner:
        yield owner
    connection.execute("DROP OWNED BY loader CASCADE; DROP ROLE loader")


def test_a_role_that_may_not_create_schemas_gets_the_statement_for_an_administrator(
    loader: psycopg.Connection, connection: psycopg.Connection
) -> None:
    """Once an administrator has run it, the upgrade succeeds."""
    with pytest.raises(DatabaseUnusable) as caught:
        upgrade(loader)
    message, statement = str(caught.value).split(" Have an administrator of the database run ")
    assert message == "The database user lacks a privilege: loader may not create the schema klaviyo_internal."
    assert statement == 'CREATE SCHEMA "klaviyo_internal" AUTHORIZATION "loader";'
    connection.execute(statement)
    upgrade(loader)
    assert tables_of(connection, "klaviyo_internal") == {table.name for table in INTERNAL}


def test_a_command_that_only_reads_names_the_command_that_upgrades(
    earlier: None, connection: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.register(connection, SCHEMA, "shop", None)
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    with pytest.raises(DatabaseUnusable, match=r"created by an earlier version\. Run klaviyo-pg upgrade first\.$"):
        status(argparse.Namespace(coverage=None, integration=None, json=False, max_age=None, rows=False))


def test_a_command_that_only_reads_does_so_too_where_a_column_is_missing(
    connection: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.register(connection, SCHEMA, "shop", None)
    connection.execute("ALTER TABLE backfill_chunks DROP COLUMN planned_by")
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    with pytest.raises(DatabaseUnusable, match=r"created by an earlier version\. Run klaviyo-pg upgrade first\.$"):
        status(argparse.Namespace(coverage=None, integration=None, json=False, max_age=None, rows=False))
    upgrade(connection)
    assert status(argparse.Namespace(coverage=None, integration=None, json=False, max_age=None, rows=False)) == 0
