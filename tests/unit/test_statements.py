"""SQL statements, as they are composed from the catalogue."""

import pytest
from psycopg.sql import Composable

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import TABLES, VIEWS, Absent, Load, Table, View, loads
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import absence_statements, definitions, statements
from klaviyo_pg.postgres.schema import Place, differing_comments, missing
from klaviyo_pg.postgres.statements import place

SCHEMAS = ["klaviyo", 'a "quoted" one', "it's", "%s {} %(x)s", "Ünïcode", "drop table x; --"]
LOADS = [load for load in vars(loads).values() if isinstance(load, Load)] + list(loads.EVENTS.values())


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def named(schema: str, table: Table | View) -> str:
    """Return the qualified name of a table or view in a statement."""
    return ".".join(map(quoted, place(schema, table)))


def composed(schema: str, load: Load) -> list[Composable]:
    """Return all statements about a load."""
    return [
        definitions.create_table(schema, load.table),
        *(definitions.add_column(schema, load.table, column) for column in load.table.columns),
        *differing_comments(schema, {}, (load.table,)),
        statements.create_stage(schema, load),
        statements.upsert(schema, load),
        absence_statements.retire(schema, load) if load.absent is not Absent.KEEP else statements.copy_stage(load),
    ]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load.table.name}-{len(load.columns)}")
def test_names_are_quoted(schema: str, load: Load) -> None:
    """A schema with any name appears in quotes, before each table of the catalogue, and nowhere else."""
    for statement in composed(schema, load):
        text = statement.as_string(None)
        own = named(schema, load.table)
        assert own in text or '"pg_temp"' in text
        assert sum(text.count(quoted(each)) for each in schemas.both(schema)) == text.count(own)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_is_created_as_the_catalogue_describes_it(table: Table) -> None:
    """It has every column with its type, and the primary key."""
    text = definitions.create_table("s", table).as_string(None)
    for column in table.columns:
        assert f'    "{column.name}" {column.type.sql},\n' in text
    assert f"PRIMARY KEY ({', '.join(map(quoted, table.primary_key))})" in text


def existing(*tables: Table) -> dict[Place, dict[str, str]]:
    """Return the column types of a database that has exactly these tables."""
    return {
        place("s", table): {column.name: column.type.sql.partition(" COLLATE")[0] for column in table.columns}
        for table in tables
    }


def test_nothing_is_missing_from_a_complete_warehouse() -> None:
    assert list(missing("s", existing(*TABLES))) == []


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_only_missing_tables_and_columns_are_created(table: Table) -> None:
    others = [each for each in TABLES if each is not table]
    created = [statement.as_string(None) for statement in missing("s", existing(*others))]
    kind = "UNLOGGED TABLE" if table.unlogged else "TABLE"
    assert created[0].startswith(f"CREATE {kind} {named('s', table)} ")
    assert len(created) == 1
    stored = existing(*TABLES)
    last = table.columns[-1].name
    del stored[place("s", table)][last]
    added = [statement.as_string(None) for statement in missing("s", stored)]
    assert added[0].startswith(f'ALTER TABLE {named("s", table)} ADD COLUMN "{last}" ')
    assert len(added) == 1


@pytest.mark.parametrize("table", [*TABLES, *VIEWS], ids=lambda table: table.name)
def test_only_comments_that_differ_are_set(table: Table | View) -> None:
    """A table or column without a comment gets one."""
    stored: dict[tuple[str, str | None], str] = {(table.name, None): table.description}
    stored |= {(table.name, column.name): column.description for column in table.columns}
    assert list(differing_comments("s", stored, (table,))) == []
    last = table.columns[-1].name
    stored[table.name, None] = "Something else."
    del stored[table.name, last]
    on_table, on_column = (each.as_string(None) for each in differing_comments("s", stored, (table,)))
    assert f" {named('s', table)} IS " in on_table
    assert on_column.startswith(f'COMMENT ON COLUMN {named("s", table)}."{last}" IS ')


def test_a_column_of_another_type_is_reported() -> None:
    """The message names the column, both types, and what to do."""
    stored = existing(*TABLES)
    stored["s", "opens"]["value"] = "text"
    with pytest.raises(
        DatabaseUnusable, match=r"^Column s\.opens\.value has type text, but must have type numeric\. .*\.$"
    ):
        list(missing("s", stored))


def test_columns_of_the_user_are_ignored() -> None:
    stored = existing(*TABLES)
    stored["s", "members"]["my_note"] = "text"
    assert list(missing("s", stored)) == []
