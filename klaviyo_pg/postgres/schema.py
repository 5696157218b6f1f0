"""Upgrading a warehouse to the catalogue. Creates what is missing; drops and rewrites nothing."""

from collections.abc import Collection, Iterator, Mapping

from psycopg import Connection, errors
from psycopg.sql import SQL, Composed, Identifier

from klaviyo_pg.catalogue import TABLES, VIEWS, Table, View
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import freshness, statements, touched

_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
"""
_LOGGED = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind = 'r' AND c.relpersistence = 'p'
"""
_INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = %s"
# Both definitions as Postgres formats them; null if the view does not exist yet.
_DEFINITIONS = """
    SELECT pg_get_viewdef(to_regclass(%s)), pg_get_viewdef('pg_temp.defined'::regclass)
"""
_COMMENTS = """
    SELECT c.relname, a.attname, d.description
    FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
    WHERE d.classoid = 'pg_class'::regclass AND n.nspname = %s AND c.relkind IN ('r', 'p', 'v')
"""
_QUERIES = {"freshness": freshness.query}
_SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"

Existing = Mapping[str, Mapping[str, str]]
"""The types of the columns in the database, by table name and column name."""
Comments = Mapping[tuple[str, str | None], str]
"""The comments in the database, by name of table or view, and of column; None stands for the table or view itself."""


def upgrade(connection: Connection, schema: str) -> None:
    """Create the schema, tables, columns, indexes, triggers and views that are missing, and set comments that differ.

    Everything happens in the caller's transaction. A warehouse that is up to date is not written to.

    Raises DatabaseUnusable if a column of the catalogue has a different type, because only the owner can decide what to
    do about it.
    """
    connection.execute("SELECT pg_advisory_xact_lock(pg_catalog.hashtextextended('klaviyo_pg.schema', 0))")
    exists = connection.execute(_SCHEMA_EXISTS, [schema]).fetchone()
    if not (exists and exists[0]):
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    existing: dict[str, dict[str, str]] = {}
    for table, column, type_ in connection.execute(_COLUMNS, [schema]):
        existing.setdefault(table, {})[column] = type_
    for statement in missing(schema, existing):
        connection.execute(statement)
    logged = {name for (name,) in connection.execute(_LOGGED, [schema])}
    for table in TABLES:
        if table.unlogged and table.name in logged:
            connection.execute(statements.set_unlogged(schema, table))
    indexes = {row[0] for row in connection.execute(_INDEXES, [schema])}
    for statement in missing_indexes(schema, indexes):
        connection.execute(statement)
    touched.install(connection, schema)
    for view in VIEWS:
        _define(connection, schema, view)
    stored = {(name, column): text for name, column, text in connection.execute(_COMMENTS, [schema])}
    for statement in differing_comments(schema, stored):
        connection.execute(statement)


def missing_indexes(schema: str, existing: Collection[str], tables: tuple[Table, ...] = TABLES) -> Iterator[Composed]:
    """Return the statements that create missing indexes. IF NOT EXISTS instead would wait for all writers."""
    for table in tables:
        for columns in table.indexes:
            if statements.index_name(table, columns) not in existing:
                yield statements.create_index(schema, table, columns)


def _define(connection: Connection, schema: str, view: View) -> None:
    """Create a view, or replace it if its definition differs. Objects that depend on it stay.

    Raises DatabaseUnusable if the user has something else with this name.
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
            f"{schema}.{view.name} is not this project's view ({error.diag.message_primary}). Rename it, or set "
            "WAREHOUSE_SCHEMA to another schema."
        ) from None


def differing_comments(
    schema: str, existing: Comments, tables: tuple[Table | View, ...] = (*TABLES, *VIEWS)
) -> Iterator[Composed]:
    """Return the statements that set the comments that differ from the catalogue."""
    for table in tables:
        if existing.get((table.name, None)) != table.description:
            yield statements.comment_on_table(schema, table)
        for column in table.columns:
            if existing.get((table.name, column.name)) != column.description:
                yield statements.comment_on_column(schema, table, column)


def missing(schema: str, existing: Existing, tables: tuple[Table, ...] = TABLES) -> Iterator[Composed]:
    """Return the statements that create the tables and columns that do not exist yet."""
    for table in tables:
        columns = existing.get(table.name)
        if columns is None:
            yield statements.create_table(schema, table)
            continue
        for column in table.columns:
            if column.name not in columns:
                yield statements.add_column(schema, table, column)
            elif columns[column.name] != column.type.sql.partition(" COLLATE")[0]:
                raise DatabaseUnusable(
                    f"Column {schema}.{table.name}.{column.name} has type {columns[column.name]}, but must have type "
                    f"{column.type.sql}. Rename or convert it, or set WAREHOUSE_SCHEMA to another schema."
                )
