"""Frames for metrics, campaigns, flows, lists and segments."""

from collections.abc import Mapping, Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import events, loads
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import md5, row_key

_TIME = pl.Datetime("us", "UTC")
_IDS = pl.List(pl.String())

_METRIC = {
    "id": pl.String(),
    "name": pl.String(),
    "source": pl.String(),
    "created_at": _TIME,
    "updated_at": _TIME,
    "integration_id": pl.String(),
    "integration_name": pl.String(),
}
_CAMPAIGN = {
    "id": pl.String(),
    "name": pl.String(),
    "list_key": pl.String(),
    "from_email": pl.String(),
    "from_name": pl.String(),
    "subject": pl.String(),
    "status": pl.String(),
    "sent_at": _TIME,
    "campaign_type": pl.String(),
    "created_at": _TIME,
    "updated_at": _TIME,
    "included": _IDS,
    "excluded": _IDS,
    "archived": pl.Boolean(),
    "scheduled_at": _TIME,
}
_FLOW = {
    "id": pl.String(),
    "name": pl.String(),
    "status": pl.String(),
    "created_at": _TIME,
    "updated_at": _TIME,
    "archived": pl.Boolean(),
    "trigger_type": pl.String(),
}
_GROUP = {"id": pl.String(), "name": pl.String(), "created_at": _TIME, "updated_at": _TIME}
_SEGMENT = {**_GROUP, **dict.fromkeys(("is_active", "is_starred", "is_processing"), pl.Boolean())}


def metrics(metrics: Sequence[rows.Metric], destinations: Mapping[str, str], integration_id: str) -> Cleaned:
    """Return the frame for the load METRICS. `destinations` names the event table of each metric id."""
    raw = pl.DataFrame(metrics, _METRIC, orient="row").pipe(cleaned)
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
    raw = pl.DataFrame([each[: len(_CAMPAIGN)] for each in campaigns], _CAMPAIGN, orient="row").pipe(cleaned)
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
    raw = pl.DataFrame([each[: len(_FLOW)] for each in flows], _FLOW, orient="row").pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(
        key=row_key(integration_id, pl.col("id")), automation_key=md5(pl.col("id")), is_placeholder=pl.lit(False)
    )
    return Cleaned(conformed(frame, loads.AUTOMATIONS), raw.nul_characters)


def segments(segments: Sequence[rows.Group], integration_id: str) -> Cleaned:
    """Return the frame for the load SEGMENTS."""
    states = [(*each[: len(_GROUP)], each.is_active, each.is_starred, each.is_processing) for each in segments]
    raw = pl.DataFrame(states, _SEGMENT, orient="row").pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(key=row_key(integration_id, pl.col("id")))
    return Cleaned(conformed(frame, loads.SEGMENTS), raw.nul_characters)


def groups(groups: Sequence[rows.Group], list_type: str, integration_id: str) -> Cleaned:
    """Return the frame for the load LISTS (list_type 'list') or SEGMENTS_AS_LISTS (list_type 'segment')."""
    raw = pl.DataFrame([each[: len(_GROUP)] for each in groups], _GROUP, orient="row").pipe(cleaned)
    frame = raw.frame.pipe(last_by, "id").with_columns(
        key=row_key(integration_id, pl.col("id")), list_type=pl.lit(list_type)
    )
    return Cleaned(conformed(frame, loads.LISTS), raw.nul_characters)
