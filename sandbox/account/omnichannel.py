"""Campaigns as audiences, messages and variations, as they exist since the API lets one campaign use several channels.

A campaign that tests variants has one message, whose variations are the messages that it has otherwise. A campaign to
several lists has an audience for each. Must not know how an API presents them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sandbox.account.ids import token, ulid
from sandbox.account.model import Campaign, CampaignMessage
from sandbox.hashing import stable_hash

_CHANNELS = {"mobile_push": "push"}


@dataclass(frozen=True, slots=True)
class Audience:
    """The lists and segments that some messages of a campaign are sent to, or not."""

    id: str
    name: str
    included: list[str]
    excluded: list[str]
    priority: int


@dataclass(frozen=True, slots=True)
class Variation:
    """The content of a message on one channel, or of a variant of it."""

    id: str
    name: str
    details: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a campaign to one of its audiences."""

    id: str
    campaign_id: str
    audience_id: str
    name: str
    status: str
    send_time: datetime | None
    send_strategy: str
    created: datetime
    updated: datetime
    variations: Sequence[Variation]


def audiences_of(campaign: Campaign) -> list[Audience]:
    """Return the audiences of a campaign."""
    several = [[each] for each in campaign.included] or [[]]
    return [
        Audience(token("audience", campaign.id, at), f"Audience {at + 1}", included, campaign.excluded, at + 1)
        for at, included in enumerate(several)
    ]


def message_of(campaign: Campaign) -> Message:
    """Return the message of a campaign."""
    first, is_test = campaign.messages[0], len(campaign.messages) > 1
    return Message(
        id=ulid(campaign.created_at.timestamp() + 2, stable_hash("tested message", first.id)) if is_test else first.id,
        campaign_id=campaign.id,
        audience_id=audiences_of(campaign)[0].id,
        name="Test" if is_test else first.label,
        status=campaign.status.lower(),
        send_time=campaign.scheduled_at,
        send_strategy="content_variation" if is_test else "static",
        created=first.created_at,
        updated=first.updated_at,
        variations=[_variation(each, is_test) for each in campaign.messages],
    )


def _variation(message: CampaignMessage, is_test: bool) -> Variation:
    channel = _CHANNELS.get(message.channel, message.channel)
    template = {"template_id": token("template", message.id)} if channel == "email" else {}
    row_id = message.id if is_test else ulid(message.created_at.timestamp(), stable_hash("variation", message.id))
    return Variation(row_id, message.label, {"channel": channel, **template, **message.content})
