"""Bringing a warehouse up to the catalogue."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from klaviyo_pg.catalogue import TABLES, VIEWS
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import schema

_COLUMNS = """
    SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position)
    FROM information_schema.columns WHERE table_schema = %s GROUP BY table_name
"""


def upgrade(database: str, name: str = "klaviyo") -> None:
    with psycopg.connect(database) as connection:
        schema.upgrade(connection, name)


def columns(database: str, name: str = "klaviyo") -> dict[str, list[str]]:
    with psycopg.connect(database) as connection:
        return dict(connection.execute(_COLUMNS, [name]).fetchall())


EXPECTED = {each.name: [column.name for column in each.columns] for each in (*TABLES, *VIEWS)}


@pytest.mark.parametrize("name", ["klaviyo", 'a "quoted" one', "it's", "%s {}", "Ünïcode"])
def test_an_empty_database_gets_everything(empty_database: str, name: str) -> None:
    """All tables with their columns in order, in a schema of any name; doing it again changes nothing."""
    for _ in range(2):
        upgrade(empty_database, name)
        assert columns(empty_database, name) == EXPECTED


def test_descriptions_are_comments_of_the_database(database: str) -> None:
    """Whoever looks at a table with psql finds what it holds."""
    with psycopg.connect(database) as connection:
        for table in (*TABLES, *VIEWS):
            name = f'klaviyo."{table.name}"'
            row = connection.execute("SELECT obj_description(%s::regclass)", [name]).fetchone()
            assert row == (table.description,)
            found = connection.execute(
                "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                [name],
            ).fetchall()
            assert dict(found) == {column.name: column.description for column in table.columns}


def test_what_was_dropped_comes_back_and_no_row_is_lost(database: str) -> None:
    """A missing column is added with its comment, a missing table is created, and everything else stays."""
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO klaviyo.members (key, id, email) VALUES ('k', 'p1', 'a@example.com')")
        connection.execute("ALTER TABLE klaviyo.members DROP COLUMN city, ADD COLUMN my_note text DEFAULT 'mine'")
        connection.execute("DROP TABLE klaviyo.opens CASCADE")
    upgrade(database)
    found = columns(database)
    assert {name: sorted(known) for name, known in found.items()} == {
        name: sorted([*known, "my_note"] if name == "members" else known) for name, known in EXPECTED.items()
    }
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT key, id, email, city, my_note FROM klaviyo.members").fetchall()
        comment = connection.execute(
            "SELECT col_description(attrelid, attnum) FROM pg_attribute"
            " WHERE attrelid = 'klaviyo.members'::regclass AND attname = 'city'"
        ).fetchone()
    assert rows == [("k", "p1", "a@example.com", None, "mine")]
    assert comment == ("City.",)


def test_a_column_of_another_type_is_told_and_nothing_is_changed(database: str) -> None:
    """What to do about it is the owner's to decide, so the missing table is not created either."""
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE klaviyo.opens ALTER COLUMN value TYPE text")
        connection.execute("DROP TABLE klaviyo.sends CASCADE")
    with pytest.raises(DatabaseUnusable, match=r"^Column klaviyo\.opens\.value is text, but has to be numeric"):
        upgrade(database)
    assert "sends" not in columns(database)


def test_two_upgrades_at_the_same_time(empty_database: str) -> None:
    """One waits for the other and then has nothing to do."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade, empty_database) for _ in range(4)]:
            done.result()
    assert columns(empty_database) == EXPECTED


def test_schemas_are_independent(database: str) -> None:
    """Two warehouses in one database do not see each other's tables."""
    upgrade(database, "second")
    assert columns(database) == columns(database, "second") == EXPECTED


_INDEXES = "SELECT indexname, oid FROM pg_indexes JOIN pg_class ON relname = indexname WHERE schemaname = 'klaviyo'"


def test_an_index_that_is_missing_is_added(database: str) -> None:
    """Those that are there stay as they are."""
    with psycopg.connect(database) as connection:
        before = dict(connection.execute(_INDEXES).fetchall())
        connection.execute("DROP INDEX klaviyo.opens_metric_key_event_at_idx")
    upgrade(database)
    with psycopg.connect(database) as connection:
        after = dict(connection.execute(_INDEXES).fetchall())
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"opens_metric_key_event_at_idx"}


def test_a_view_of_the_users_does_not_break_the_upgrade(database: str) -> None:
    """An older view is replaced in place, with columns added, under the views that others built on it."""
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


def test_a_view_that_is_right_is_left_alone(database: str) -> None:
    """Replacing it would wait for everybody who looks at it."""
    query = "SELECT xmin::text FROM pg_class WHERE relname = 'freshness'"
    with psycopg.connect(database) as connection:
        before = connection.execute(query).fetchone()
    upgrade(database)
    with psycopg.connect(database) as connection:
        assert connection.execute(query).fetchone() == before


@pytest.mark.parametrize("taken", ["TABLE klaviyo.freshness (a int)", "VIEW klaviyo.freshness AS SELECT 1 AS mine"])
def test_a_name_that_is_taken_is_told(database: str, taken: str) -> None:
    """In one sentence; nothing of the user's is dropped."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP VIEW klaviyo.freshness")
        connection.execute(f"CREATE {taken}")  # type: ignore[arg-type]
    with pytest.raises(DatabaseUnusable, match=r"^klaviyo\.freshness is not the view of this project"):
        upgrade(database)
