"""Frames for the messages of campaigns and flows, and for the actions of flows."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.types import BOOLEAN, JSON, TEXT, TIMESTAMP
from transforms.clean import TIMES, Cleaned, by_id, cleaned_rows, same
from transforms.keys import md5

_CAMPAIGN_MESSAGE = {
    **same(TEXT, "id", "campaign_id", "channel", "label", "subject", "preview_text", "body"),
    **same(TEXT, "from_email", "from_name", "reply_to_email", "template_id", "status", "variation_of"),
    **same(TIMESTAMP, "send_at", "last_send_at"),
    **same(BOOLEAN, "is_local"),
    **TIMES,
}
_FLOW_ACTION = {
    **same(TEXT, "id", "flow_id", "action_type", "status", "next_id", "next_if_true_id", "next_if_false_id"),
    **same(JSON, "definition"),
    **TIMES,
}
_FLOW_MESSAGE = {
    **same(TEXT, "id", "flow_id", "flow_action_id", "channel", "name", "subject", "preview_text"),
    **same(TEXT, "body", "from_email", "from_name", "reply_to_email", "template_id", "status"),
    **same(BOOLEAN, "is_transactional", "uses_smart_sending", "is_variation"),
    **TIMES,
}


def campaign_messages(campaigns: Sequence[rows.Campaign], integration_id: str) -> Cleaned:
    """Return the frame for the load CAMPAIGN_MESSAGES."""
    messages = [message for campaign in campaigns for message in campaign.messages]
    keys = {"message_key": md5(pl.col("id")), "campaign_key": md5(pl.col("campaign_id"))}
    return by_id(cleaned_rows(messages, _CAMPAIGN_MESSAGE), loads.CAMPAIGN_MESSAGES, integration_id, **keys)


def flow_actions(flows: Sequence[rows.Flow], integration_id: str) -> Cleaned:
    """Return the frame for the load FLOW_ACTIONS."""
    actions = [action for flow in flows for action in flow.actions]
    keys = {"automation_key": md5(pl.col("flow_id"))}
    return by_id(cleaned_rows(actions, _FLOW_ACTION), loads.FLOW_ACTIONS, integration_id, **keys)


def flow_messages(flows: Sequence[rows.Flow], integration_id: str) -> Cleaned:
    """Return the frame for the load FLOW_MESSAGES."""
    messages = [message for flow in flows for message in flow.messages]
    keys = {"message_key": md5(pl.col("id")), "automation_key": md5(pl.col("flow_id"))}
    return by_id(cleaned_rows(messages, _FLOW_MESSAGE), loads.FLOW_MESSAGES, integration_id, **keys)
