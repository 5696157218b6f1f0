"""The vocabulary of the catalogue: column types, columns, tables, and the rules for merging rows into a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue.personal import Harmless, Personal


class Type(NamedTuple):
    """A column type, as Postgres and polars name it. Paired here so that table and frame cannot drift apart."""

    sql: str
    polars: pl.DataType


TEXT = Type("text", pl.String())
KEY = Type('text COLLATE "C"', pl.String())  # md5 in hexadecimal: comparing bytes keeps its index fast in any locale
DATE = Type("date", pl.Date())
TIMESTAMP = Type("timestamp with time zone", pl.Datetime("us", "UTC"))
UTC_TIMESTAMP = Type("timestamp without time zone", pl.Datetime("us"))  # of views for tools that expect UTC
FLOAT = Type("double precision", pl.Float64())
NUMERIC = Type("numeric", pl.String())  # a string in the frame, so that no digit is lost
JSON = Type("jsonb", pl.String())
INTEGER = Type("bigint", pl.Int64())
BOOLEAN = Type("boolean", pl.Boolean())


class Merge(Enum):
    """The rule for changing a column of a stored row when the same row is loaded again."""

    REPLACE = "takes the new value"
    STAMP = "takes the new value, but a different value alone does not cause an update"
    KEEP = "keeps the stored value"
    EARLIEST = "takes the earlier of the two times"
    LATEST = "takes the later of the two times"
    FROM_LATEST_ROW = "takes the value of the row with the later updated_at, unless that value is null"
    CLEAR = "becomes null, because the source contains the row again"
    UNLESS_NULL = "takes the new value, unless that is null"


@dataclass(frozen=True)
class Column:
    """A column. `current` and `legacy` name the source of its value in each API dialect.

    `personal` says how its text is protected, or why it needs no protection. Only columns without text leave it out.
    """

    name: str
    type: Type
    description: str
    current: str = ""
    legacy: str = ""
    merge: Merge = Merge.REPLACE
    personal: Personal | Harmless | None = None


@dataclass(frozen=True)
class Table:
    """A table of the warehouse. DDL, COPY, upsert, frame schema and database comments are derived from it.

    `ordered_by` is the first column of the primary key of tables that grow without bound: a time, so that rows that are
    written together lie together in the index. The other columns of the key identify a row by themselves.
    An `unlogged` table causes no WAL, and is empty after a crash of Postgres: what depends on its rows has to notice.
    Only the loader reads and writes an `internal` table. It is in a separate schema, away from those for people.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ("key",)
    metric_names: frozenset[str] = frozenset()
    indexes: tuple[tuple[str, ...], ...] = ()
    ordered_by: str | None = None
    unlogged: bool = False
    internal: bool = False

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns that identify a row."""
        return tuple(name for name in self.primary_key if name != self.ordered_by)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True)
class View:
    """A view over the tables. New columns are added at the end; existing ones are never removed."""

    name: str
    description: str
    columns: tuple[Column, ...]


FILLED_IN = frozenset({"esp_source", "esp_integration_id", "__synced_at"})
"""Columns with one value for all rows of a load. The upsert fills them in, so no frame contains them."""


NOT_NULL = ...
"""In a condition (column -> value): any value, but not null."""


class Absent(Enum):
    """The treatment of stored rows that a complete read of the source no longer contains."""

    KEEP = "they are kept"
    MARK = "they are marked with the time of the run, in deleted_at or removed_at"
    DELETE = "they are deleted"


@dataclass(frozen=True, eq=False)
class Load:
    """One way of loading rows into a table: the columns that it fills, and how it merges them.

    - `mostly_new`: a batch usually contains new rows only, so appending them is tried before merging.
    - `omits`: columns of the table that these rows do not have.
    - `merges`: rules that replace those of the columns. A column that a read clears has values only if it is kept.
    - `personal`: the kinds of personal data that replace those of the columns.
    - `newer_by`: a time column. A row does not change a stored row whose time is later.
    - `update_where`: limits which stored rows may be updated: to those that meet any of these conditions (column ->
      value; None means null, NOT_NULL any other value, and False also null).
    - `absent_where`: limits, by one such condition, which stored rows can be absent.
    - `absent_per`: a stored row can be absent only if a loaded row has the same value in this column.
    - `is_doubted`: many rows that are absent by `absent_per` have to be confirmed by a later read. Without it, they are
      as believable as the row that they belong to.
    """

    table: Table
    mostly_new: bool = False
    omits: frozenset[str] = frozenset()
    merges: Mapping[str, Merge] = field(default_factory=dict)
    personal: Mapping[str, Personal] = field(default_factory=dict)
    newer_by: str | None = None
    update_where: Sequence[Mapping[str, object]] = ()
    absent: Absent = Absent.KEEP
    absent_where: Mapping[str, object] = field(default_factory=dict)
    absent_per: str | None = None
    is_doubted: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a loaded row: all except those that the database fills in."""
        return tuple(
            column
            for column in self.table.columns
            if column.name not in self.omits | FILLED_IN and (column.merge is not Merge.CLEAR or self._keeps(column))
        )

    def _keeps(self, column: Column) -> bool:
        return self.merges.get(column.name) is Merge.KEEP

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The polars schema of a frame for this load."""
        return {column.name: column.type.polars for column in self.columns}

    def merge_of(self, column: Column) -> Merge:
        """Return the rule by which this load merges a column."""
        return self.merges.get(column.name, column.merge)

    def personal_of(self, column: Column) -> Personal | Harmless | None:
        """Return the kind of personal data that a column has in the rows of this load."""
        return self.personal.get(column.name, column.personal)
