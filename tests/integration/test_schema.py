"""Upgrading a warehouse to the catalogue."""

import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.sql import SQL, Composed

from klaviyo_pg import __version__, schemas
from klaviyo_pg.catalogue import TABLES, VIEWS, Table, View
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.schema import Place, Storage
from klaviyo_pg.postgres.statements import place
from klaviyo_pg.postgres.views import marts
from tests.source import ROOT

CATALOGUE: tuple[Table | View, ...] = (*TABLES, *VIEWS)
_COLUMNS = """
    SELECT table_schema, table_name, array_agg(column_name::text ORDER BY ordinal_position)
    FROM information_schema.columns WHERE table_schema = ANY(%s) GROUP BY 1, 2
"""


def upgrade(database: str, name: str = "klaviyo") -> None:
    with psycopg.connect(database) as connection:
        schema.upgrade(connection, name)


def columns(database: str, name: str = "klaviyo") -> dict[Place, list[str]]:
    """Return the columns of each table and view in the schemas of a warehouse."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(_COLUMNS, [schemas.both(name)]).fetchall()
    return {(found_in, table): found for found_in, table, found in rows}


def expected(name: str = "klaviyo") -> dict[Place, list[str]]:
    """Return the columns of each table and view of the catalogue, in its schema."""
    return {place(name, each): [column.name for column in each.columns] for each in CATALOGUE}


EXPECTED = expected()


@pytest.mark.parametrize("name", ["klaviyo", 'a "quoted" one', "it's", "%s {}", "Ünïcode"])
def test_an_empty_database_gets_everything(empty_database: str, name: str) -> None:
    """The schema can have any name. Upgrading again changes nothing."""
    for _ in range(2):
        upgrade(empty_database, name)
        assert columns(empty_database, name) == expected(name)


def comments(database: str) -> dict[tuple[str, str | None], str]:
    """Return the comments on the warehouse's tables, views and columns."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT relname, attname, description FROM pg_description JOIN pg_class c ON c.oid = objoid"
            " LEFT JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid AND objsubid > 0"
            " WHERE classoid = 'pg_class'::regclass AND relnamespace::regnamespace::text LIKE 'klaviyo%'"
        ).fetchall()
    return {(name, column): text for name, column, text in rows}


DESCRIPTIONS = {(each.name, None): each.description for each in CATALOGUE} | {
    (each.name, column.name): column.description for each in CATALOGUE for column in each.columns
}


def test_descriptions_become_comments_in_the_database(database: str) -> None:
    """psql shows them with \\d+."""
    assert comments(database) == DESCRIPTIONS


def test_comments_that_differ_from_the_catalogue_are_set(database: str) -> None:
    """Comments on columns of the user stay. If no comment differs, none is written."""
    written = "SELECT objoid, objsubid, xmin::text FROM pg_description WHERE classoid = 'pg_class'::regclass"
    with psycopg.connect(database) as connection:
        before = set(connection.execute(written).fetchall())
        connection.execute("COMMENT ON TABLE klaviyo.opens IS 'What it said in an earlier version.'")
        connection.execute("COMMENT ON COLUMN klaviyo.members.city IS NULL")
        connection.execute("COMMENT ON VIEW klaviyo.freshness IS NULL")
        connection.execute("ALTER TABLE klaviyo.members ADD COLUMN my_note text")
        connection.execute("COMMENT ON COLUMN klaviyo.members.my_note IS 'Mine.'")
    upgrade(database)
    assert comments(database) == {**DESCRIPTIONS, ("members", "my_note"): "Mine."}
    with psycopg.connect(database) as connection:
        after = set(connection.execute(written).fetchall())
    assert len(after - before) == 4
    upgrade(database)
    with psycopg.connect(database) as connection:
        assert set(connection.execute(written).fetchall()) == after


def test_missing_columns_and_tables_are_created_without_losing_rows(database: str) -> None:
    """Columns are added with their comments. Columns of the user stay."""
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO klaviyo.members (key, id, email) VALUES ('k', 'p1', 'a@example.com')")
        connection.execute("ALTER TABLE klaviyo.members DROP COLUMN city, ADD COLUMN my_note text DEFAULT 'mine'")
        connection.execute("DROP TABLE klaviyo.opens CASCADE")
    upgrade(database)
    upgraded = columns(database)
    assert {name: sorted(each) for name, each in upgraded.items()} == {
        name: sorted([*each, "my_note"] if name == ("klaviyo", "members") else each) for name, each in EXPECTED.items()
    }
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT key, id, email, city, my_note FROM klaviyo.members").fetchall()
        comment = connection.execute(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute"
            " WHERE attrelid = 'klaviyo.members'::regclass AND attname = 'city'"
        ).fetchone()
    assert rows == [("k", "p1", "a@example.com", None, "mine")]
    assert comment == ("City.",)


def changes(connection: psycopg.Connection) -> list[tuple[str, str, str, str | None]]:
    """Return what the table of changes has, without times."""
    query = "SELECT version, change, table_name, column_name FROM klaviyo.schema_changes ORDER BY name"
    return connection.execute(query).fetchall()


def test_what_an_upgrade_adds_is_returned_and_recorded(database: str) -> None:
    """Internal tables are left out. A new warehouse, and one that is up to date, have no changes."""
    with psycopg.connect(database) as connection:
        assert (schema.upgrade(connection, "klaviyo"), changes(connection)) == ([], [])
        connection.execute("ALTER TABLE klaviyo.images DROP COLUMN name")
        connection.execute("DROP TABLE klaviyo.coupons, klaviyo_internal.page_sizes")
        connection.execute("DROP VIEW klaviyo.freshness, klaviyo.usable_push_tokens CASCADE")
        connection.execute(
            "CREATE VIEW klaviyo.freshness AS"
            " SELECT name AS integration, NULL::text AS stream FROM klaviyo.integrations"
        )
    with psycopg.connect(database) as connection:
        found = schema.upgrade(connection, "klaviyo")
        assert {
            "Added the column images.name.",
            "Added the table coupons.",
            "Added the view usable_push_tokens.",
            "Added the column freshness.watermark.",
        } <= {each.sentence for each in found}
        recorded = changes(connection)
        assert sorted(recorded, key=str) == sorted(
            [(__version__, each.change.value, each.table, each.column) for each in found], key=str
        )
        assert "page_sizes" not in {table for _, _, table, _ in recorded}
        assert schema.upgrade(connection, "klaviyo") == []
        assert changes(connection) == recorded


def test_a_column_of_another_type_is_reported_and_nothing_is_changed(database: str) -> None:
    """Only the owner can decide what to do about it. The missing table is not created either."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP TABLE klaviyo.sends CASCADE")
        connection.execute("ALTER TABLE klaviyo.opens ALTER COLUMN id TYPE varchar")
    with pytest.raises(
        DatabaseUnusable, match=r"^Column klaviyo\.opens\.id has type character varying, but must have type text\. "
    ):
        upgrade(database)
    assert ("klaviyo", "sends") not in columns(database)


def test_concurrent_upgrades_wait_for_each_other(empty_database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade, empty_database) for _ in range(4)]:
            done.result()
    assert columns(empty_database) == EXPECTED


def test_schemas_are_independent(database: str) -> None:
    """Two warehouses in one database do not see each other's tables."""
    upgrade(database, "second")
    assert (columns(database), columns(database, "second")) == (EXPECTED, expected("second"))


_INDEXES = "SELECT indexname, oid FROM pg_indexes JOIN pg_class ON relname = indexname WHERE schemaname = 'klaviyo'"


def test_a_missing_index_is_created(database: str) -> None:
    """Existing indexes are not rebuilt."""
    with psycopg.connect(database) as connection:
        before: dict[str, int] = dict(connection.execute(_INDEXES).fetchall())
        connection.execute("DROP INDEX klaviyo.opens_metric_key_event_at_idx")
    upgrade(database)
    with psycopg.connect(database) as connection:
        after: dict[str, int] = dict(connection.execute(_INDEXES).fetchall())
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"opens_metric_key_event_at_idx"}


def test_an_older_view_is_replaced_under_the_views_that_use_it(database: str) -> None:
    """Columns are added to it; a view of the user that selects from it stays valid."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP VIEW klaviyo.freshness")
        connection.execute(
            "CREATE VIEW klaviyo.freshness AS"
            " SELECT name AS integration, NULL::text AS stream FROM klaviyo.integrations"
        )
        connection.execute("CREATE VIEW mine AS SELECT integration, stream FROM klaviyo.freshness")
    upgrade(database)
    assert columns(database) == EXPECTED
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT * FROM mine").fetchall() == []


def test_an_up_to_date_view_is_not_replaced(database: str) -> None:
    """Replacing it would wait for all queries that use it."""
    query = "SELECT xmin::text FROM pg_class WHERE relname = 'freshness'"
    with psycopg.connect(database) as connection:
        before = connection.execute(query).fetchone()
    upgrade(database)
    with psycopg.connect(database) as connection:
        assert connection.execute(query).fetchone() == before


@pytest.mark.parametrize("taken", ["TABLE klaviyo.freshness (a int)", "VIEW klaviyo.freshness AS SELECT 1 AS mine"])
def test_an_object_with_the_name_of_a_view_is_reported(database: str, taken: str) -> None:
    """It is not dropped."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP VIEW klaviyo.freshness")
        connection.execute(f"CREATE {taken}")
    with pytest.raises(DatabaseUnusable, match=r"^klaviyo\.freshness is not this project's view \("):
        upgrade(database)


def test_a_view_of_a_later_version_is_reported(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not dropped, because grants would go with it."""

    def with_one_column(name: str) -> Composed:
        return SQL("SELECT day FROM ({}) AS growth").format(marts.QUERIES["list_growth"](name))

    monkeypatch.setitem(schema._QUERIES, "list_growth", with_one_column)
    with pytest.raises(DatabaseUnusable, match=r"^klaviyo\.list_growth was created by a later version, .*\. Drop it"):
        upgrade(database)
    assert columns(database) == EXPECTED


def test_the_documented_statement_drops_what_an_earlier_version_refuses(database: str) -> None:
    """Rows stay. An upgrade creates what was dropped."""
    [statement, *_] = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "upgrade.md").read_text("utf-8"), re.DOTALL)
    with psycopg.connect(database) as connection:
        schema.upgrade(connection, "klaviyo", Storage(stores_marts=True))
        connection.execute("INSERT INTO klaviyo.members (key, id) VALUES ('k', 'p1')")
        connection.execute("CREATE VIEW klaviyo.mine AS SELECT id FROM klaviyo.members")
        connection.execute(statement)
        views = connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'klaviyo'").fetchall()
        triggers = connection.execute("SELECT FROM pg_trigger WHERE NOT tgisinternal").fetchall()
        rows = connection.execute("SELECT * FROM klaviyo.mine").fetchall()
        connection.execute("DROP VIEW klaviyo.mine")
    assert (views, triggers, rows) == ([("mine",)], [], [("p1",)])
    upgrade(database)
    assert columns(database) == EXPECTED


_OLDER_FRESHNESS = """
    CREATE VIEW klaviyo.freshness AS
    SELECT name AS integration, stream, stream AS name, part AS table_name, done_at AS newest_event
    FROM klaviyo.integrations JOIN klaviyo_internal.chunks USING (esp_integration_id)
"""


def test_a_warehouse_of_an_older_version_is_upgraded(database: str) -> None:
    """It gets the new columns and the new view, and keeps its watermarks and chunks."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP VIEW klaviyo.freshness")
        connection.execute("ALTER TABLE klaviyo_internal.watermarks DROP COLUMN subject, DROP COLUMN table_name")
        connection.execute("ALTER TABLE klaviyo_internal.chunks DROP COLUMN reached")
        connection.execute(_OLDER_FRESHNESS)
        connection.execute("INSERT INTO klaviyo_internal.watermarks VALUES ('one', 'profiles', '2026-07-01Z', NULL)")
        connection.execute(
            "INSERT INTO klaviyo_internal.chunks VALUES ('run', 'one', 'profiles', '..', 'planned', NULL)"
        )
    upgrade(database)
    assert columns(database) == EXPECTED
    with psycopg.connect(database) as connection:
        watermarks = connection.execute(
            "SELECT stream, subject, table_name FROM klaviyo_internal.watermarks"
        ).fetchall()
        chunks = connection.execute("SELECT stream, state, reached FROM klaviyo_internal.chunks").fetchall()
    assert (watermarks, chunks) == ([("profiles", None, None)], [("profiles", "planned", None)])


@pytest.mark.parametrize(
    "renaming",
    [
        pytest.param("TABLE klaviyo.campaign_messages RENAME TO old_messages", id="table"),
        pytest.param("TABLE klaviyo.campaign_messages RENAME COLUMN channel TO old_channel", id="column"),
    ],
)
def test_views_read_the_tables_that_replace_renamed_ones(database: str, renaming: str) -> None:
    """Postgres lets views follow what was renamed, and stores them as before."""
    with psycopg.connect(database) as connection:
        connection.execute(f"ALTER {renaming}")
    upgrade(database)
    with psycopg.connect(database) as connection:
        [[definition]] = connection.execute("SELECT pg_get_viewdef('klaviyo.messages'::regclass)").fetchall()
    assert "old_" not in definition


def test_a_view_that_someone_has_replaced_is_replaced_again(database: str) -> None:
    """It kept the comment that says how it was stored before."""
    with psycopg.connect(database) as connection:
        [[before]] = connection.execute("SELECT pg_get_viewdef('klaviyo.list_growth'::regclass)").fetchall()
        connection.execute(f"CREATE OR REPLACE VIEW klaviyo.list_growth AS {str(before).rstrip(';')} AND false")
    upgrade(database)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT pg_get_viewdef('klaviyo.list_growth'::regclass)").fetchall() == [(before,)]
        assert changes(connection) == [(__version__, "changed view", "list_growth", None)]
