"""Bringing a warehouse up to the catalogue: what is missing is created, nothing is dropped or rewritten."""

from collections.abc import Iterator, Mapping

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from klaviyo_pg.catalogue import TABLES, Table
from klaviyo_pg.errors import DatabaseUnusable
from klaviyo_pg.postgres import statements

_COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
"""
_SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"

Existing = Mapping[str, Mapping[str, str]]
"""Table name -> column name -> type, as the database has them."""


def upgrade(connection: Connection, schema: str) -> None:
    """Create the schema, tables and columns that are missing. Runs inside the caller's transaction.

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
