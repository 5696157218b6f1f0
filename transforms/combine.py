"""The frames of consecutive batches combined into one: the rows that merging them one by one would leave."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from transforms.clean import last_by
from transforms.events import widened

_NUMBER = "__number"


def combined(load: Load, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return one frame for a load. Of rows with the same key the last stays; the times of flow campaigns widen."""
    if len(frames) == 1:
        return frames[0]
    if load is loads.FLOW_CAMPAIGNS:
        return widened(pl.concat(frames))
    key = [name for name in load.table.identity if name in load.schema]
    if load.absent_per is None:
        return pl.concat(frames).pipe(last_by, *key)
    numbered = pl.concat(frame.with_columns(pl.lit(number).alias(_NUMBER)) for number, frame in enumerate(frames))
    is_latest = pl.col(_NUMBER) == pl.col(_NUMBER).max().over(load.absent_per)  # each frame has complete groups
    return numbered.filter(is_latest).drop(_NUMBER).pipe(last_by, *key)
