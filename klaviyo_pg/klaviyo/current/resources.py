"""The JSON:API documents of the current dialect, with the fields that are used. Knows no rows and sends no requests."""

from datetime import datetime
from typing import Any

from msgspec import Raw, Struct, field

from klaviyo_pg.klaviyo.fields import AnyId, Id, Named, Seconds


class Links(Struct, frozen=True):
    """A link to the next page."""

    next: str | None = None


class Identifier(Struct, frozen=True, gc=False):
    """The id of a resource."""

    id: Named


class Relationship(Struct, frozen=True, gc=False):
    """A reference to a related resource, if there is one."""

    data: Identifier | None = None


def id_of(related: Relationship | None) -> str | None:
    """Return the ID of a related resource; None if there is no such resource."""
    return None if related is None or related.data is None else related.data.id


class EventAttributes(Struct, frozen=True, gc=False):
    """An event's attributes."""

    timestamp: Seconds
    event_properties: Raw = Raw(b"null")


class EventRelationships(Struct, frozen=True, gc=False):
    """An event's profile and metric, and a reference to its attributions, undecoded. Most events have none."""

    profile: Relationship | None = None
    metric: Relationship | None = None
    attributions: Raw = Raw()


class References(Struct, frozen=True):
    """References to related resources."""

    data: list[Identifier] | None = None


class Event(Struct, frozen=True, gc=False):
    """An event."""

    id: Named  # `properties.read` checks all ids of a page for a NUL at once
    attributes: EventAttributes
    relationships: EventRelationships | None = None


class Location(Struct, frozen=True):
    """A person's location. Coordinates can be text."""

    address1: str | None = None
    address2: str | None = None
    city: str | None = None
    country: str | None = None
    latitude: float | str | None = None
    longitude: float | str | None = None
    region: str | None = None
    zip: str | None = None
    timezone: str | None = None


class Suppression(Struct):
    """The reason for a suppression, and its time."""

    reason: str
    timestamp: datetime | None = None


class ListSuppression(Struct):
    """A suppression for one list, its time and its reason."""

    list_id: str
    timestamp: datetime | None = None
    reason: str | None = None


class Marketing(Struct, frozen=True):
    """Consent to email marketing."""

    consent: str | None = None
    consent_timestamp: datetime | None = None
    suppression: list[Suppression] | None = None
    list_suppressions: list[ListSuppression] | None = None
    can_receive_email_marketing: Any = None
    method: Any = None
    method_detail: Any = None
    last_updated: Any = None
    double_optin: Any = None


class Channel(Struct):
    """A person's consent to emails."""

    marketing: Marketing | None = None


class Subscriptions(Struct):
    """A person's consent on all channels. Only that for emails decides anything, so only that has to be well-formed."""

    email: Channel | None = None
    sms: Any = None
    mobile_push: Any = None
    whatsapp: Any = None


class ProfileAttributes(Struct):
    """A person's attributes."""

    email: str | None = None
    phone_number: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    created: datetime | None = None
    updated: datetime | None = None
    location: Location | None = None
    properties: dict[str, Raw] | None = None
    subscriptions: Subscriptions | None = None
    joined_group_at: datetime | None = None
    external_id: str | None = None
    organization: str | None = None
    title: str | None = None
    locale: str | None = None
    last_event_date: datetime | None = None


class Profile(Struct):
    """A person."""

    id: Id
    attributes: ProfileAttributes


class Included(Struct):
    """A resource that is included on a page, of which only the type is decoded."""

    type: Any = None


class AttributionRelationships(Struct, frozen=True):
    """The event that an event is attributed to, and the message that caused it."""

    event: Relationship | None = None
    attributed_event: Relationship | None = field(default=None, name="attributed-event")
    campaign: Relationship | None = None
    campaign_message: Relationship | None = field(default=None, name="campaign-message")
    flow: Relationship | None = None
    flow_message: Relationship | None = field(default=None, name="flow-message")
    variation: Relationship | None = field(default=None, name="flow-message-variation")


class Attribution(Struct, frozen=True):
    """An attribution of an event."""

    id: Id
    relationships: AttributionRelationships | None = None


class EventDocument(Struct):
    """A page of events with the people in them."""

    data: list[Event]
    included: list[Raw] = []  # profiles and attributions
    links: Links | None = None


class OneEventDocument(Struct):
    """A response with one event."""

    data: Event


class ProfileDocument(Struct):
    """A page of people."""

    data: list[Profile]
    links: Links | None = None


class Integration(Struct, frozen=True):
    """The origin of a metric. Some integrations have an object as their category."""

    id: Any = None
    name: Any = None
    category: Any = None


class MetricAttributes(Struct):
    """A metric's attributes."""

    name: str | None = None
    created: datetime | None = None
    updated: datetime | None = None
    integration: Integration | None = None


class Metric(Struct):
    """A metric."""

    id: Id
    attributes: MetricAttributes


class MetricDocument(Struct):
    """A page of metrics."""

    data: list[Metric]
    links: Links | None = None


class Audiences(Struct, frozen=True):
    """The ids of the lists and segments that a campaign is sent to, and of those that it excludes."""

    included: list[AnyId] | None = None
    excluded: list[AnyId] | None = None


class CampaignAttributes(Struct):
    """A campaign's attributes, without the subject and the sender, which its message has.

    Only a later revision has a `definition`.
    """

    name: str | None = None
    status: str | None = None
    audiences: Audiences | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    send_time: datetime | None = None
    archived: Any = None
    scheduled_at: Any = None
    definition: Any = None


class Messages(Struct, frozen=True):
    """References to a campaign's messages."""

    data: list[Identifier] | None = None


class CampaignRelationships(Struct, frozen=True):
    """A campaign's related resources."""

    messages: Messages | None = field(default=None, name="campaign-messages")
    tags: Any = None


class Campaign(Struct):
    """A campaign."""

    id: Id
    attributes: CampaignAttributes
    relationships: CampaignRelationships | None = None


class Content(Struct, frozen=True):
    """The content of a message. Only emails have a subject and a sender, and only other messages a body."""

    subject: str | None = None
    from_email: str | None = None
    from_label: str | None = None
    preview_text: Any = None
    reply_to_email: Any = None
    title: Any = None
    body: Any = None


class Definition(Struct, frozen=True):
    """The definition of a message."""

    content: Content | None = None
    channel: Any = None
    label: Any = None


class MessageAttributes(Struct):
    """A message's attributes."""

    definition: Definition | None = None
    send_times: Any = None
    created_at: Any = None
    updated_at: Any = None


class Message(Struct):
    """A message of a campaign, or another resource on the same page: the type says so."""

    id: Id
    attributes: MessageAttributes
    type: Any = None
    relationships: Any = None


class CampaignDocument(Struct):
    """A page of campaigns with their messages."""

    data: list[Campaign]
    included: list[Message] = []
    links: Links | None = None


class FlowAttributes(Struct):
    """A flow's attributes."""

    name: str | None = None
    status: str | None = None
    created: datetime | None = None
    updated: datetime | None = None
    archived: Any = None
    trigger_type: Any = None


class Flow(Struct):
    """A flow."""

    id: Id
    attributes: FlowAttributes
    relationships: Any = None


class Resource(Struct):
    """A resource of any type. Only its id has to be well-formed."""

    id: Id
    type: Any = None
    attributes: Any = None
    relationships: Any = None


class ResourceDocument(Struct):
    """A page of resources of which only the ids have to be well-formed."""

    data: list[Resource]
    included: list[Resource] = []
    links: Links | None = None


class FlowDocument(Struct):
    """A page of flows with their actions."""

    data: list[Flow]
    included: list[Resource] = []
    links: Links | None = None


class GroupAttributes(Struct):
    """The attributes of a list or segment. Only segments have states."""

    name: str | None = None
    created: datetime | None = None
    updated: datetime | None = None
    is_active: Any = None
    is_starred: Any = None
    is_processing: Any = None


class Group(Struct):
    """A list or a segment."""

    id: Id
    attributes: GroupAttributes
    relationships: Any = None


class GroupDocument(Struct):
    """A page of lists or segments."""

    data: list[Group]
    links: Links | None = None


class Measurements(Struct):
    """The measurements of an aggregate, one for each date."""

    count: list[float] = []


class AggregateRow(Struct):
    """One row of an aggregate. Without a dimension there is only one."""

    measurements: Measurements


class AggregateAttributes(Struct):
    """Dates, and the measurements of the intervals that begin with them."""

    dates: list[datetime]
    data: list[AggregateRow]


class Aggregate(Struct):
    """An aggregate of a metric's events."""

    attributes: AggregateAttributes


class AggregateDocument(Struct):
    """A response with an aggregate."""

    data: Aggregate
