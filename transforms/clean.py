"""What every frame goes through: unusable text out, one row for each key, exactly the columns of its load."""

import re
from typing import NamedTuple, TypeVar

import polars as pl

from klaviyo_pg.catalogue import Load

_NUL = "\x00"
_JSON_NUL = "\\u0000"
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # an even number of backslashes before it, or none


Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


class Cleaned(NamedTuple):
    """A frame that Postgres can hold, and how many NUL characters were taken out of it."""

    frame: pl.DataFrame
    nul_characters: int


def cleaned(
    frame: pl.DataFrame, json_columns: frozenset[str] = frozenset(), blank_columns: frozenset[str] = frozenset()
) -> Cleaned:
    """The frame without NUL characters, and with nulls for empty strings but in JSON columns and `blank_columns`."""
    count = 0
    for name in _columns_with_nul(frame, json_columns):
        column, found = (_json_without_nul if name in json_columns else _text_without_nul)(frame.get_column(name))
        frame, count = frame.with_columns(column), count + found
    kept = json_columns | blank_columns
    texts = [name for name in _texts(frame) if name not in kept]
    return Cleaned(frame.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)) for name in texts), count)


def _texts(frame: pl.DataFrame) -> list[str]:
    return [name for name, dtype in frame.schema.items() if dtype == pl.String]


def _columns_with_nul(frame: pl.DataFrame, json_columns: frozenset[str]) -> list[str]:
    """Hardly one ever has any, so all are looked through in one go."""
    marks = {name: _JSON_NUL if name in json_columns else _NUL for name in _texts(frame)}
    found = frame.select(pl.col(name).str.contains(mark, literal=True).any() for name, mark in marks.items())
    return [name for name, has in zip(marks, found.row(0), strict=True) if has] if marks else []


def _text_without_nul(column: pl.Series) -> tuple[pl.Series, int]:
    return column.str.replace_all(_NUL, "", literal=True), int(column.str.count_matches(_NUL, literal=True).sum())


def _json_without_nul(column: pl.Series) -> tuple[pl.Series, int]:
    """NUL stands in JSON as an escape, which jsonb refuses."""
    found = column.str.contains(_JSON_NUL, literal=True).fill_null(False).arg_true()
    replaced = [_ESCAPED_NUL.subn(r"\1", text) for text in column.gather(found)]
    return column.clone().scatter(found, [text for text, _ in replaced]), sum(count for _, count in replaced)


def last_by(frame: Frame, *key: str) -> Frame:
    """One row for each key: of several the one that was read last."""
    return frame.unique(list(key), keep="last", maintain_order=True)


def conformed(frame: Frame, load: Load) -> Frame:
    """Exactly the columns of a load, in its order and types; those that the frame does not have are null."""
    known = frame.collect_schema()
    columns = [
        (pl.col(name) if name in known else pl.lit(None)).cast(dtype).alias(name) for name, dtype in load.schema.items()
    ]
    return frame.select(columns)
