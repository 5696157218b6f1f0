"""Helpers that show what a merge did: its counts, and the rows of a table after it."""

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from klaviyo_pg.postgres.load import Merged


def counts(merged: Merged) -> tuple[int, int, int, int]:
    """Return the row counts of a merge: read, inserted, updated, unchanged."""
    return merged.rows, merged.inserted, merged.updated, merged.unchanged


def rows(connection: psycopg.Connection, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Return a table's rows, ordered by their first two columns."""
    query = SQL("SELECT {} FROM {} ORDER BY 1, 2").format(SQL(", ").join(map(Identifier, columns)), Identifier(table))
    return connection.execute(query).fetchall()
