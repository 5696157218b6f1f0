"""Frames for metrics, campaigns, flows, lists and segments."""

from collections.abc import Mapping, Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import events, loads
from klaviyo_pg.catalogue.types import BOOLEAN, TEXT, TIMESTAMP
from transforms.clean import IDS, TIMES, Cleaned, by_id, cleaned_rows, conformed, last_by, same
from transforms.keys import md5, row_key

_METRIC = {
    **same(TEXT, "id", "name", "integration_id", "integration_name"),
    "source": ("category", TEXT),
    **TIMES,
}
_CAMPAIGN = {
    **same(TEXT, "id", "name", "from_email", "from_name", "subject", "status", "campaign_type"),
    "list_key": ("list_id", TEXT),
    **same(TIMESTAMP, "sent_at", "scheduled_at"),
    **TIMES,
    **same(BOOLEAN, "archived"),
}
_AUDIENCES = {"campaign_id": ("id", TEXT), **same(IDS, "included", "excluded")}
_FLOW = {**same(TEXT, "id", "name", "status", "trigger_type"), **TIMES, **same(BOOLEAN, "archived")}
_GROUP = {**same(TEXT, "id", "name"), **TIMES}
_SEGMENT = {**_GROUP, **same(BOOLEAN, "is_active", "is_starred", "is_processing")}


def metrics(metrics: Sequence[rows.Metric], destinations: Mapping[str, str], integration_id: str) -> Cleaned:
    """Return the frame for the load METRICS. `destinations` names the event table of each metric id."""
    destination = pl.col("id").replace_strict(destinations, default=events.EVENTS.name, return_dtype=TEXT.polars)
    return by_id(cleaned_rows(metrics, _METRIC), loads.METRICS, integration_id, destination=destination)


def campaigns(campaigns: Sequence[rows.Campaign], integration_id: str) -> Cleaned:
    """Return the frame for the load CAMPAIGNS."""
    return by_id(
        cleaned_rows(campaigns, _CAMPAIGN),
        loads.CAMPAIGNS,
        integration_id,
        campaign_key=md5(pl.col("id")),
        type=pl.lit("Campaign"),
        first_list_key=row_key(integration_id, pl.col("list_key")),
        is_placeholder=pl.lit(False),
    )


def campaign_lists(campaigns: Sequence[rows.Campaign], integration_id: str) -> Cleaned:
    """Return the frame for the load CAMPAIGN_LISTS.

    Each campaign also has a row without a key. It is not stored: it marks the campaign's audiences as complete.
    """
    raw = cleaned_rows(campaigns, _AUDIENCES)
    latest = raw.frame.pipe(last_by, "campaign_id")
    audiences = [_audience(latest, audience, integration_id) for audience in ("excluded", "included")]
    frame = pl.concat([conformed(latest, loads.CAMPAIGN_LISTS), *audiences]).pipe(last_by, "campaign_id", "key")
    return raw._replace(frame=frame)


def _audience(campaigns: pl.DataFrame, audience: str, integration_id: str) -> pl.DataFrame:
    pairs = campaigns.select("campaign_id", list_id=audience).explode("list_id").filter(pl.col("list_id") != "")
    pairs = pairs.with_columns(id=pl.col("list_id") + ":" + pl.col("campaign_id"), audience=pl.lit(audience))
    return pairs.with_columns(key=row_key(integration_id, pl.col("id"))).pipe(conformed, loads.CAMPAIGN_LISTS)


def automations(flows: Sequence[rows.Flow], integration_id: str) -> Cleaned:
    """Return the frame for the load AUTOMATIONS."""
    return by_id(
        cleaned_rows(flows, _FLOW),
        loads.AUTOMATIONS,
        integration_id,
        automation_key=md5(pl.col("id")),
        is_placeholder=pl.lit(False),
    )


def segments(segments: Sequence[rows.Group], integration_id: str) -> Cleaned:
    """Return the frame for the load SEGMENTS."""
    return by_id(cleaned_rows(segments, _SEGMENT), loads.SEGMENTS, integration_id)


def groups(groups: Sequence[rows.Group], list_type: str, integration_id: str) -> Cleaned:
    """Return the frame for the load LISTS (list_type 'list') or SEGMENTS_AS_LISTS (list_type 'segment')."""
    return by_id(cleaned_rows(groups, _GROUP), loads.LISTS, integration_id, list_type=pl.lit(list_type))
