"""The responses of the legacy dialect, with the fields that are used, and their rows. Sends no requests.

In this dialect, times and empty values are text.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from klaviyo_pg import rows
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.fields import AnyId, Id, Named, Seconds
from klaviyo_pg.klaviyo.lenient import boolean, member

_NULL = Raw(b"null")
_NOT_CUSTOM = frozenset(
    {
        *("object", "id", "email", "first_name", "last_name", "created", "updated", "consent"),
        *("$id", "$email", "$first_name", "$last_name", "$phone_number", "$title", "$organization", "$source"),
        *(
            "$address1",
            "$address2",
            "$city",
            "$region",
            "$state",
            "$country",
            "$zip",
            "$latitude",
            "$longitude",
            "$timezone",
        ),
        *("$consent", "$consent_timestamp", "$consent_method"),
    }
)

_CREATED_AT = frozenset({"created_at"})  # a custom property, unless the person has no `created`
_decode_id = msgspec.json.Decoder(Id).decode


def moment(text: str | None) -> datetime | None:
    """Read a time, in UTC unless it has an offset; empty text is None. Raises ValueError for anything else."""
    return rows.utc(datetime.fromisoformat(text)) if text else None


class Event(Struct, gc=False):
    """A row of a timeline."""

    id: Named  # `properties.read` checks all ids of a page for a NUL at once
    timestamp: Seconds
    statistic_id: str | None = None
    event_properties: Raw = _NULL
    person: Raw = _NULL


class Timeline(Struct):
    """A page of a timeline."""

    data: list[Event]
    next: str | None = None


class Integration(Struct):
    """The origin of a metric."""

    id: Any = None
    name: Any = None
    category: Any = None


class Metric(Struct):
    """A row of v1/metrics."""

    id: Id
    name: str | None = None
    integration: Integration | None = None
    created: str | None = None
    updated: str | None = None

    def row(self) -> rows.Metric:
        integration = self.integration or Integration()
        return rows.Metric(
            self.id,
            self.name,
            properties.plain_text(integration.category),
            moment(self.created),
            moment(self.updated),
            properties.plain_text(integration.id),
            properties.plain_text(integration.name),
        )


class Group(Struct):
    """A list or segment of a campaign."""

    id: Id
    name: str | None = None
    list_type: str | None = None
    created: str | None = None
    updated: str | None = None

    def row(self) -> rows.Group:
        return rows.Group(self.id, self.name, moment(self.created), moment(self.updated))


class Campaign(Struct):
    """A row of v1/campaigns. Older responses have one list_id instead of lists."""

    id: Id
    name: str | None = None
    list_id: AnyId | None = None
    lists: list[Group] | None = None
    excluded_lists: list[Group] | None = None
    from_email: str | None = None
    from_name: str | None = None
    subject: str | None = None
    status_label: str | None = None
    sent_at: str | None = None
    campaign_type: str | None = None
    created: str | None = None
    updated: str | None = None

    def row(self) -> rows.Campaign:
        included = [group.id for group in self.lists or []] or ([self.list_id] if self.list_id else [])
        return rows.Campaign(
            id=self.id,
            name=self.name,
            list_id=self.list_id or (included[0] if included else None),
            from_email=self.from_email,
            from_name=self.from_name,
            subject=self.subject,
            status=self.status_label,
            sent_at=moment(self.sent_at),
            campaign_type=self.campaign_type,
            created=moment(self.created),
            updated=moment(self.updated),
            included=included,
            excluded=[group.id for group in self.excluded_lists or []],
        )


class Flow(Struct):
    """A row of v1/flows."""

    id: Id
    name: str | None = None
    status: str | None = None
    created: str | None = None
    updated: str | None = None
    archived: Any = None
    trigger: Any = None

    def row(self) -> rows.Flow:
        return rows.Flow(
            self.id,
            self.name,
            self.status,
            moment(self.created),
            moment(self.updated),
            boolean(self.archived),
            properties.plain_text(member(self.trigger, "type")),
        )


class Exclusion(Struct):
    """A row of v1/people/exclusions."""

    email: Annotated[str, Meta(pattern=r"[^\x00]")]
    reason: str
    timestamp: str | None = None

    def row(self) -> rows.Exclusion:
        return rows.Exclusion(self.email, self.reason, moment(self.timestamp))


class Numbered(Struct):
    """A numbered page of v1. `end` is the index of its last row in the collection, starting at 0."""

    data: list[Raw]
    end: int = -1
    total: int = 0


class ListName(Struct):
    """A row of v2/lists."""

    list_id: Id
    list_name: str | None = None


class ListDetails(Struct):
    """The response of v2/list/{id}."""

    created: str | None = None
    updated: str | None = None


class Member(Struct):
    """A row of v2/list/{id}/members, of v2/list/{id}/subscribe, of v2/list/{id}/exclusions/all
    and of v2/group/{id}/members/all."""

    id: Id
    created: str | None = None
    reason: str | None = None


class Records(Struct):
    """A page of v2/list/{id}/exclusions/all or of v2/group/{id}/members/all."""

    records: list[Raw]
    marker: int | str | None = None


class Series(Struct):
    """Counts by date."""

    date: str
    values: list[float]


class Segment(Struct):
    """Counts of one segment of an export. Without `by` there is only one."""

    data: list[Series]


class Export(Struct):
    """The response of v1/metric/{id}/export."""

    results: list[Segment]


def person_id(record: bytes) -> str:
    """Read the id of a person. Raises ValueError if it is missing or unreadable."""
    return _decode_identified(record).id


def person(fields: dict[str, Raw]) -> rows.Profile:
    """Read a person, with or without an event. Raises ValueError if the id is missing or a time is unreadable."""

    def first_of(*names: str) -> str | None:
        texts = (properties.text(fields.get(name)) for name in names)
        return next((text for text in texts if text), None)

    consent, consent_timestamp = first_of("$consent", "consent"), moment(first_of("$consent_timestamp"))
    return rows.Profile(
        id=_decode_id(fields.get("id", _NULL)),
        email=first_of("$email", "email"),
        timezone=first_of("$timezone"),
        first_name=first_of("$first_name", "first_name"),
        last_name=first_of("$last_name", "last_name"),
        source=first_of("$source"),
        address1=first_of("$address1"),
        address2=first_of("$address2"),
        city=first_of("$city"),
        state=first_of("$state", "$region"),
        zip=first_of("$zip"),
        country=first_of("$country"),
        phone_number=first_of("$phone_number"),
        longitude=properties.number(first_of("$longitude")),
        latitude=properties.number(first_of("$latitude")),
        created=moment(first_of("created", "created_at")),
        properties=properties.texts(fields, without=_NOT_CUSTOM if first_of("created") else _NOT_CUSTOM | _CREATED_AT),
        consent=consent,
        consent_timestamp=consent_timestamp,
        external_id=first_of("$id"),
        organization=first_of("$organization"),
        title=first_of("$title"),
        klaviyo_updated_at=moment(first_of("updated")),
        consents=[_email_consent(consent, consent_timestamp, first_of("$consent_method"))] if consent else (),
    )


def _email_consent(consent: str, timestamp: datetime | None, method: str | None) -> rows.Consent:
    return rows.Consent("email", consent, method=method, timestamp=timestamp)


class _Identified(Struct):
    """A person whose other fields do not matter."""

    id: Id


_decode_identified = msgspec.json.Decoder(_Identified).decode
decode_member = msgspec.json.Decoder(Member).decode
decode_person = msgspec.json.Decoder(dict[str, Raw]).decode
