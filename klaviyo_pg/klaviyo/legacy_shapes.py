"""The shapes of the legacy dialect's answers, as far as they are used. Times and empty values are text there."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from klaviyo_pg.klaviyo import properties, rows
from klaviyo_pg.klaviyo.resources import AnyId, Id, Named, Seconds

_NULL = Raw(b"null")
_NO_CUSTOM_PROPERTY = frozenset(
    {
        *("object", "id", "email", "first_name", "last_name", "created", "updated", "consent"),
        *("$id", "$email", "$first_name", "$last_name", "$phone_number", "$title", "$organization", "$source"),
        *("$address1", "$address2", "$city", "$region", "$country", "$zip", "$latitude", "$longitude", "$timezone"),
        *("$consent", "$consent_timestamp"),
    }
)


_decode_id = msgspec.json.Decoder(Id).decode


def moment(text: str | None) -> datetime | None:
    """A time with or without an offset (UTC then); None for an empty one. Raises ValueError for anything else."""
    return rows.utc(datetime.fromisoformat(text)) if text else None


class Event(Struct, gc=False):
    """A row of a timeline."""

    id: Named  # `properties.read` looks for a NUL in those of a page at once
    timestamp: Seconds
    statistic_id: str | None = None
    event_properties: Raw = _NULL
    person: Raw = _NULL


class Timeline(Struct):
    """A page of a timeline."""

    data: list[Event]
    next: str | None = None


class Integration(Struct):
    """Where a metric comes from."""

    category: Any = None


class Metric(Struct):
    """A row of v1/metrics."""

    id: Id
    name: str | None = None
    integration: Integration | None = None
    created: str | None = None
    updated: str | None = None

    def row(self) -> rows.Metric:
        category = self.integration and self.integration.category
        return rows.Metric(
            self.id, self.name, properties.plain_text(category), moment(self.created), moment(self.updated)
        )


class Group(Struct):
    """A list or segment within a campaign."""

    id: Id
    name: str | None = None
    list_type: str | None = None
    created: str | None = None

    def row(self) -> rows.Group:
        return rows.Group(self.id, self.name, moment(self.created))


class Campaign(Struct):
    """A row of v1/campaigns; older answers have one list_id instead of lists."""

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
        included = [found.id for found in self.lists or []] or ([self.list_id] if self.list_id else [])
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
            excluded=[found.id for found in self.excluded_lists or []],
        )


class Flow(Struct):
    """A row of v1/flows."""

    id: Id
    name: str | None = None
    status: str | None = None
    created: str | None = None
    updated: str | None = None

    def row(self) -> rows.Flow:
        return rows.Flow(self.id, self.name, self.status, moment(self.created), moment(self.updated))


class Exclusion(Struct):
    """A row of v1/people/exclusions."""

    email: Annotated[str, Meta(pattern=r"[^\x00]")]
    reason: str
    timestamp: str | None = None

    def row(self) -> rows.Exclusion:
        return rows.Exclusion(self.email, self.reason, moment(self.timestamp))


class Numbered(Struct):
    """A numbered page of v1; `end` is the place of its last row, counted from 0."""

    data: list[Raw]
    end: int = -1
    total: int = 0


class ListName(Struct):
    """A row of v2/lists."""

    list_id: Id
    list_name: str | None = None


class ListDetails(Struct):
    """v2/list/{id}."""

    created: str | None = None


class Member(Struct):
    """A row of v2/list/{id}/members and of v2/list/{id}/subscribe; somebody who is excluded from a list."""

    id: Id
    created: str | None = None


class Records(Struct):
    """A page of v2/list/{id}/exclusions/all."""

    records: list[Raw]
    marker: int | str | None = None


class Series(Struct):
    """Counts by date."""

    date: str
    values: list[float]


class Segment(Struct):
    """Counts of one segment of an export; without `by` there is one."""

    data: list[Series]


class Export(Struct):
    """v1/metric/{id}/export."""

    results: list[Segment]


def person(fields: dict[str, Raw]) -> rows.Profile:
    """A person, alone or within an event. Raises ValueError for an unreadable time, and for one without an id."""

    def said(*names: str) -> str | None:
        found = (properties.text(fields.get(name)) for name in names)
        return next((text for text in found if text), None)

    return rows.Profile(
        id=_decode_id(fields.get("id", _NULL)),
        email=said("$email", "email"),
        timezone=said("$timezone"),
        first_name=said("$first_name", "first_name"),
        last_name=said("$last_name", "last_name"),
        source=said("$source"),
        address1=said("$address1"),
        address2=said("$address2"),
        city=said("$city"),
        state=said("$region"),
        zip=said("$zip"),
        country=said("$country"),
        phone_number=said("$phone_number"),
        longitude=properties.number(said("$longitude")),
        latitude=properties.number(said("$latitude")),
        created=moment(said("created")),
        properties=properties.texts(fields, without=_NO_CUSTOM_PROPERTY),
        consent=said("$consent", "consent"),
        consent_timestamp=moment(said("$consent_timestamp")),
    )


decode_member = msgspec.json.Decoder(Member).decode
decode_person = msgspec.json.Decoder(dict[str, Raw]).decode
