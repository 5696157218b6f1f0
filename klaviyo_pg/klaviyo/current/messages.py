"""The messages that a page of campaigns includes, turned into rows. Sends no requests."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.lenient import boolean, elements, member, moment, related_id

_NO_CONTENT = resources.Content()


def of_campaigns(
    document: resources.CampaignDocument, channel: str, rejects: list[rows.Reject]
) -> Mapping[str, Sequence[rows.CampaignMessage]]:
    """Return the messages of a page by the id of their campaign. Messages of other campaigns are rejected."""
    campaigns = {campaign.id: campaign for campaign in document.data}
    owners = {message.id: each.id for each in document.data for message in _references(each)}
    messages: dict[str, list[rows.CampaignMessage]] = defaultdict(list)
    for message in document.included:
        if message.type not in (None, "campaign-message"):
            continue
        owner = owners.get(message.id) or related_id(message.relationships, "campaign")
        if owner in campaigns:
            messages[owner].append(_message(message, campaigns[owner], channel))
        else:
            raw = msgspec.json.encode({"type": message.type, "id": message.id}).decode()
            rejects.append(rows.Reject(raw, "The message belongs to none of the campaigns on its page."))
    return messages


def _references(campaign: resources.Campaign) -> Sequence[resources.Identifier]:
    related = campaign.relationships and campaign.relationships.messages
    return (related and related.data) or ()


def _message(resource: resources.Message, campaign: resources.Campaign, channel: str) -> rows.CampaignMessage:
    attributes = resource.attributes
    definition = attributes.definition or resources.Definition()
    content = definition.content or _NO_CONTENT
    times = elements(attributes.send_times)
    send_at = sorted(at for each in times if (at := moment(member(each, "datetime"))))
    is_local = [flag for each in times if (flag := boolean(member(each, "is_local"))) is not None]
    return rows.CampaignMessage(
        id=resource.id,
        campaign_id=campaign.id,
        channel=properties.plain_text(definition.channel) or channel,
        label=properties.plain_text(definition.label),
        subject=content.subject or properties.plain_text(content.title),
        preview_text=properties.plain_text(content.preview_text),
        body=properties.plain_text(content.body),
        from_email=content.from_email,
        from_name=content.from_label,
        reply_to_email=properties.plain_text(content.reply_to_email),
        template_id=related_id(resource.relationships, "template"),
        status=campaign.attributes.status,
        send_at=send_at[0] if send_at else None,
        last_send_at=send_at[-1] if send_at else None,
        is_local=any(is_local) if is_local else None,
        created=moment(attributes.created_at),
        updated=moment(attributes.updated_at),
    )
