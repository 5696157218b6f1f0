"""Campaigns as revision 2026-07-15 serves them: listed by channel, with one message for each variant of a test."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product

from klaviyo_pg import rows
from klaviyo_pg.errors import OtherRevision
from klaviyo_pg.klaviyo.client import Endpoint
from klaviyo_pg.klaviyo.collections import in_parts
from klaviyo_pg.klaviyo.current import messages, resources, tags
from klaviyo_pg.klaviyo.current.filters import ARCHIVED
from klaviyo_pg.klaviyo.current.reader import Reader
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.lenient import boolean, moment
from klaviyo_pg.klaviyo.pace import Limit

CHANNELS = ("email", "sms", "mobile_push")  # campaigns can only be listed by channel
_SENT = frozenset({"Sending", "Sending Segments", "Variations Sent", "Sent"})
"""The statuses of a campaign that was sent, or is being sent. The `send_time` of others is when they are to be sent."""
CAMPAIGNS = Endpoint("api/campaigns", "campaigns:read", Limit(10, 150), 100, "campaigns")
_DOCUMENT = DocumentDecoder(resources.CampaignDocument, data=resources.Campaign, included=resources.Message)


def read(reader: Reader) -> Iterator[rows.Page[rows.Campaign]]:
    """Read all campaigns, each with its messages and the content of the first one."""
    parts = {
        f"{prefix}{channel}": partial(_part, reader, channel, archived)
        for channel, (archived, prefix) in product(CHANNELS, ARCHIVED.items())
    }
    return in_parts(parts)


def _part(reader: Reader, channel: str, archived: str) -> Iterator[rows.Page[rows.Campaign]]:
    query = {
        "filter": f"equals(messages.channel,'{channel}'),equals(archived,{archived})",
        "include": "campaign-messages",
        "fields[campaign]": "name,status,archived,audiences,created_at,scheduled_at,updated_at,send_time",
        "fields[campaign-message]": "definition,send_times,created_at,updated_at",
    }
    for document, rejects, read_at in reader.tagged_pages(CAMPAIGNS, _DOCUMENT, query):
        if any(map(_is_of_another_revision, document.data)):
            raise OtherRevision("campaigns", "2026-07-15")
        yield rows.Page(_campaigns(document, channel, rejects), rejects, read_at)


def _is_of_another_revision(resource: resources.Campaign) -> bool:
    attributes = resource.attributes
    return isinstance(attributes.definition, dict) and attributes.name is None and attributes.status is None


def _campaigns(document: resources.CampaignDocument, channel: str, rejects: list[rows.Reject]) -> list[rows.Campaign]:
    contents = {
        message.id: message.attributes.definition.content
        for message in document.included
        if message.attributes.definition
    }
    of_campaigns = messages.of_campaigns(document, channel, rejects)
    return [
        _campaign(resource, channel, contents)._replace(messages=of_campaigns.get(resource.id, ()))
        for resource in document.data
    ]


def _campaign(
    resource: resources.Campaign, channel: str, contents: Mapping[str, resources.Content | None]
) -> rows.Campaign:
    attributes, content = resource.attributes, _content(resource, contents)
    audiences = attributes.audiences or resources.Audiences()
    included, excluded = audiences.included or [], audiences.excluded or []
    return rows.Campaign(
        id=resource.id,
        name=attributes.name,
        list_id=included[0] if included else None,
        from_email=content.from_email,
        from_name=content.from_label,
        subject=content.subject,
        status=attributes.status,
        sent_at=rows.utc(attributes.send_time) if attributes.status in _SENT else None,
        campaign_type=channel,
        created=rows.utc(attributes.created_at),
        updated=rows.utc(attributes.updated_at),
        included=included,
        excluded=excluded,
        archived=boolean(attributes.archived),
        scheduled_at=moment(attributes.scheduled_at),
        tags=tags.ids_of({"tags": resource.relationships.tags}) if resource.relationships else None,
    )


def _content(resource: resources.Campaign, contents: Mapping[str, resources.Content | None]) -> resources.Content:
    """Return the first content that any of a campaign's messages has."""
    related = resource.relationships and resource.relationships.messages
    messages = (contents.get(message.id) for message in (related and related.data) or ())
    return next((content for content in messages if content is not None), resources.Content())
