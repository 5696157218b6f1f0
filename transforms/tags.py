"""Frames for tags, their groups, and what they are on."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.types import BOOLEAN, TEXT
from transforms.clean import IDS, Cleaned, by_id, cleaned_rows, conformed, last_by, same
from transforms.keys import row_key

_TAG = {**same(TEXT, "id", "name"), "tag_group_id": ("group_id", TEXT)}
_TAG_GROUP = {**same(TEXT, "id", "name"), **same(BOOLEAN, "is_exclusive", "is_default")}
_TAGGED = {"object_id": ("id", TEXT), "tag_id": ("tags", IDS)}

Taggable = rows.Campaign | rows.Flow | rows.Group


def tags(tags: Sequence[rows.Tag], integration_id: str) -> Cleaned:
    """Return the frame for the load TAGS."""
    tag_group_key = row_key(integration_id, pl.col("tag_group_id"))
    return by_id(cleaned_rows(tags, _TAG), loads.TAGS, integration_id, tag_group_key=tag_group_key)


def tag_groups(groups: Sequence[rows.TagGroup], integration_id: str) -> Cleaned:
    """Return the frame for the load TAG_GROUPS."""
    return by_id(cleaned_rows(groups, _TAG_GROUP), loads.TAG_GROUPS, integration_id)


def tagged(objects: Sequence[Taggable], object_type: str, integration_id: str) -> Cleaned:
    """Return the frame for the load TAGGED_OBJECTS, without the objects whose tags are unknown.

    Each object also has a row without a key. It is not stored: it marks the object's tags as complete.
    """
    raw = cleaned_rows([each for each in objects if each.tags is not None], _TAGGED)
    frame = raw.frame.pipe(last_by, "object_id").with_columns(object_key=row_key(integration_id, pl.col("object_id")))
    pairs = frame.explode("tag_id").with_columns(pl.col("tag_id").str.replace_all("\0", "", literal=True))
    pairs = pairs.filter(pl.col("tag_id") != "").with_columns(object_type=pl.lit(object_type))
    pairs = pairs.with_columns(id=pl.concat_str("tag_id", "object_type", "object_id", separator=":"))
    tag_key = row_key(integration_id, pl.col("tag_id"))
    made = by_id(raw._replace(frame=pairs), loads.TAGGED_OBJECTS, integration_id, tag_key=tag_key)
    markers = frame.select("object_key").pipe(conformed, loads.TAGGED_OBJECTS)
    return made._replace(frame=pl.concat([markers, made.frame]))
