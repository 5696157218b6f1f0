"""The steps that prepare every frame for Postgres: no NUL, one row for each key, exactly the columns of its load."""

import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import polars as pl

from klaviyo_pg.catalogue import Load
from klaviyo_pg.catalogue.types import JSON, TEXT, TIMESTAMP, Type
from transforms.keys import row_key

_NUL = "\x00"
_JSON_NUL = "\\u0000"
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # with an even number of backslashes before it, or none


Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)
Columns = Mapping[str, tuple[str, Type]]
"""Column -> the field of a row that it is taken from, and its type. Two columns or more."""
TIMES: Columns = {"created_at": ("created", TIMESTAMP), "updated_at": ("updated", TIMESTAMP)}
IDS = Type("text[]", pl.List(TEXT.polars))
"""The IDs in a field of a row. Each gets a separate row in the warehouse, which has no column of this type."""


class Cleaned(NamedTuple):
    """A frame that Postgres can store, and the number of NUL characters that were removed from it."""

    frame: pl.DataFrame
    nul_characters: int = 0


def same(type_: Type, *names: str) -> Columns:
    """Return columns of one type, each with the name of its field."""
    return {name: (name, type_) for name in names}


def cleaned_rows(rows: Sequence[Any], columns: Columns) -> Cleaned:
    """Return the frame with these columns of rows, as `cleaned` leaves it. Other fields of the rows are left out."""
    values = attrgetter(*(field for field, _ in columns.values()))
    schema = {name: type_.polars for name, (_, type_) in columns.items()}
    documents = frozenset(name for name, (_, type_) in columns.items() if type_ is JSON)
    return cleaned(pl.DataFrame(list(map(values, rows)), schema, orient="row"), documents)


def cleaned(
    frame: pl.DataFrame, json_columns: frozenset[str] = frozenset(), blank_columns: frozenset[str] = frozenset()
) -> Cleaned:
    """Remove NUL characters. Turn empty strings into nulls, except in JSON columns and `blank_columns`."""
    if frame.is_empty():
        return Cleaned(frame, 0)
    total = 0
    for name in _columns_with_nul(frame, json_columns):
        without_nul = _json_without_nul if name in json_columns else _text_without_nul
        column, count = without_nul(frame.get_column(name))
        frame, total = frame.with_columns(column), total + count
    unchanged = json_columns | blank_columns
    texts = [name for name in _texts(frame) if name not in unchanged]
    return Cleaned(frame.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)) for name in texts), total)


def _texts(frame: pl.DataFrame) -> list[str]:
    return [name for name, dtype in frame.schema.items() if dtype == pl.String]


def _columns_with_nul(frame: pl.DataFrame, json_columns: frozenset[str]) -> list[str]:
    """Return the columns to clean. Most frames have none, so one query checks all columns."""
    patterns = {name: _JSON_NUL if name in json_columns else _NUL for name in _texts(frame)}
    has_nul = frame.select(pl.col(name).str.contains(nul, literal=True).any() for name, nul in patterns.items())
    return [name for name, has in zip(patterns, has_nul.row(0), strict=True) if has] if patterns else []


def _text_without_nul(column: pl.Series) -> tuple[pl.Series, int]:
    return column.str.replace_all(_NUL, "", literal=True), int(column.str.count_matches(_NUL, literal=True).sum())


def _json_without_nul(column: pl.Series) -> tuple[pl.Series, int]:
    """Remove the escape for NUL, which jsonb refuses."""
    indexes = column.str.contains(_JSON_NUL, literal=True).fill_null(False).arg_true()
    replaced = [_ESCAPED_NUL.subn(r"\1", text) for text in column.gather(indexes)]
    return column.clone().scatter(indexes, [text for text, _ in replaced]), sum(count for _, count in replaced)


def last_by(frame: Frame, *key: str) -> Frame:
    """Keep one row for each key: the one that was read last."""
    if isinstance(frame, pl.DataFrame) and frame.height < 2:
        return frame
    return frame.unique(list(key), keep="last", maintain_order=True)


def conformed(frame: Frame, load: Load) -> Frame:
    """Select exactly the columns of a load, in its order and types. Columns that the frame lacks are null."""
    if isinstance(frame, pl.DataFrame) and frame.is_empty():  # as most frames of a daily run are
        return pl.DataFrame(schema=load.schema)
    schema = frame.collect_schema()
    columns = [
        (pl.col(name) if name in schema else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in load.schema.items()
    ]
    return frame.select(columns)


def by_id(raw: Cleaned, load: Load, integration_id: str, **columns: pl.Expr) -> Cleaned:
    """Return the frame for a load: one row for each `id`, the last one, with its `key` and with these columns added."""
    frame = raw.frame.pipe(last_by, "id").with_columns(key=row_key(integration_id, pl.col("id")), **columns)
    return raw._replace(frame=conformed(frame, load))
