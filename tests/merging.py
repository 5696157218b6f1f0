"""What a merge did, and what stands in a table after it."""

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from klaviyo_pg.postgres.load import Merged


def counts(found: Merged) -> tuple[int, int, int, int]:
    return found.rows, found.inserted, found.updated, found.unchanged


def rows(connection: psycopg.Connection, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """The table's rows, by its first column."""
    query = SQL("SELECT {} FROM {} ORDER BY 1, 2").format(SQL(", ").join(map(Identifier, columns)), Identifier(table))
    return connection.execute(query).fetchall()
