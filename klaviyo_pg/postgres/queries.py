"""Running a query that returns one column, outside an account too. Knows no query."""

from typing import Any

from psycopg import Connection
from psycopg.abc import Params
from psycopg.rows import scalar_row
from psycopg.sql import SQL, Composed


def scalar(connection: Connection, query: str | SQL | Composed, values: Params = ()) -> Any:
    """Run a query that returns one value, and return it; None if it returns no row."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, values).fetchone()


def column(connection: Connection, query: str | SQL | Composed, values: Params = ()) -> list[Any]:
    """Run a query that returns one column, and return its values in order."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query, values).fetchall()
