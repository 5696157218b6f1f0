"""Lines for COPY turned back into frames, where they cannot be stored as they are. Knows no connection."""

import io

import polars as pl

from klaviyo_pg.catalogue import Load
from klaviyo_pg.rows import Lines

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
    columns = (
        pl.col(name).str.to_datetime(_TIME, time_unit="us", time_zone="UTC") if dtype.is_temporal() else pl.col(name)
        for name, dtype in load.schema.items()
    )
    return texts.select(columns).unique(key, keep="last", maintain_order=True)
