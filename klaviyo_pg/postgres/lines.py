"""Lines for COPY turned back into frames, where they cannot be stored as they are. Knows no connection."""

import io
from array import array

import polars as pl

from klaviyo_pg.catalogue import Load
from klaviyo_pg.rows import TIMES, Lines

_TIME = "%Y-%m-%d %H:%M:%S%.f%:z"


def frame_of(load: Load, lines: Lines) -> pl.DataFrame:
    """Return lines as a frame of the load. Of rows with the same key the last stays."""
    key = load.table.primary_key[-1]
    texts = pl.read_csv(
        io.BytesIO(b"".join(lines.text)),
        has_header=False,
        separator="\t",
        quote_char=None,
        schema=dict.fromkeys(load.schema, pl.String()),
    )
    columns = [_typed(name, dtype) for name, dtype in load.schema.items()]
    return texts.select(columns).unique(key, keep="last", maintain_order=True)


def _typed(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_temporal():
        return pl.col(name).str.to_datetime(_TIME, time_unit="us", time_zone="UTC")
    return (pl.col(name) == "true") if dtype == pl.Boolean() else pl.col(name)


def times_of(rows: pl.DataFrame | Lines) -> pl.DataFrame:
    """Return a frame with the column `event_at` of rows."""
    if isinstance(rows, Lines):
        return pl.DataFrame({"event_at": array(TIMES, rows.times)}, {"event_at": pl.Int64()}).select(
            _moment("event_at")
        )
    return rows


def spans_of(lines: Lines) -> pl.DataFrame:
    """Return the key of each metric of lines, and the time of its first and its last event."""
    spans = [(metric_key, first, last) for metric_key, (first, last) in lines.spans.items()]
    schema = {"metric_key": pl.String(), "first": pl.Int64(), "last": pl.Int64()}
    return pl.DataFrame(spans, schema, orient="row").with_columns(_moment("first"), _moment("last"))


def _moment(name: str) -> pl.Expr:
    return pl.from_epoch(name, "s").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
