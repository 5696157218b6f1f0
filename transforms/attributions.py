"""The frame for the attributions of events. Knows no event."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.types import TIMESTAMP
from klaviyo_pg.rows import Attribution, EventPage
from transforms.clean import cleaned, conformed, last_by
from transforms.keys import md5, row_key
from transforms.personal import Protection, with_protected_event_ids

_SCHEMA = {name: pl.String() for name in Attribution._fields} | {
    "at": pl.Int64(),
    "is_included": pl.Boolean(),
    "extracted_at": TIMESTAMP.polars,
}
_KEYS = {  # the columns that are digests of IDs
    "campaign_key": "campaign_id",
    "campaign_message_key": "campaign_message_id",
    "automation_key": "flow_id",
    "flow_message_key": "flow_message_id",
    "variation_key": "variation_id",
}


class Attributions(NamedTuple):
    """The frames for the loads EVENT_ATTRIBUTIONS and ATTRIBUTION_IDS, and the NUL characters removed from them."""

    included: pl.DataFrame
    ids: pl.DataFrame
    nul_characters: int


def attributions(pages: Sequence[EventPage], integration_id: str, protection: Protection | None = None) -> Attributions:
    """Return the frames of the attributions of events.

    `protection` is applied to the IDs of events, because keys are derived from them.
    """
    rows = [(*each, page.read_at) for page in pages for each in page.attributions]
    if not rows:
        nothing = pl.DataFrame(schema=loads.EVENT_ATTRIBUTIONS.schema)
        return Attributions(nothing, pl.DataFrame(schema=loads.ATTRIBUTION_IDS.schema), 0)
    raw = pl.DataFrame(rows, _SCHEMA, orient="row").pipe(cleaned)
    named = ("id", "event_id", "attributed_event_id")
    identified = raw.frame.pipe(with_protected_event_ids, protection, *named) if protection else raw.frame
    frame = identified.pipe(last_by, "event_id", "id").with_columns(
        key=row_key(integration_id, pl.col("event_id") + ":" + pl.col("id")),
        event_key=row_key(integration_id, pl.col("event_id")),
        event_at=pl.from_epoch("at", "s").dt.replace_time_zone("UTC").dt.cast_time_unit("us"),
        attributed_event_key=row_key(integration_id, pl.col("attributed_event_id")),
        **{key: md5(pl.col(name)) for key, name in _KEYS.items()},
    )
    included = frame.filter("is_included").pipe(conformed, loads.EVENT_ATTRIBUTIONS)
    ids = frame.filter(~pl.col("is_included")).pipe(conformed, loads.ATTRIBUTION_IDS)
    return Attributions(included, ids, raw.nul_characters)
