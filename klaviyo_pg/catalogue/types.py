"""The vocabulary of the catalogue: types, columns, tables, and the ways in which rows are merged into a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import polars as pl


class Type(NamedTuple):
    """A column type: what Postgres calls it and what a frame holds, paired so that they cannot drift apart."""

    sql: str
    polars: pl.DataType


TEXT = Type("text", pl.String())
KEY = Type('text COLLATE "C"', pl.String())  # md5 hex: bytewise order makes its index cheap in any locale
TIMESTAMP = Type("timestamp with time zone", pl.Datetime("us", "UTC"))
FLOAT = Type("double precision", pl.Float64())
NUMERIC = Type("numeric", pl.String())  # as text, so that no digit is lost on the way
JSON = Type("jsonb", pl.String())
INTEGER = Type("bigint", pl.Int64())
BOOLEAN = Type("boolean", pl.Boolean())


class Merge(Enum):
    """What a column becomes when the row is there already and comes again."""

    REPLACE = "the newer value"
    STAMP = "the newer value, but it is no reason to touch the row"
    KEEP = "the older value"
    EARLIEST = "the earlier of the two times"
    LATEST = "the later of the two times"
    OF_LATEST = "the value of the row whose updated_at is later, if it has one"
    CLEAR = "null: the row has been seen again"
    AS_IT_COMES = "the value that comes, even with a row that is older by newer_by"


class Personal(Enum):
    """What a column tells of a person, and so what becomes of it where PERSONAL_DATA is hash | drop."""

    NO = "nothing: stays | stays"
    TEXT = "a text: hashed whole | null"
    JSON = "texts and long numbers within a document: hashed one by one | null"
    RECORD = "a document that has to be told from others: as JSON | hashed whole"
    NAME = "at times an address or a number to call: hashed then | null then"
    NUMBER = "a number, of which a hash would be guessed: null | null"
    KEY_OF_EMAIL = "md5 of the address: md5 of the hashed address | the same"


@dataclass(frozen=True)
class Column:
    """One column; `current` and `legacy` say where its value comes from in each API dialect."""

    name: str
    type: Type
    description: str
    current: str = ""
    legacy: str = ""
    merge: Merge = Merge.REPLACE
    personal: Personal = Personal.NO


@dataclass(frozen=True)
class Table:
    """One table of the warehouse, from which DDL, COPY, upsert, frame schema, comments and docs are derived."""

    name: str
    description: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ("key",)
    metric_names: frozenset[str] = frozenset()
    indexes: tuple[tuple[str, ...], ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True)
class View:
    """A view over the tables: what it tells, column by column. Columns are only ever added, and at the end."""

    name: str
    description: str
    columns: tuple[Column, ...]


FILLED_IN = frozenset({"esp_source", "esp_integration_id", "__synced_at"})
"""Columns that are the same for every row of a load, so the upsert fills them in and no frame carries them."""


class Absent(Enum):
    """What becomes of rows that a complete extraction no longer holds."""

    STAY = "stay"
    MARK = "get the time of the run in deleted_at or removed_at"
    GO = "are deleted"


@dataclass(frozen=True)
class Load:
    """One way in which rows come into a table: which columns they bring and how they are merged.

    `mostly_new` says that a batch usually holds no row that is there already, so that it is worth trying to just append
    it. `newer_by` names a time column: values that come are refused where the stored row is newer. `only_where` says
    which stored rows an upsert may change, `within` which ones may count as absent: column = value, where None stands
    for null and ... for not null. `absent_beside` narrows absence to rows that share that column with a row that came.
    """

    table: Table
    mostly_new: bool = False
    leaves_out: frozenset[str] = frozenset()
    merges: Mapping[str, Merge] = field(default_factory=dict)
    newer_by: str | None = None
    only_where: Mapping[str, object] = field(default_factory=dict)
    absent: Absent = Absent.STAY
    within: Mapping[str, object] = field(default_factory=dict)
    absent_beside: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that a row brings: all but those that the database fills in."""
        return tuple(
            column
            for column in self.table.columns
            if column.name not in self.leaves_out | FILLED_IN and column.merge is not Merge.CLEAR
        )

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The polars schema of a frame for this load."""
        return {column.name: column.type.polars for column in self.columns}

    def merge_of(self, column: Column) -> Merge:
        return self.merges.get(column.name, column.merge)
