"""Frames for events: the seven event tables, and the flow campaigns and list changes that events imply."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.catalogue.personal import MESSAGE_ID
from klaviyo_pg.rows import Events
from transforms.clean import Frame, cleaned, conformed, last_by
from transforms.keys import md5, row_key
from transforms.personal import Protection, with_protected_ids

_JSON = frozenset({"properties"})
NUMBER = r"^[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})?$"
"""The texts that are numbers of events. Postgres' numeric fits all of them."""
_is_message_id = re.compile(MESSAGE_ID).fullmatch
_SUBSCRIBED = "Subscribed to List"
_SUBSCRIBED_TO_ALL = "Subscribed to Email Marketing"
_UNSUBSCRIBED = sorted(tables.UNSUBSCRIBES.metric_names)  # even if the user chose another table for them
_NOT_OF_EMAIL = sorted(tables.NOT_OF_EMAIL)
_UNSUBSCRIBED_FROM_ALL = ("Unsubscribed", "Unsubscribed from Email Marketing")  # whatever list they name
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
    "is_machine_open": pl.Boolean(),
    "is_bot_click": pl.Boolean(),
    "variation": pl.String(),
    "email_domain": pl.String(),
    "channel": pl.String(),
    "read_at": pl.Int64(),
}


class Metrics(NamedTuple):
    """The names of the metrics and the tables of their events, by metric id."""

    names: Mapping[str, str | None]
    destinations: Mapping[str, str]


class EventFrames(NamedTuple):
    """The frames for the loads of the event tables (by table), and of what events imply."""

    tables: Mapping[str, pl.DataFrame]
    flow_campaigns: pl.DataFrame
    subscription_changes: pl.DataFrame
    placeholders: "Placeholders"
    nul_characters: int


def event_frames(
    events: Events,
    read_at: Sequence[int],
    metrics: Metrics,
    integration_id: str,
    protection: Protection | None = None,
) -> EventFrames:
    """Split events by table. Of events with the same id the last stays.

    `read_at` has the time at which each event was requested, in microseconds since the Unix epoch. `protection` is
    applied to IDs only, because keys are derived from them.
    """
    columns: dict[str, Sequence[Any]] = {**events._asdict(), "read_at": read_at}
    columns["event_name"] = _looked_up(metrics.names, events.metric_id, None)
    columns["destination"] = _looked_up(metrics.destinations, events.metric_id, tables.EVENTS.name)
    columns["channel"] = [tables.channel(name) for name in columns["event_name"]]
    columns["properties"] = [str(each, "utf-8") for each in events.properties]
    raw = pl.DataFrame(columns, _SCHEMA).pipe(cleaned, _JSON)
    identified = raw.frame.pipe(with_protected_ids, protection) if protection else raw.frame
    frame = (
        identified.lazy()
        .pipe(last_by, "id")
        .with_columns(
            event_at=pl.from_epoch("at", "s").dt.replace_time_zone("UTC").dt.cast_time_unit("us"),
            extracted_at=pl.from_epoch("read_at", "us").dt.replace_time_zone("UTC"),
            value=_numeric(pl.col("value")),
            key=row_key(integration_id, pl.col("id")),
            member_key=md5(pl.col("profile_id")),
            metric_key=row_key(integration_id, pl.col("metric_id")),
            campaign_key=md5(pl.col("message")),
            automation_key=md5(pl.col("flow")),
            email_domain=_domain(pl.col("email"), pl.col("email_domain")),
        )
        .collect()
    )
    by_table = {str(name): rows for (name,), rows in sorted(frame.partition_by("destination", as_dict=True).items())}
    campaigns, changes, *conforming = pl.collect_all(
        [
            flow_campaigns(frame.lazy(), integration_id),
            subscription_changes(frame.lazy()),
            *(rows.lazy().pipe(conformed, loads.EVENTS[name]) for name, rows in by_table.items()),
        ]
    )
    sent = frame.select("message", "flow").unique().iter_rows()
    read_last = datetime.fromtimestamp(max(read_at, default=0) / 1_000_000, UTC)
    return EventFrames(
        dict(zip(by_table, conforming, strict=True)),
        campaigns,
        changes,
        placeholders(sent, read_last, integration_id),
        raw.nul_characters,
    )


class Placeholders(NamedTuple):
    """The frames for the loads CAMPAIGN_PLACEHOLDERS and FLOW_PLACEHOLDERS."""

    campaigns: pl.DataFrame
    flows: pl.DataFrame


def placeholders(sent: Iterable[tuple[str | None, str | None]], read_at: datetime, integration_id: str) -> Placeholders:
    """Return a row for each campaign and each flow that events mention: `sent` has their messages and flows.

    An ID that does not have the form of one could be a person's name or address, and has no row.
    """
    flows, campaigns = set[str](), set[str]()
    for message, flow in sent:
        if each := flow or message:
            (flows if flow else campaigns).add(each)
    return Placeholders(
        _placeholders(campaigns, loads.CAMPAIGN_PLACEHOLDERS, read_at, integration_id),
        _placeholders(flows, loads.FLOW_PLACEHOLDERS, read_at, integration_id),
    )


def _placeholders(ids: Iterable[str], load: Load, read_at: datetime, integration_id: str) -> pl.DataFrame:
    named = sorted(filter(_is_message_id, ids))
    if not named:
        return pl.DataFrame(schema=load.schema)
    key = md5(pl.col("id"))
    return (
        pl.DataFrame({"id": named})
        .with_columns(
            key=row_key(integration_id, pl.col("id")),
            campaign_key=key,
            automation_key=key,
            type=pl.lit("Campaign"),
            deleted_at=pl.lit(read_at),
            is_placeholder=pl.lit(True),
        )
        .pipe(conformed, load)
    )


def _looked_up(values: Mapping[str, str | None], ids: Sequence[str | None], default: str | None) -> list[str | None]:
    return [default if each is None else values.get(each, default) for each in ids]


def _numeric(text: pl.Expr) -> pl.Expr:
    """Return the digits of a number unchanged, and null for other text."""
    digits = text.str.strip_chars()
    return pl.when(digits.str.contains(NUMBER)).then(digits)


def _domain(address: pl.Expr, said: pl.Expr) -> pl.Expr:
    """Return the domain of an address, or the one that the properties of the event say."""
    of_address = address.str.extract("@([^@]+)$")
    return pl.coalesce(of_address, said).str.to_lowercase()


def flow_campaigns(frame: pl.LazyFrame, integration_id: str) -> pl.LazyFrame:
    """Return the messages of flows, named as in their latest event, with the times of their first and latest event."""
    sends = frame.filter(pl.col("flow").is_not_null() & pl.col("message").is_not_null()).select(
        "subject", "automation_key", "campaign_key", id="message", name="campaign_name", at="event_at"
    )
    return (
        sends.with_columns(
            key=row_key(integration_id, pl.col("id")),
            type=pl.lit("Campaign"),
            created_at="at",
            updated_at="at",
            is_placeholder=pl.lit(False),
        )
        .pipe(conformed, loads.FLOW_CAMPAIGNS)
        .pipe(widened)
    )


def widened(campaigns: Frame) -> Frame:
    """Return one row for each campaign of a frame for FLOW_CAMPAIGNS, with its widest times and its latest names."""
    by_key = campaigns.sort("updated_at", maintain_order=True).group_by("key")
    latest = {name: pl.col(name).last() for name in loads.FLOW_CAMPAIGNS.schema if name != "key"}
    for name in ("name", "subject"):
        latest[name] = pl.col(name).drop_nulls().last()
    latest |= {"created_at": pl.col("created_at").min(), "updated_at": pl.col("updated_at").max()}
    return by_key.agg(**latest).pipe(conformed, loads.FLOW_CAMPAIGNS)


def implies_change(event_name: str | None, destination: str) -> bool:
    """Return whether events of a metric say that someone has subscribed or unsubscribed."""
    is_named = event_name in (_SUBSCRIBED, _SUBSCRIBED_TO_ALL, *_UNSUBSCRIBED)
    return is_named or (destination == tables.UNSUBSCRIBES.name and event_name not in tables.NOT_OF_EMAIL)


def subscription_changes(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return the list changes that events imply."""
    name = pl.col("event_name")
    is_assigned = (pl.col("destination") == tables.UNSUBSCRIBES.name) & ~name.is_in(_NOT_OF_EMAIL).fill_null(False)
    change = (
        pl.when(is_assigned | name.is_in(_UNSUBSCRIBED))
        .then(pl.lit("unsubscribed"))
        .when(name.is_in([_SUBSCRIBED, _SUBSCRIBED_TO_ALL]))
        .then(pl.lit("subscribed"))
    )
    names_no_list = (pl.col("change") == "unsubscribed") & pl.col("list_name").is_null()
    is_for_all = (name == _SUBSCRIBED_TO_ALL) | name.is_in(_UNSUBSCRIBED_FROM_ALL) | names_no_list
    changes = (
        frame.with_columns(change=change)
        .filter(pl.col("change").is_not_null() & pl.col("profile_id").is_not_null())
        .with_columns(scope=pl.when(is_for_all.fill_null(False)).then(pl.lit("all")).otherwise(pl.lit("list")))
    )
    return changes.select("id", "list_name", "change", "scope", member_id="profile_id", changed_at="event_at").pipe(
        conformed, loads.SUBSCRIPTION_CHANGES
    )
