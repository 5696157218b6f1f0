"""Campaigns, their audiences, messages and variations as resources of revision 2026-10-15."""

from collections.abc import Sequence
from typing import Any

from sandbox.account import Campaign
from sandbox.account.omnichannel import Audience, Message, Variation
from sandbox.current.resources import Ids, Names, Resource, exact, new_resource, pick, references, relation


def omnichannel_campaign(
    base: str, row: Campaign, names: Names, audiences: Sequence[Audience], message: Message, tags: Ids = None
) -> Resource:
    """Return a campaign as a resource of revision 2026-10-15."""
    definition = {
        "name": row.name,
        "builder": "wizard",
        "archived": row.archived,
        "color": None,
        "description": None,
        "send_settings": {"send_timezone": "UTC", "send_strategy": "static", "exit_condition_enabled": False},
    }
    attributes = {
        "created_at": exact(row.created_at),
        "updated_at": exact(row.updated_at),
        "definition": definition,
    }
    resource = new_resource(base, "campaign", "campaigns", row.id, pick(attributes, names))
    of_campaign = {
        "campaign-audiences": references("campaign-audience", [each.id for each in audiences]),
        "campaign-messages": references("campaign-message", [message.id]),
        "tags": references("tag", tags),
    }
    resource["relationships"] = {
        name: relation(base, "campaigns", row.id, name, data) for name, data in of_campaign.items()
    }
    return resource


def campaign_audience(base: str, row: Audience, campaign: Campaign, message: Message, names: Names) -> Resource:
    """Return an audience of a campaign as a resource."""
    attributes = {
        "created": exact(campaign.created_at),
        "updated": exact(campaign.updated_at),
        "definition": {
            "name": row.name,
            "included": row.included,
            "excluded": row.excluded,
            "priority": row.priority,
        },
    }
    resource = new_resource(base, "campaign-audience", "campaign-audiences", row.id, pick(attributes, names))
    messages = [message.id] if message.audience_id == row.id else []
    resource["relationships"] = {
        "campaign": relation(base, "campaign-audiences", row.id, "campaign", {"type": "campaign", "id": campaign.id}),
        "campaign-messages": relation(
            base, "campaign-audiences", row.id, "campaign-messages", references("campaign-message", messages)
        ),
    }
    return resource


def omnichannel_message(base: str, row: Message, names: Names, has_variations: bool) -> Resource:
    """Return a message of a campaign as a resource of revision 2026-10-15, with references to included variations."""
    variations = [each.id for each in row.variations]
    times = {each: exact(row.send_time) for each in variations} if len(variations) > 1 and row.send_time else None
    options = {
        "send_time": exact(row.send_time),
        "send_times": times,
        "send_strategy": row.send_strategy,
        "recipient_percentage": 100,
        "throttling_type": None,
        "throttle_unit": None,
        "is_ignoring_unsubscribes": False,
    }
    definition = {
        "name": row.name,
        "status": row.status,
        "tracking_options": {"is_add_utm": True, "is_tracking_clicks": True, "is_tracking_opens": True},
        "send_options": options,
    }
    attributes = {"created": exact(row.created), "updated": exact(row.updated), "definition": definition}
    resource = new_resource(base, "campaign-message", "campaign-messages", row.id, pick(attributes, names))
    of_message: dict[str, Any] = {
        "campaign": {"type": "campaign", "id": row.campaign_id},
        "campaign-audience": {"type": "campaign-audience", "id": row.audience_id},
        "campaign-variations": references("campaign-variation", variations if has_variations else None),
    }
    resource["relationships"] = {
        name: relation(base, "campaign-messages", row.id, name, data) for name, data in of_message.items()
    }
    return resource


def campaign_variation(base: str, row: Variation, message: Message, names: Names) -> Resource:
    """Return a variation of a message, which holds the subject and the sender, as a resource."""
    attributes = {
        "created": exact(message.created),
        "updated": exact(message.updated),
        "definition": {"name": row.name, "details": row.details},
    }
    resource = new_resource(base, "campaign-variation", "campaign-variations", row.id, pick(attributes, names))
    owner = {"type": "campaign-message", "id": message.id}
    resource["relationships"] = {
        "campaign-message": relation(base, "campaign-variations", row.id, "campaign-message", owner)
    }
    return resource
