"""Giving large tables of an earlier version their present primary key and indexes, while they are read and written.

Each step can be interrupted and run again. Needs a connection in autocommit mode.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import NamedTuple

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from klaviyo_pg.catalogue import Table, events
from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import definitions, partitions, queries, schema, statements
from klaviyo_pg.postgres.patience import OnProgress, Patience, patiently
from klaviyo_pg.postgres.schema import Storage
from klaviyo_pg.postgres.statements import qualified

BYTES_PER_ROW = 140
"""Disk that a row needs for its entry in the new primary key, and while entries are sorted."""
SECONDS_PER_MILLION = 3.0
"""Approximate time for a million rows if the table is in memory: twice the processor time that was measured."""
_BYTES_PER_SECOND = 50e6  # that a table which is not in memory is read at; it is read twice
_LOCK = "SELECT pg_try_advisory_lock(pg_catalog.hashtextextended('klaviyo_pg.rebuild', 0))"
_UNLOCK = "SELECT pg_advisory_unlock(pg_catalog.hashtextextended('klaviyo_pg.rebuild', 0))"
_SIZE = """
SELECT CASE WHEN reltuples > 0 THEN reltuples ELSE pg_relation_size(oid) / 500 END::bigint, pg_relation_size(oid)
FROM pg_class WHERE oid = to_regclass(%s)
"""
_STATE = """
SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_PRIMARY_KEY = "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(%s) AND contype = 'p'"
_CHECK = "SELECT FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s"
# Building takes about as long as validating, which begins once all others have seen the index.
_PROGRESS = """
SELECT CASE
    WHEN phase LIKE 'building index: scanning%%' THEN 0.4 * blocks_done / greatest(blocks_total, 1)
    WHEN phase LIKE 'building index: loading%%' THEN 0.5 + 0.15 * tuples_done / greatest(tuples_total, 1)
    WHEN phase LIKE 'index validation: scanning index%%' THEN 0.65 + 0.1 * blocks_done / greatest(blocks_total, 1)
    WHEN phase LIKE 'index validation: scanning table%%' THEN 0.75 + 0.25 * blocks_done / greatest(blocks_total, 1)
    WHEN phase LIKE 'building index: sorting%%' THEN 0.45
    ELSE 0 END::float8, nullif(current_locker_pid, 0)
FROM pg_stat_progress_create_index WHERE pid = %s
"""
_PATIENCE = Patience("2s", 5.0, 60)  # with other users of a table


class IndexProgress(NamedTuple):
    """The share of an index that is built, 0 to 1, and the session whose transaction has to end before the rest is."""

    share: float
    waits_for: int | None


class Step(NamedTuple):
    """A table whose primary key is rebuilt, with its approximate number of rows and its size in bytes."""

    table: Table
    rows: int
    size: int

    @property
    def disk(self) -> int:
        """The approximate number of bytes that rebuilding needs."""
        return self.rows * BYTES_PER_ROW

    @property
    def seconds(self) -> int:
        """The approximate duration."""
        return ceil(max(self.rows / 1e6 * SECONDS_PER_MILLION, 2 * self.size / _BYTES_PER_SECOND))


def plan(connection: Connection, schema_name: str) -> list[Step]:
    """Return the tables whose primary key has to be rebuilt."""
    steps = []
    for table in schema.outdated_keys(connection, schema_name):
        row = connection.execute(_SIZE, [_name(connection, schema_name, table)]).fetchone()
        steps.append(Step(table, *(row or (0, 0))))
    return steps


def missing_indexes(connection: Connection, schema_name: str, storage: Storage) -> list[tuple[Table, tuple[str, ...]]]:
    """Return the indexes that event tables lack. Those of partitioned tables are created when a run starts."""
    return [
        (table, columns)
        for table in events.EVENT_TABLES
        for columns in schema.indexes_of(table, storage)
        if schema.has_table(connection, schema_name, table)
        and not partitions.is_partitioned(connection, schema_name, table)
        and _state(connection, schema_name, definitions.index_name(table, columns)) is not True
    ]


@contextmanager
def exclusively(connection: Connection) -> Iterator[None]:
    """Keep others from rebuilding at the same time. Raises Busy if another process does so already."""
    if not queries.scalar(connection, _LOCK):
        raise Busy("Another upgrade of this database is in progress. Wait for it to finish or stop it.")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(_UNLOCK)


def rebuild_key(connection: Connection, schema_name: str, table: Table, report: OnProgress) -> None:
    """Build the index of the present primary key, then replace the primary key by it."""
    index = f"{table.name}_{'_'.join(table.primary_key)}_new"
    _require_values(connection, schema_name, table, report)
    create = SQL("CREATE UNIQUE INDEX CONCURRENTLY {} ON {} ({})").format(
        Identifier(index), qualified(schema_name, table), statements.names(table.primary_key)
    )
    _build(connection, schema_name, index, create)
    _swap(connection, schema_name, table, index, report)


def build_index(connection: Connection, schema_name: str, table: Table, columns: tuple[str, ...]) -> None:
    """Build an index that a table lacks, while it is read and written."""
    name = definitions.index_name(table, columns)
    _build(connection, schema_name, name, definitions.create_index(schema_name, table, columns, concurrently=True))


def progress(connection: Connection, pid: int) -> IndexProgress | None:
    """Return how far another session has built an index; None if it builds none."""
    row = connection.execute(_PROGRESS, [pid]).fetchone()
    return None if row is None else IndexProgress(*row)


def _build(connection: Connection, schema_name: str, index: str, create: Composed) -> None:
    """Build an index. One that was left unfinished by an earlier attempt is dropped first."""
    state = _state(connection, schema_name, index)
    if state is False:
        connection.execute(SQL("DROP INDEX CONCURRENTLY {}").format(Identifier(schema_name, index)))
    if state is not True:
        connection.execute(create)


def _require_values(connection: Connection, schema_name: str, table: Table, report: OnProgress) -> None:
    """Let the database check, without blocking, that all rows have a key; so the swap need not read the table."""
    name, constraint = qualified(schema_name, table), Identifier(_constraint(table))
    if connection.execute(_CHECK, [_name(connection, schema_name, table), _constraint(table)]).fetchone() is None:
        check = SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID")
        present = (SQL("{} IS NOT NULL").format(Identifier(column)) for column in table.primary_key)
        statement = check.format(name, constraint, SQL(" AND ").join(present))
        patiently(connection, statement, _PATIENCE, table.name, report)
    connection.execute(SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(name, constraint))


def _constraint(table: Table) -> str:
    return f"{table.name}_{table.primary_key[0]}_present"


def _swap(connection: Connection, schema_name: str, table: Table, index: str, report: OnProgress) -> None:
    key: str = queries.scalar(connection, _PRIMARY_KEY, [_name(connection, schema_name, table)])
    swap = SQL(
        "ALTER TABLE {table} DROP CONSTRAINT {key}, ADD CONSTRAINT {key} PRIMARY KEY USING INDEX {index},"
        " DROP CONSTRAINT {check}"
    ).format(
        table=qualified(schema_name, table),
        key=Identifier(key),
        index=Identifier(index),
        check=Identifier(_constraint(table)),
    )
    patiently(connection, swap, _PATIENCE, table.name, report)


def _state(connection: Connection, schema_name: str, index: str) -> bool | None:
    """Return whether an index is complete; None if it does not exist."""
    is_complete: bool | None = queries.scalar(connection, _STATE, [schema_name, index])
    return is_complete


def _name(connection: Connection, schema_name: str, table: Table) -> str:
    return qualified(schema_name, table).as_string(connection)
