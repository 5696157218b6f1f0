"""Databases for tests: clones of a template, each emptied and lent again if its test has changed nothing but rows.

Cloning takes a file for each table and index, and most of the time of a short test.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composed, Identifier

_CATALOGS = (
    "pg_attrdef",
    "pg_attribute",
    "pg_class",
    "pg_constraint",
    "pg_default_acl",
    "pg_depend",
    "pg_description",
    "pg_event_trigger",
    "pg_extension",
    "pg_index",
    "pg_inherits",
    "pg_policy",
    "pg_proc",
    "pg_rewrite",
    "pg_sequence",
    "pg_trigger",
    "pg_type",
)
_SETTINGS = """
    SELECT (datdba, datacl, datallowconn, datconnlimit, array_agg(setconfig::text))::text
    FROM pg_database LEFT JOIN pg_db_role_setting ON setdatabase = pg_database.oid
    WHERE datname = current_database() GROUP BY pg_database.oid
"""
_TABLES = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND oid >= 16384 AND relpersistence <> 't'"
_END_SESSIONS = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = {}"


class Databases:
    """The databases of a server that are clones of one template."""

    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = server, template
        self._free: list[str] = []
        self._numbers = count(1)
        with self._connected(template) as connection:
            self._definition = _definition(connection)
            self._empty = SQL("; ").join(
                [SQL("SET session_replication_role = replica"), *_deletions(connection), SQL("SELECT pg_stat_reset()")]
            )

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Yield the conninfo of a database that is as the template is, for as long as the block runs."""
        name = self._free.pop() if self._free else self._clone()
        try:
            yield make_conninfo(self._server, dbname=name)
        finally:
            self._take_back(name)

    def _clone(self) -> str:
        name = f"{self._template}_{next(self._numbers)}"
        with self._connected() as connection:
            connection.execute(
                SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    Identifier(name), Identifier(self._template)
                )
            )
        return name

    def _take_back(self, name: str) -> None:
        with self._connected() as connection:
            connection.execute(SQL(_END_SESSIONS).format(name))
        with self._connected(name) as connection:
            if is_reusable := _definition(connection) == self._definition:
                connection.execute(self._empty)
        if is_reusable:
            self._free.append(name)
            return
        with self._connected() as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def _connected(self, name: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(make_conninfo(self._server, dbname=name), autocommit=True)


def _definition(connection: psycopg.Connection) -> tuple[object, ...]:
    """Return numbers that change with every change of a definition or setting: each writes a row of a catalog."""
    catalogs = [*_CATALOGS, "pg_namespace WHERE nspname !~ '^pg_.*temp'"]  # those of temporary tables stay
    parts = [f"(SELECT (count(*), sum(xmin::text::bigint))::text FROM {each})" for each in catalogs]
    row = connection.execute(f"SELECT {', '.join(parts)}, ({_SETTINGS})").fetchone()
    assert row is not None
    return row


def _deletions(connection: psycopg.Connection) -> list[Composed]:
    """Return statements that empty the tables. Raises AssertionError if the template itself has rows."""
    tables = [SQL(name) for (name,) in connection.execute(_TABLES)]  # quoted by regclass
    for table in tables:
        assert connection.execute(SQL("SELECT 1 FROM {} LIMIT 1").format(table)).fetchone() is None, table
    return [SQL("DELETE FROM {}").format(table) for table in tables]
