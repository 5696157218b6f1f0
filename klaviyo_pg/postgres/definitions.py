"""Statements that define tables, columns, indexes and comments, composed from the catalogue. Knows no connection."""

from collections.abc import Iterable

from psycopg.sql import SQL, Composed, Identifier, Literal

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import Column, Table, View
from klaviyo_pg.postgres.statements import names, qualified


def column_definition(column: Column) -> Composed:
    return Composed([Identifier(column.name), SQL(" "), SQL(column.type.sql)])


def create_table(schema: str, table: Table, is_partitioned: bool = False) -> Composed:
    """Create a table; partitioned by ranges of the time that orders it, or as a whole."""
    columns = SQL(",\n    ").join(map(column_definition, table.columns))
    created = SQL("CREATE {}TABLE {} (\n    {},\n    PRIMARY KEY ({})\n)").format(
        SQL("UNLOGGED " if table.unlogged else ""), qualified(schema, table), columns, names(table.primary_key)
    )
    if not (is_partitioned and table.ordered_by):
        return created
    return SQL("{} PARTITION BY RANGE ({})").format(created, Identifier(table.ordered_by))


def set_unlogged(schema: str, table: Table) -> Composed:
    return SQL("ALTER TABLE {} SET UNLOGGED").format(qualified(schema, table))


def set_schema(schema: str, table: Table) -> Composed:
    """Move an internal table out of the schema in which earlier versions created it."""
    return SQL("ALTER TABLE {} SET SCHEMA {}").format(
        Identifier(schema, table.name), Identifier(schemas.internal(schema))
    )


def index_name(table: Table, columns: Iterable[str]) -> str:
    return "_".join((table.name, *columns, "idx"))


def create_index(schema: str, table: Table, columns: Iterable[str], concurrently: bool = False) -> Composed:
    return SQL("CREATE INDEX {} {} ON {} ({})").format(
        SQL("CONCURRENTLY" if concurrently else ""),
        Identifier(index_name(table, columns)),
        qualified(schema, table),
        names(columns),
    )


def add_column(schema: str, table: Table, column: Column) -> Composed:
    return SQL("ALTER TABLE {} ADD COLUMN {}").format(qualified(schema, table), column_definition(column))


def comment_on_table(schema: str, table: Table | View) -> Composed:
    """Store the catalogue's description of a table or view as its comment."""
    kind = SQL("VIEW" if isinstance(table, View) else "TABLE")
    return SQL("COMMENT ON {} {} IS {}").format(kind, qualified(schema, table), Literal(table.description))


def comment_on_column(schema: str, table: Table | View, column: Column) -> Composed:
    """Store the catalogue's description of a column as its comment."""
    return SQL("COMMENT ON COLUMN {} IS {}").format(qualified(schema, table, column), Literal(column.description))
