"""Frames of batches that follow each other, as one frame: what merging them one after the other would leave."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from transforms.clean import last_by
from transforms.events import widened

_NUMBER = "__number"


def combined(load: Load, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One frame for a load. Of rows with one key the last stays; the times of flow campaigns widen."""
    if len(frames) == 1:
        return frames[0]
    if load is loads.FLOW_CAMPAIGNS:
        return widened(pl.concat(frames))
    key = [name for name in load.table.primary_key if name in load.schema]
    if load.absent_beside is None:
        return pl.concat(frames).pipe(last_by, *key)
    numbered = pl.concat(frame.with_columns(pl.lit(number).alias(_NUMBER)) for number, frame in enumerate(frames))
    latest = pl.col(_NUMBER) == pl.col(_NUMBER).max().over(load.absent_beside)  # a row comes with all that belong to it
    return numbered.filter(latest).drop(_NUMBER).pipe(last_by, *key)
