"""The changes of a warehouse that upgrades make for its readers: found, in words, and recorded."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from psycopg import Connection
from psycopg.sql import SQL

from klaviyo_pg import __version__
from klaviyo_pg.catalogue import TABLES, View, bookkeeping
from klaviyo_pg.postgres.statements import place, qualified

_INSERT = (
    "INSERT INTO {} (changed_at, name, version, change, table_name, column_name)"
    " VALUES (now(), %(name)s, %(version)s, %(change)s, %(table)s, %(column)s)"
)


class Change(StrEnum):
    """A kind of change, in `schema_changes.change`."""

    ADDED_TABLE = "added table"
    ADDED_VIEW = "added view"
    ADDED_COLUMN = "added column"
    CHANGED_VIEW = "changed view"


class SchemaChange(NamedTuple):
    """A table, view or column that an upgrade has added or changed. `column` is None for a table or view."""

    change: Change
    table: str
    column: str | None = None

    @property
    def name(self) -> str:
        """The name of the table or view, or of the column with that of its table."""
        return f"{self.table}.{self.column}" if self.column else self.table

    @property
    def sentence(self) -> str:
        """The change in words, such as "Added the column images.name."."""
        verb, _, kind = self.change.partition(" ")
        return f"{verb.capitalize()} the {kind} {self.name}."


def of_tables(schema: str, existing: Mapping[tuple[str, str], Collection[str]]) -> Iterator[SchemaChange]:
    """Yield the tables and columns that the catalogue has and a warehouse lacks, without internal tables.

    `existing` are the names of its columns by the place of the table.
    """
    for table in TABLES:
        if table.internal:
            continue
        columns = existing.get(place(schema, table))
        if columns is None:
            yield SchemaChange(Change.ADDED_TABLE, table.name)
            continue
        for name in table.column_names:
            if name not in columns:
                yield SchemaChange(Change.ADDED_COLUMN, table.name, name)


def of_view(view: View, existing: Collection[str]) -> Iterator[SchemaChange]:
    """Yield the changes of a view that is created or replaced, whose columns were `existing`; none if it is new."""
    if not existing:
        yield SchemaChange(Change.ADDED_VIEW, view.name)
        return
    added = [column.name for column in view.columns if column.name not in existing]
    yield from (SchemaChange(Change.ADDED_COLUMN, view.name, name) for name in added)
    if not added:
        yield SchemaChange(Change.CHANGED_VIEW, view.name)


def record(connection: Connection, schema: str, changes: Iterable[SchemaChange]) -> None:
    """Record changes, with the time and the version of this program."""
    query = SQL(_INSERT).format(qualified(schema, bookkeeping.SCHEMA_CHANGES))
    for each in changes:
        values = {"name": each.name, "version": __version__, "change": each.change}
        connection.execute(query, {**values, "table": each.table, "column": each.column})
