"""Events into the seven event tables, and what else they tell: flow campaigns, joining and leaving lists."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.catalogue import loads
from klaviyo_pg.klaviyo.rows import Events
from transforms.clean import Frame, cleaned, conformed, last_by
from transforms.keys import md5, row_key

_JSON = frozenset({"properties"})
_NUMBER = r"^[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})?$"  # numeric holds all of these
_SUBSCRIBED = "Subscribed to List"
_UNSUBSCRIBED = sorted(tables.UNSUBSCRIBES.metric_names)  # whichever table the user has chosen for them
_SCHEMA = {
    "id": pl.String(),
    "at": pl.Int64(),
    "metric_id": pl.String(),
    "event_name": pl.String(),
    "destination": pl.String(),
    "profile_id": pl.String(),
    "email": pl.String(),
    "message": pl.String(),
    "flow": pl.String(),
    "campaign_name": pl.String(),
    "subject": pl.String(),
    "list_name": pl.String(),
    "value": pl.String(),
    "value_currency": pl.String(),
    "properties": pl.String(),
}


class Metrics(NamedTuple):
    """What is known of the metrics, by id: the name, and the event table that holds its events."""

    names: Mapping[str, str | None]
    destinations: Mapping[str, str]


class EventFrames(NamedTuple):
    """Frames for the loads of the event tables (by table), FLOW_CAMPAIGNS and SUBSCRIPTION_CHANGES."""

    tables: Mapping[str, pl.DataFrame]
    flow_campaigns: pl.DataFrame
    subscription_changes: pl.DataFrame
    nul_characters: int


def event_frames(found: Events, metrics: Metrics, integration_id: str) -> EventFrames:
    """Split events by table. Of two with one id the one that was read last stays."""
    columns: dict[str, list[Any]] = found._asdict()
    columns["event_name"] = _looked_up(metrics.names, found.metric_id, None)
    columns["destination"] = _looked_up(metrics.destinations, found.metric_id, tables.EVENTS.name)
    raw = pl.DataFrame(columns, _SCHEMA).pipe(cleaned, _JSON)
    frame = (
        raw.frame.lazy()
        .pipe(last_by, "id")
        .with_columns(
            event_at=pl.from_epoch("at", "s").dt.replace_time_zone("UTC").dt.cast_time_unit("us"),
            value=_numeric(pl.col("value")),
            key=row_key(integration_id, pl.col("id")),
            member_key=md5(pl.col("profile_id")),
            metric_key=row_key(integration_id, pl.col("metric_id")),
            campaign_key=md5(pl.col("message")),
            automation_key=md5(pl.col("flow")),
        )
        .collect()
    )
    parts = {str(name): part for (name,), part in sorted(frame.partition_by("destination", as_dict=True).items())}
    flow_campaigns, subscription_changes, *by_table = pl.collect_all(
        [
            _flow_campaigns(frame.lazy(), integration_id),
            _subscription_changes(frame.lazy()),
            *(part.lazy().pipe(conformed, loads.EVENTS[name]) for name, part in parts.items()),
        ]
    )
    return EventFrames(
        dict(zip(parts, by_table, strict=True)), flow_campaigns, subscription_changes, raw.nul_characters
    )


def _looked_up(known: Mapping[str, str | None], ids: Sequence[str | None], default: str | None) -> list[str | None]:
    return [default if each is None else known.get(each, default) for each in ids]


def _numeric(text: pl.Expr) -> pl.Expr:
    """The digits of a number, as they came; null for what is no number."""
    digits = text.str.strip_chars()
    return pl.when(digits.str.contains(_NUMBER)).then(digits)


def _flow_campaigns(frame: pl.LazyFrame, integration_id: str) -> pl.LazyFrame:
    """The messages of flows: named as in their latest event, created and updated with their first and latest."""
    sends = frame.filter(pl.col("flow").is_not_null() & pl.col("message").is_not_null()).select(
        "subject", "automation_key", "campaign_key", id="message", name="campaign_name", at="event_at"
    )
    return (
        sends.with_columns(
            key=row_key(integration_id, pl.col("id")), type=pl.lit("Campaign"), created_at="at", updated_at="at"
        )
        .pipe(conformed, loads.FLOW_CAMPAIGNS)
        .pipe(widened)
    )


def widened(flow_campaigns: Frame) -> Frame:
    """One row for each campaign of a frame for FLOW_CAMPAIGNS: its times widen, its names are the latest there are."""
    found = flow_campaigns.sort("updated_at", maintain_order=True).group_by("key")
    latest = {name: pl.col(name).last() for name in loads.FLOW_CAMPAIGNS.schema if name != "key"}
    for name in ("name", "subject"):
        latest[name] = pl.col(name).drop_nulls().last()
    latest |= {"created_at": pl.col("created_at").min(), "updated_at": pl.col("updated_at").max()}
    return found.agg(**latest).pipe(conformed, loads.FLOW_CAMPAIGNS)


def _subscription_changes(frame: pl.LazyFrame) -> pl.LazyFrame:
    change = (
        pl.when((pl.col("destination") == tables.UNSUBSCRIBES.name) | pl.col("event_name").is_in(_UNSUBSCRIBED))
        .then(pl.lit("unsubscribed"))
        .when(pl.col("event_name") == _SUBSCRIBED)
        .then(pl.lit("subscribed"))
    )
    changes = frame.with_columns(change=change).filter(
        pl.col("change").is_not_null() & pl.col("profile_id").is_not_null()
    )
    return changes.select("id", "list_name", "change", member_id="profile_id", changed_at="event_at").pipe(
        conformed, loads.SUBSCRIPTION_CHANGES
    )
