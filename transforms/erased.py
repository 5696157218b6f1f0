"""Removal of people who were erased, for as long as the source still returns them."""

from collections.abc import Collection

import polars as pl

from klaviyo_pg.catalogue import Load, events
from transforms.keys import md5

_OF_THE_PERSON = ("member_key", "email", "properties")


def without(frame: pl.DataFrame, load: Load, erased: Collection[str]) -> pl.DataFrame:
    """Remove the people with these member keys. Their events stay, without the columns that identify a person."""
    if not erased:
        return frame
    if "member_key" in frame.columns:
        key = pl.col("member_key")
    elif "member_id" in frame.columns:
        key = md5(pl.col("member_id"))
    else:
        return frame
    stays = ~key.is_in(list(erased)).fill_null(False)
    if load.table in events.EVENT_TABLES:
        return frame.with_columns(pl.when(stays).then(pl.col(name)).alias(name) for name in _OF_THE_PERSON)
    return frame.filter(stays)
