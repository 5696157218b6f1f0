"""The handle through which one account's rows are read and written. Knows how SQL is composed, not what it is for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from psycopg import Connection, Cursor
from psycopg.rows import TupleRow, kwargs_row
from psycopg.sql import SQL, Composable, Composed, Identifier

from klaviyo_pg.catalogue import Table, View
from klaviyo_pg.postgres import queries
from klaviyo_pg.postgres.statements import place, qualified, qualified_names

Row = TypeVar("Row")
Statement = SQL | Composed
_MOST_QUERIES = 1_000  # nearly all are constants


@dataclass(frozen=True, slots=True)
class Account:
    """One account's part of the warehouse, within a transaction of `connection`.

    In the queries that its methods take, `{members}` stands for the table or view that has this name in the catalogue,
    each `{}` for a table that the caller passes, `%(account)s` for the account's esp_integration_id, and any other
    `%(name)s` for the value of that name.
    """

    connection: Connection
    schema: str
    integration_id: str

    def table(self, table: Table) -> Identifier:
        """Return the table's qualified name."""
        return qualified(self.schema, table)

    def view(self, view: View) -> Identifier:
        """Return the view's qualified name."""
        return qualified(self.schema, view)

    def compose(self, query: str, /, *tables: Table, **parts: Composable) -> Composed:
        """Compose a query. A part takes precedence over a table or view of its name."""
        return SQL(query).format(*map(self.table, tables), **{**qualified_names(self.schema), **parts})

    def execute(self, query: str | Statement, /, *tables: Table, **values: object) -> Cursor[TupleRow]:
        """Run a query."""
        return self.connection.execute(self._composed(query, tables), self._values(values))

    def scalar(self, query: str | Statement, /, *tables: Table, **values: object) -> Any:
        """Run a query that returns one value, and return it; None if it returns no row."""
        return queries.scalar(self.connection, self._composed(query, tables), self._values(values))

    def column(self, query: str | Statement, /, *tables: Table, **values: object) -> list[Any]:
        """Run a query that returns one column, and return its values in order."""
        return queries.column(self.connection, self._composed(query, tables), self._values(values))

    def is_true(self, query: str | Statement, /, *tables: Table, **values: object) -> bool:
        """Run a query that returns one truth value, and return it; False if it is null or there is no row."""
        return bool(self.scalar(query, *tables, **values))

    def execute_many(self, query: str | Statement, rows: Iterable[Mapping[str, object]], /, *tables: Table) -> None:
        """Run a query once for each row of values."""
        with self.connection.cursor() as cursor:
            cursor.executemany(self._composed(query, tables), map(self._values, rows))

    def select(
        self, make: Callable[..., Row], query: str | Statement, /, *tables: Table, **values: object
    ) -> list[Row]:
        """Run a query and return what `make` returns for each row, called with the columns as keyword arguments."""
        with self.connection.cursor(row_factory=kwargs_row(make)) as cursor:
            return cursor.execute(self._composed(query, tables), self._values(values)).fetchall()

    def _composed(self, query: str | Statement, tables: Iterable[Table]) -> Statement:
        if not isinstance(query, str):
            return query
        return _with_tables(query, self.schema, *(place(self.schema, table) for table in tables))

    def _values(self, values: Mapping[str, object]) -> dict[str, object]:
        return {"account": self.integration_id, **values}


@lru_cache(_MOST_QUERIES)
def _with_tables(query: str, schema: str, *places: tuple[str, str]) -> SQL:
    """Return a query as text, which need not be composed again each time it runs."""
    tables = (Identifier(*each) for each in places)
    return SQL(SQL(query).format(*tables, **qualified_names(schema)).as_string(None))
