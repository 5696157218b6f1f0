"""Frames for tags, their groups, and what they are on."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import row_key

_TAG = dict.fromkeys(("id", "name", "tag_group_id"), pl.String())
_TAG_GROUP = {"id": pl.String(), "name": pl.String(), "is_exclusive": pl.Boolean(), "is_default": pl.Boolean()}
_TAGGED = {"object_id": pl.String(), "tag_id": pl.List(pl.String())}

Taggable = rows.Campaign | rows.Flow | rows.Group


def tags(tags: Sequence[rows.Tag], integration_id: str) -> Cleaned:
    """Return the frame for the load TAGS."""
    raw = pl.DataFrame(tags, _TAG, orient="row").pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(
        key=row_key(integration_id, pl.col("id")), tag_group_key=row_key(integration_id, pl.col("tag_group_id"))
    )
    return Cleaned(conformed(frame, loads.TAGS), raw.nul_characters)


def tag_groups(groups: Sequence[rows.TagGroup], integration_id: str) -> Cleaned:
    """Return the frame for the load TAG_GROUPS."""
    raw = pl.DataFrame(groups, _TAG_GROUP, orient="row").pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(key=row_key(integration_id, pl.col("id")))
    return Cleaned(conformed(frame, loads.TAG_GROUPS), raw.nul_characters)


def tagged(objects: Sequence[Taggable], object_type: str, integration_id: str) -> Cleaned:
    """Return the frame for the load TAGGED_OBJECTS, without the objects whose tags are unknown.

    Each object also has a row without a key. It is not stored: it marks the object's tags as complete.
    """
    known = [(each.id, each.tags) for each in objects if each.tags is not None]
    raw = pl.DataFrame(known, _TAGGED, orient="row").pipe(cleaned)
    frame = raw.frame.pipe(last_by, "object_id").with_columns(object_key=row_key(integration_id, pl.col("object_id")))
    pairs = frame.explode("tag_id").with_columns(pl.col("tag_id").str.replace_all("\0", "", literal=True))
    pairs = pairs.filter(pl.col("tag_id") != "").with_columns(object_type=pl.lit(object_type))
    pairs = pairs.with_columns(id=pl.concat_str("tag_id", "object_type", "object_id", separator=":"))
    pairs = pairs.pipe(last_by, "id").with_columns(
        key=row_key(integration_id, pl.col("id")), tag_key=row_key(integration_id, pl.col("tag_id"))
    )
    marker = frame.select("object_key")
    parts = [conformed(marker, loads.TAGGED_OBJECTS), conformed(pairs, loads.TAGGED_OBJECTS)]
    return Cleaned(pl.concat(parts), raw.nul_characters)
