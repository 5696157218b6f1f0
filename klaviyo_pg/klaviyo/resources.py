"""The shapes of the current dialect's answers, as far as they are used: JSON:API documents of revision 2026-07-15."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Raw, Struct, field

Named = Annotated[str, Meta(min_length=1)]
Id = Annotated[str, Meta(min_length=1, pattern=r"^[^\x00]*$")]  # without a NUL it might be another's
AnyId = Annotated[str, Meta(pattern=r"^[^\x00]*$")]
Seconds = Annotated[int, Meta(ge=-62_135_596_800, lt=253_402_300_800)]  # unix seconds of the years 1 to 9999


class Links(Struct, frozen=True):
    """Where the next page is."""

    next: str | None = None


class Identifier(Struct, frozen=True, gc=False):
    """Names a resource."""

    id: Named


class Relationship(Struct, frozen=True, gc=False):
    """Names a related resource, if there is one."""

    data: Identifier | None = None


class EventAttributes(Struct, frozen=True, gc=False):
    """What an event says of itself."""

    timestamp: Seconds
    event_properties: Raw = Raw(b"null")


class EventRelationships(Struct, frozen=True, gc=False):
    """Whose event it is, and of which metric."""

    profile: Relationship | None = None
    metric: Relationship | None = None


class Event(Struct, frozen=True, gc=False):
    """One event."""

    id: Named  # `properties.read` looks for a NUL in those of a page at once
    attributes: EventAttributes
    relationships: EventRelationships | None = None


class Location(Struct, frozen=True):
    """Where a person lives; numbers may come as text."""

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
    """Why and since when a person is not written to."""

    reason: str
    timestamp: datetime | None = None


class ListSuppression(Struct):
    """The same, for one list."""

    list_id: str
    timestamp: datetime | None = None


class Marketing(Struct, frozen=True):
    """Consent to e-mail marketing."""

    consent: str | None = None
    consent_timestamp: datetime | None = None
    suppression: list[Suppression] | None = None
    list_suppressions: list[ListSuppression] | None = None


class Channel(Struct):
    """What a person agreed to on one channel."""

    marketing: Marketing | None = None


class Subscriptions(Struct):
    """What a person agreed to."""

    email: Channel | None = None


class ProfileAttributes(Struct):
    """What is known of a person."""

    email: str | None = None
    phone_number: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    created: datetime | None = None
    location: Location | None = None
    properties: dict[str, Raw] | None = None
    subscriptions: Subscriptions | None = None
    joined_group_at: datetime | None = None


class Profile(Struct):
    """A person."""

    id: Id
    attributes: ProfileAttributes


class EventDocument(Struct):
    """A page of events with the people in them."""

    data: list[Event]
    included: list[Raw] = []  # profiles
    links: Links | None = None


class ProfileDocument(Struct):
    """A page of people."""

    data: list[Profile]
    links: Links | None = None


class Integration(Struct, frozen=True):
    """Where a metric comes from; some integrations give an object as their category."""

    category: Any = None


class MetricAttributes(Struct):
    """What is known of a metric."""

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
    """Lists and segments that a campaign goes to, and those that it leaves out."""

    included: list[AnyId] | None = None
    excluded: list[AnyId] | None = None


class CampaignAttributes(Struct):
    """What is known of a campaign; subject and sender are its message's."""

    name: str | None = None
    status: str | None = None
    audiences: Audiences | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    send_time: datetime | None = None


class Messages(Struct, frozen=True):
    """Names a campaign's messages."""

    data: list[Identifier] | None = None


class CampaignRelationships(Struct, frozen=True):
    """What belongs to a campaign."""

    messages: Messages | None = field(default=None, name="campaign-messages")


class Campaign(Struct):
    """A campaign."""

    id: Id
    attributes: CampaignAttributes
    relationships: CampaignRelationships | None = None


class Content(Struct, frozen=True):
    """What a message says; only e-mails have these."""

    subject: str | None = None
    from_email: str | None = None
    from_label: str | None = None


class Definition(Struct, frozen=True):
    """How a message is made."""

    content: Content | None = None


class MessageAttributes(Struct):
    """What is known of a message."""

    definition: Definition | None = None


class Message(Struct):
    """A message of a campaign."""

    id: Id
    attributes: MessageAttributes


class CampaignDocument(Struct):
    """A page of campaigns with their messages."""

    data: list[Campaign]
    included: list[Message] = []
    links: Links | None = None


class FlowAttributes(Struct):
    """What is known of a flow."""

    name: str | None = None
    status: str | None = None
    created: datetime | None = None
    updated: datetime | None = None


class Flow(Struct):
    """A flow."""

    id: Id
    attributes: FlowAttributes


class FlowDocument(Struct):
    """A page of flows."""

    data: list[Flow]
    links: Links | None = None


class GroupAttributes(Struct):
    """What is known of a list or segment."""

    name: str | None = None
    created: datetime | None = None


class Group(Struct):
    """A list or a segment."""

    id: Id
    attributes: GroupAttributes


class GroupDocument(Struct):
    """A page of lists or segments."""

    data: list[Group]
    links: Links | None = None


class Measurements(Struct):
    """What was measured, date by date."""

    count: list[float] = []


class AggregateRow(Struct):
    """One row of an aggregate; without a dimension there is one."""

    measurements: Measurements


class AggregateAttributes(Struct):
    """Dates, and what was measured in the stretch that begins with each."""

    dates: list[datetime]
    data: list[AggregateRow]


class Aggregate(Struct):
    """An aggregate of a metric's events."""

    attributes: AggregateAttributes


class AggregateDocument(Struct):
    """The answer to a question for aggregates."""

    data: Aggregate


class IdentifierDocument(Struct):
    """A page of which only the ids are used."""

    data: list[Identifier]
    links: Links | None = None
