"""Monthly partitions of the event tables, created before a batch needs them. The caller owns the transaction.

Two outer partitions have what is dated before the first month and after the last one, so that wrong dates do not create
thousands of partitions. There is no default partition: attaching a month would wait for every query that reads it.
"""

from collections.abc import Collection, Iterator
from datetime import date
from typing import NamedTuple

import polars as pl
from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier, Literal

from klaviyo_pg.catalogue import Table
from klaviyo_pg.postgres import definitions, queries
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.lines import times_of
from klaviyo_pg.postgres.statements import qualified
from klaviyo_pg.rows import Lines
from klaviyo_pg.windows import midnight

_FIRST, _END = date(2010, 1, 1), date(2050, 1, 1)  # Klaviyo was founded in 2012; imported orders may be a little older
_IS_PARTITIONED = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)"
_EXISTING = """
SELECT parent.relkind = 'p', ARRAY(
    SELECT child.relname::text FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = parent.oid AND child.relname = ANY(%(names)s)
) FROM pg_class AS parent WHERE parent.oid = to_regclass(%(parent)s)
"""
_PARTS = """
WITH RECURSIVE tree AS (
    SELECT to_regclass(%(name)s)::oid AS oid UNION ALL
    SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = tree.oid
)
SELECT namespace.nspname, class.relname, pg_relation_size(class.oid) / current_setting('block_size')::bigint,
    pg_relation_filepath(class.oid)
FROM tree JOIN pg_class AS class ON class.oid = tree.oid
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
WHERE class.relkind = 'r' ORDER BY class.relname
"""
_COLUMNS = "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(%(name)s) AND NOT attisdropped"
_LOCK = "SELECT pg_advisory_xact_lock(pg_catalog.hashtextextended('klaviyo_pg.partitions', 0))"


class Partition(NamedTuple):
    """A table, or one of its partitions, its size in pages, and the server's file with the rows.

    VACUUM FULL and CLUSTER move all rows into another file.
    """

    table: Table
    schema: str
    name: str
    pages: int
    file: str

    @property
    def identifier(self) -> Identifier:
        """The qualified name."""
        return Identifier(self.schema, self.name)


def stored_partitions(account: Account, table: Table) -> list[Partition]:
    """Return a table, or the partitions that contain its rows."""
    name = account.table(table).as_string(account.connection)
    return [Partition(table, *row) for row in account.execute(_PARTS, name=name)]


def is_partitioned(connection: Connection, schema: str, table: Table) -> bool:
    """Return whether a table exists and is partitioned."""
    return bool(queries.scalar(connection, _IS_PARTITIONED, [qualified(schema, table).as_string(connection)]))


def outer(schema: str, table: Table) -> Iterator[Composed]:
    """Return the statements that create the partitions for what is dated before the first month and after the last."""
    for name, start, end in (
        (f"{table.name}_before_{_FIRST.year}", SQL("MINVALUE"), Literal(midnight(_FIRST))),
        (f"{table.name}_from_{_END.year}", Literal(midnight(_END)), SQL("MAXVALUE")),
    ):
        yield SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
            Identifier(schema, name), qualified(schema, table), start, end
        )


def prepare(account: Account, table: Table, frame: pl.DataFrame) -> None:
    """Create the partitions that the events of a frame need, if the table is partitioned."""
    prepare_months(account, table, _months(frame))


def prepare_months(account: Account, table: Table, wanted: Collection[date]) -> None:
    """Create the partitions of some months, if the table is partitioned.

    Each is created on its own and then attached, so that readers and writers of the table do not wait. Call it
    before the transaction writes rows: it waits for others who create partitions.
    """
    months = {name_of(table, month): month for month in sorted(wanted) if _FIRST <= month < _END}
    if _missing(account, table, months):
        account.execute(_LOCK)
        for name in _missing(account, table, months):
            _create(account, table, name, months[name])


class Partitioning:
    """Which event tables are partitioned, asked once for each of them. Safe to share between threads."""

    def __init__(self) -> None:
        self._is_partitioned: dict[str, bool] = {}

    def prepare(self, account: Account, table: Table, rows: pl.DataFrame | Lines) -> None:
        """Create the partitions that rows need. Asks each time which exist: a month can be dropped at any time."""
        if table.name not in self._is_partitioned:
            self._is_partitioned[table.name] = is_partitioned(account.connection, account.schema, table)
        if self._is_partitioned[table.name]:
            prepare(account, table, times_of(rows))


def name_of(table: Table, month: date) -> str:
    """Return the name of a month's partition."""
    return f"{table.name}_{month:%Y_%m}"


def _months(frame: pl.DataFrame) -> list[date]:
    days = frame.get_column("event_at").drop_nulls().dt.convert_time_zone("UTC").dt.date()
    return days.dt.month_start().unique().to_list()


def _missing(account: Account, table: Table, names: Collection[str]) -> list[str]:
    """Return those of the partitions that do not exist; none if the table is not partitioned."""
    parent = account.table(table).as_string(account.connection)
    row = account.execute(_EXISTING, parent=parent, names=list(names)).fetchone()
    is_partitioned, existing = row or (False, ())
    return [name for name in names if name not in existing] if is_partitioned else []


def _create(account: Account, table: Table, name: str, month: date) -> None:
    """Create a partition. A table that was detached and kept its name is attached, with the columns that it lacks."""
    partition = Identifier(account.schema, name)
    following = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    account.execute(
        account.compose("CREATE TABLE IF NOT EXISTS {partition} (LIKE {} INCLUDING ALL)", table, partition=partition)
    )
    existing = set(account.column(_COLUMNS, name=partition.as_string(account.connection)))
    for column in (each for each in table.columns if each.name not in existing):
        definition = definitions.column_definition(column)
        account.execute(
            account.compose(
                "ALTER TABLE {partition} ADD COLUMN {definition}", partition=partition, definition=definition
            )
        )
    account.execute(
        account.compose(
            "ALTER TABLE {} ATTACH PARTITION {partition} FOR VALUES FROM ({start}) TO ({end})",
            table,
            partition=partition,
            start=Literal(midnight(month)),
            end=Literal(midnight(following)),
        )
    )
