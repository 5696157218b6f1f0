"""Bringing a warehouse up to the catalogue: what is missing is created, nothing is dropped or rewritten."""

from collections.abc import Collection, Iterator, Mapping

from psycopg import Connection, errors
from psycopg.sql import SQL, Composed, Identifier

from klaviyo_pg.catalogue import TABLES, VIEWS, Table, View
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import freshness, statements

_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
"""
_INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = %s"
# Both definitions as Postgres itself would write them; null where there is no such view yet.
_DEFINITIONS = """
    SELECT pg_get_viewdef(to_regclass(%s)), pg_get_viewdef('pg_temp.defined'::regclass)
"""
_QUERIES = {"freshness": freshness.query}
_SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"

Existing = Mapping[str, Mapping[str, str]]
"""Table name -> column name -> type, as the database has them."""


def upgrade(connection: Connection, schema: str) -> None:
    """Create the schema, tables, columns, indexes and views that are missing. Runs inside the caller's transaction.

    Raises DatabaseUnusable where a column of ours has another type: what to do about that is the owner's to decide.
    """
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('klaviyo_pg.schema', 0))")
    exists = connection.execute(_SCHEMA_EXISTS, [schema]).fetchone()
    if not (exists and exists[0]):
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    existing: dict[str, dict[str, str]] = {}
    for table, column, type_ in connection.execute(_COLUMNS, [schema]):
        existing.setdefault(table, {})[column] = type_
    for statement in missing(schema, existing):
        connection.execute(statement)
    indexes = {row[0] for row in connection.execute(_INDEXES, [schema])}
    for statement in missing_indexes(schema, indexes):
        connection.execute(statement)
    for view in VIEWS:
        _define(connection, schema, view)


def missing_indexes(schema: str, existing: Collection[str], tables: tuple[Table, ...] = TABLES) -> Iterator[Composed]:
    """The indexes that are not there yet. What is there is not touched: IF NOT EXISTS would wait for every writer."""
    for table in tables:
        for columns in table.indexes:
            if statements.index_name(table, columns) not in existing:
                yield statements.create_index(schema, table, columns)


def _define(connection: Connection, schema: str, view: View) -> None:
    """Create a view, or replace it where it is another one; what depends on it stays.

    Raises DatabaseUnusable where its name is taken by something of the user's.
    """
    query, name = _QUERIES[view.name](schema), Identifier(schema, view.name)
    connection.execute(SQL("CREATE TEMPORARY VIEW defined AS {}").format(query))
    row = connection.execute(_DEFINITIONS, [name.as_string(connection)]).fetchone()
    connection.execute("DROP VIEW pg_temp.defined")
    if row is not None and row[0] == row[1]:
        return
    try:
        with connection.transaction():
            connection.execute(SQL("CREATE OR REPLACE VIEW {} AS {}").format(name, query))
    except (errors.WrongObjectType, errors.InvalidTableDefinition) as error:
        raise DatabaseUnusable(
            f"{schema}.{view.name} is not the view of this project ({error.diag.message_primary}): rename it, or set "
            "WAREHOUSE_SCHEMA to another schema."
        ) from None
    for statement in statements.comments(schema, view):
        connection.execute(statement)


def missing(schema: str, existing: Existing, tables: tuple[Table, ...] = TABLES) -> Iterator[Composed]:
    """The statements that lead from what is there to what the catalogue describes."""
    for table in tables:
        columns = existing.get(table.name)
        if columns is None:
            yield statements.create_table(schema, table)
            yield from statements.comments(schema, table)
            continue
        for column in table.columns:
            if column.name not in columns:
                yield statements.add_column(schema, table, column)
                yield statements.comment(schema, table, column)
            elif columns[column.name] != column.type.sql.partition(" COLLATE")[0]:
                raise DatabaseUnusable(
                    f"Column {schema}.{table.name}.{column.name} is {columns[column.name]}, but has to be "
                    f"{column.type.sql}: rename or convert it, or set WAREHOUSE_SCHEMA to another schema."
                )
