"""What every frame goes through: unusable text out, one row for each key, exactly the columns of its load."""

import re
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue import Load

_NUL = "\x00"
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # an even number of backslashes before it, or none


class Cleaned(NamedTuple):
    """A frame that Postgres can hold, and how many NUL characters were taken out of it."""

    frame: pl.DataFrame
    nul_characters: int


def cleaned(
    frame: pl.DataFrame, json_columns: frozenset[str] = frozenset(), blank_columns: frozenset[str] = frozenset()
) -> Cleaned:
    """The frame without NUL characters, and with nulls for empty strings but in JSON columns and `blank_columns`."""
    count = 0
    columns = []
    for column in frame.get_columns():
        if column.dtype == pl.String:
            column, found = (_json_without_nul if column.name in json_columns else _text_without_nul)(column)
            count += found
        columns.append(column)
    kept = json_columns | blank_columns
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String and name not in kept]
    blank_is_null = [pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in texts]
    return Cleaned(pl.DataFrame(columns).with_columns(blank_is_null), count)


def _text_without_nul(column: pl.Series) -> tuple[pl.Series, int]:
    count = int(column.str.count_matches(_NUL, literal=True).sum())
    return (column.str.replace_all(_NUL, "", literal=True), count) if count else (column, 0)


def _json_without_nul(column: pl.Series) -> tuple[pl.Series, int]:
    """NUL stands in JSON as an escape, which jsonb refuses."""
    found = column.str.contains("\\u0000", literal=True).fill_null(False).arg_true()
    if found.is_empty():
        return column, 0
    replaced = [_ESCAPED_NUL.subn(r"\1", text) for text in column.gather(found)]
    return column.clone().scatter(found, [text for text, _ in replaced]), sum(count for _, count in replaced)


def last_by(frame: pl.DataFrame, *key: str) -> pl.DataFrame:
    """One row for each key: of several the one that was read last."""
    return frame.unique(list(key), keep="last", maintain_order=True)


def conformed(frame: pl.DataFrame, load: Load) -> pl.DataFrame:
    """Exactly the columns of a load, in its order and types; those that the frame does not have are null."""
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in load.schema.items()
    ]
    return frame.select(columns)
