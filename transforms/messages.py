"""Frames for the messages of campaigns and flows, and for the actions of flows."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import Load, loads
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import md5, row_key

_TIME = pl.Datetime("us", "UTC")
_TIMES = {"created_at": _TIME, "updated_at": _TIME}
_CAMPAIGN_MESSAGE = {
    **dict.fromkeys(("id", "campaign_id", "channel", "label", "subject", "preview_text", "body"), pl.String()),
    **dict.fromkeys(("from_email", "from_name", "reply_to_email", "template_id", "status"), pl.String()),
    "send_at": _TIME,
    "last_send_at": _TIME,
    "is_local": pl.Boolean(),
    **_TIMES,
    "variation_of": pl.String(),
}
_FLOW_ACTION = {
    **dict.fromkeys(("id", "flow_id", "action_type", "status"), pl.String()),
    **dict.fromkeys(("next_id", "next_if_true_id", "next_if_false_id", "definition"), pl.String()),
    **_TIMES,
}
_FLOW_MESSAGE = {
    **dict.fromkeys(("id", "flow_id", "flow_action_id", "channel", "name", "subject", "preview_text"), pl.String()),
    **dict.fromkeys(("body", "from_email", "from_name", "reply_to_email", "template_id", "status"), pl.String()),
    **dict.fromkeys(("is_transactional", "uses_smart_sending", "is_variation"), pl.Boolean()),
    **_TIMES,
}
_JSON = frozenset({"definition"})


def campaign_messages(campaigns: Sequence[rows.Campaign], integration_id: str) -> Cleaned:
    """Return the frame for the load CAMPAIGN_MESSAGES."""
    messages = [message for campaign in campaigns for message in campaign.messages or ()]
    raw = pl.DataFrame(messages, _CAMPAIGN_MESSAGE, orient="row").pipe(cleaned)
    frame = raw.frame.with_columns(campaign_key=md5(pl.col("campaign_id")))
    return Cleaned(_keyed(frame, loads.CAMPAIGN_MESSAGES, integration_id), raw.nul_characters)


def flow_actions(flows: Sequence[rows.Flow], integration_id: str) -> Cleaned:
    """Return the frame for the load FLOW_ACTIONS."""
    actions = [action for flow in flows for action in flow.actions]
    raw = pl.DataFrame(actions, _FLOW_ACTION, orient="row").pipe(cleaned, _JSON)
    return _of_flows(raw, loads.FLOW_ACTIONS, integration_id)


def flow_messages(flows: Sequence[rows.Flow], integration_id: str) -> Cleaned:
    """Return the frame for the load FLOW_MESSAGES."""
    messages = [message for flow in flows for message in flow.messages]
    raw = pl.DataFrame(messages, _FLOW_MESSAGE, orient="row").pipe(cleaned)
    return _of_flows(raw, loads.FLOW_MESSAGES, integration_id)


def _of_flows(raw: Cleaned, load: Load, integration_id: str) -> Cleaned:
    frame = raw.frame.with_columns(automation_key=md5(pl.col("flow_id")))
    return Cleaned(_keyed(frame, load, integration_id), raw.nul_characters)


def _keyed(frame: pl.DataFrame, load: Load, integration_id: str) -> pl.DataFrame:
    """Return one row for each id, with its keys and the columns of the load."""
    return (
        frame.pipe(last_by, "id")
        .with_columns(key=row_key(integration_id, pl.col("id")), message_key=md5(pl.col("id")))
        .pipe(conformed, load)
    )
