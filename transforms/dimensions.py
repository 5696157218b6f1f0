"""Frames for metrics, campaigns, flows, lists and segments."""

from collections.abc import Mapping, Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import events, loads
from transforms.clean import Cleaned, cleaned, conformed, frame_of_rows, last_by, same
from transforms.keys import md5, row_key

_TEXT, _FLAG, _TIME, _IDS = pl.String(), pl.Boolean(), pl.Datetime("us", "UTC"), pl.List(pl.String())
_TIMES = {"created_at": ("created", _TIME), "updated_at": ("updated", _TIME)}

_METRIC = {
    **same(_TEXT, "id", "name", "integration_id", "integration_name"),
    "source": ("category", _TEXT),
    **_TIMES,
}
_CAMPAIGN = {
    **same(_TEXT, "id", "name", "from_email", "from_name", "subject", "status", "campaign_type"),
    "list_key": ("list_id", _TEXT),
    **same(_TIME, "sent_at", "scheduled_at"),
    **_TIMES,
    **same(_IDS, "included", "excluded"),
    **same(_FLAG, "archived"),
}
_FLOW = {**same(_TEXT, "id", "name", "status", "trigger_type"), **_TIMES, **same(_FLAG, "archived")}
_GROUP = {**same(_TEXT, "id", "name"), **_TIMES}
_SEGMENT = {**_GROUP, **same(_FLAG, "is_active", "is_starred", "is_processing")}


def metrics(metrics: Sequence[rows.Metric], destinations: Mapping[str, str], integration_id: str) -> Cleaned:
    """Return the frame for the load METRICS. `destinations` names the event table of each metric id."""
    raw = frame_of_rows(metrics, _METRIC).pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(
        key=row_key(integration_id, pl.col("id")),
        destination=pl.col("id").replace_strict(destinations, default=events.EVENTS.name, return_dtype=pl.String()),
    )
    return Cleaned(conformed(frame, loads.METRICS), raw.nul_characters)


def campaigns(campaigns: Sequence[rows.Campaign], integration_id: str) -> tuple[Cleaned, pl.DataFrame]:
    """Return the frames for the loads CAMPAIGNS and CAMPAIGN_LISTS.

    In CAMPAIGN_LISTS each campaign also has a row without a key. It is not stored: it marks the campaign's audiences as
    complete.
    """
    raw = frame_of_rows(campaigns, _CAMPAIGN).pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(
        key=row_key(integration_id, pl.col("id")),
        campaign_key=md5(pl.col("id")),
        type=pl.lit("Campaign"),
        first_list_key=row_key(integration_id, pl.col("list_key")),
        is_placeholder=pl.lit(False),
    )
    audiences = [_audience(frame, audience, integration_id) for audience in ("excluded", "included")]
    lists = pl.concat([frame.select(campaign_id="id").pipe(conformed, loads.CAMPAIGN_LISTS), *audiences])
    return Cleaned(conformed(frame, loads.CAMPAIGNS), raw.nul_characters), lists.pipe(last_by, "campaign_id", "key")


def _audience(campaigns: pl.DataFrame, audience: str, integration_id: str) -> pl.DataFrame:
    pairs = campaigns.select(campaign_id="id", list_id=audience).explode("list_id").filter(pl.col("list_id") != "")
    pairs = pairs.with_columns(id=pl.col("list_id") + ":" + pl.col("campaign_id"), audience=pl.lit(audience))
    return pairs.with_columns(key=row_key(integration_id, pl.col("id"))).pipe(conformed, loads.CAMPAIGN_LISTS)


def automations(flows: Sequence[rows.Flow], integration_id: str) -> Cleaned:
    """Return the frame for the load AUTOMATIONS."""
    raw = frame_of_rows(flows, _FLOW).pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(
        key=row_key(integration_id, pl.col("id")), automation_key=md5(pl.col("id")), is_placeholder=pl.lit(False)
    )
    return Cleaned(conformed(frame, loads.AUTOMATIONS), raw.nul_characters)


def segments(segments: Sequence[rows.Group], integration_id: str) -> Cleaned:
    """Return the frame for the load SEGMENTS."""
    raw = frame_of_rows(segments, _SEGMENT).pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(key=row_key(integration_id, pl.col("id")))
    return Cleaned(conformed(frame, loads.SEGMENTS), raw.nul_characters)


def groups(groups: Sequence[rows.Group], list_type: str, integration_id: str) -> Cleaned:
    """Return the frame for the load LISTS (list_type 'list') or SEGMENTS_AS_LISTS (list_type 'segment')."""
    raw = frame_of_rows(groups, _GROUP).pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(
        key=row_key(integration_id, pl.col("id")), list_type=pl.lit(list_type)
    )
    return Cleaned(conformed(frame, loads.LISTS), raw.nul_characters)
