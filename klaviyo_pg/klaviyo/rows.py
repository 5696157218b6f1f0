"""What the API is read into, whichever dialect it speaks: plain rows, and pages of them. Knows no polars and no SQL."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar

Row = TypeVar("Row", covariant=True)


class Reject(NamedTuple):
    """A record that cannot be understood or stored: as it came, and why.

    Unless `hides` is false it may be one that is stored, so what was read beside it is not complete.
    """

    raw: str
    reason: str
    hides: bool = True


class Page(NamedTuple, Generic[Row]):
    """Some rows, the records beside them that could not be read, and when the API was asked for them."""

    rows: Sequence[Row]
    rejects: Sequence[Reject]
    read_at: datetime


class Metric(NamedTuple):
    """A kind of event."""

    id: str
    name: str | None
    category: str | None
    created: datetime | None
    updated: datetime | None


class Campaign(NamedTuple):
    """A campaign; audiences are ids of lists and segments."""

    id: str
    name: str | None
    list_id: str | None
    from_email: str | None
    from_name: str | None
    subject: str | None
    status: str | None
    sent_at: datetime | None
    campaign_type: str | None
    created: datetime | None
    updated: datetime | None
    included: Sequence[str]
    excluded: Sequence[str]


class Flow(NamedTuple):
    """A flow, which the warehouse calls an automation."""

    id: str
    name: str | None
    status: str | None
    created: datetime | None
    updated: datetime | None


class Group(NamedTuple):
    """A list or a segment."""

    id: str
    name: str | None
    created: datetime | None


class Exclusion(NamedTuple):
    """An address that must not be written to."""

    email: str
    reason: str
    since: datetime | None


class Membership(NamedTuple):
    """A person on a list; whether the list may write to the person, where the API tells it here."""

    list_id: str
    member_id: str
    joined: datetime | None
    is_subscribed: bool | None = None


class Suppression(NamedTuple):
    """A person whom one list must not write to."""

    list_id: str
    member_id: str
    since: datetime | None


class MembershipPage(NamedTuple):
    """One page of a list's members, and of those it must not write to."""

    rows: Sequence[Membership]
    suppressions: Sequence[Suppression]
    rejects: Sequence[Reject]
    read_at: datetime


class Profile(NamedTuple):
    """A person. `properties` are the custom ones, by name: a string as it is, anything else as JSON."""

    id: str
    email: str | None
    timezone: str | None
    first_name: str | None
    last_name: str | None
    source: str | None
    address1: str | None
    address2: str | None
    city: str | None
    state: str | None
    zip: str | None
    country: str | None
    phone_number: str | None
    longitude: float | None
    latitude: float | None
    created: datetime | None
    properties: Sequence[tuple[str, str | None]]
    consent: str | None = None
    consent_timestamp: datetime | None = None
    list_suppressions: Sequence[tuple[str, datetime | None]] = ()


class Events(NamedTuple):
    """Events, column by column, as they go into a frame. All columns have the same length."""

    id: list[str]
    at: list[int]  # unix seconds
    metric_id: list[str | None]
    profile_id: list[str | None]
    email: list[str | None]
    message: list[str | None]
    flow: list[str | None]
    campaign_name: list[str | None]
    subject: list[str | None]
    list_name: list[str | None]
    value: list[str | None]  # digits as they came
    value_currency: list[str | None]
    properties: list[str]  # JSON

    def __len__(self) -> int:
        return len(self.id)


class EventPage(NamedTuple):
    """One page of events and the people in them."""

    events: Events
    profiles: Sequence[Profile]
    rejects: Sequence[Reject]
    read_at: datetime


class Beginning(NamedTuple):
    """When the first event of a metric in a window happened; how many there are, where one page holds them all."""

    first: datetime | None
    events: int | None


class Count(NamedTuple):
    """How many events of one metric the source has in the half-open stretch [start, end)."""

    start: datetime
    end: datetime
    events: int


def utc(moment: datetime | None) -> datetime | None:
    """A time in UTC; one without an offset is meant to be UTC."""
    if moment is None or moment.tzinfo is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # in UTC it is before the year 1 or after 9999, by hours
        return moment.replace(tzinfo=UTC)
